from typing import Any

import numpy as np
import orjson
import pytest
from pydantic import ValidationError
from rich.progress import Progress

from export.compare import compare_regularisation
from export.recipe import Augment, CompareRegularisation, Dense, Flatten, Layer, Variant
from tests.export.compare.small import LAYERS, few_digits

WIDE: list[Layer] = [Flatten(layer="flatten"), Dense(layer="dense", units=64)]
CURVES = {"loss", "train_log_loss", "validation_log_loss", "train_accuracy", "validation_accuracy"}


def _compare(progress: Progress, layers: list[Layer], *variants: Variant, **settings: Any) -> dict[str, dict[str, Any]]:
    wanted = CompareRegularisation(layers=layers, variants=list(variants), learning_rate=0.01, **settings)
    found = compare_regularisation(wanted, few_digits(), seed=5, progress=progress)
    assert b"null" not in orjson.dumps(found["variants"])
    return {variant["name"]: variant for variant in found["variants"]}


def test_what_holds_back_narrows_the_gap(progress: Progress) -> None:
    found = _compare(progress, WIDE, Variant(name="none"), Variant(name="l1", l1=0.02), epochs=10, batch_size=16)
    none, l1 = found.values()
    assert set(none["curves"]) == CURVES
    assert all(len(curve) == 10 for curve in none["curves"].values())
    assert none["gap"] == none["log_loss"] - none["train_log_loss"]
    assert none["log_loss"] == none["curves"]["validation_log_loss"][-1]
    assert l1["gap"] < none["gap"]
    assert l1["near_zero"] > 0.3 > none["near_zero"]


def test_all_start_from_the_same_kernels(progress: Progress) -> None:
    """Dropout that hardly ever drops anything leads the same way."""
    found = _compare(progress, LAYERS, Variant(name="none"), Variant(name="hardly", dropout=1e-9), epochs=2)
    none, hardly = (found[name]["curves"]["loss"] for name in ("none", "hardly"))
    np.testing.assert_allclose(none, hardly, rtol=1e-4)


def test_variants_do_what_they_say(progress: Progress) -> None:
    found = _compare(
        progress,
        LAYERS,
        Variant(name="stopped", early_stopping=1),
        Variant(
            name="rest", epochs=2, batch_norm=True, label_smoothing=0.1, augment=Augment(shift=1), weight_decay=0.1
        ),
        epochs=30,
        rows=40,
        batch_size=4,
    )
    stopped, rest = found["stopped"], found["rest"]
    losses = stopped["curves"]["validation_log_loss"]
    assert stopped["epochs_run"] == len(losses) == stopped["best_epoch"] + 2 < 30
    assert stopped["log_loss"] == min(losses)
    assert rest["epochs_run"] == 2
    assert [(task.description, task.completed, task.finished) for task in progress.tasks] == [
        ("regularisation", 32, True)
    ]


def test_a_network_that_diverges_is_said_to(progress: Progress) -> None:
    exploding: list[Layer] = [
        Flatten(layer="flatten"),
        *(Dense(layer="dense", units=32, activation="exponential") for _ in range(4)),
    ]
    found = _compare(progress, exploding, Variant(name="none"), Variant(name="l2", l2=0.001), epochs=1)
    assert found["none"]["diverged"]
    assert found["none"]["gap"] == 0
    assert found["none"]["curves"]["train_log_loss"] == [np.log(10)]


def test_a_list_of_variants_is_ready() -> None:
    ready = CompareRegularisation(layers=LAYERS).variants
    assert [variant.name for variant in ready] == [
        "none",
        "l1",
        "l2",
        "l1_l2",
        "dropout",
        "batch_norm",
        "label_smoothing",
        "early_stopping",
        "augmentation",
        "all",
    ]


def test_variants_have_names_of_their_own() -> None:
    with pytest.raises(ValidationError, match="'same' is named more than once"):
        CompareRegularisation(layers=LAYERS, variants=[Variant(name="same"), Variant(name="same", l1=0.1)])
