from collections.abc import Mapping

import numpy as np
import orjson
import pytest
from onnx import ModelProto
from pydantic import ValidationError
from rich.progress import Progress

from export.compare import compare_activations
from export.convert import OUTPUT
from export.recipe import CompareActivations, Conv, Dense, Flatten, Layer
from server.rows import Rows, split_rows
from server.session import Session
from tests.export.compare.small import LAYERS, few_digits


def _operators(models: Mapping[str, ModelProto], rows: Rows) -> dict[str, float]:
    """Takes the place of the clock: a microsecond an operator. Each graph answers."""
    for model in models.values():
        session = Session(model.SerializeToString(), where="model.onnx")
        (answer,) = session.run([OUTPUT], split_rows(rows, session.inputs))
        assert answer.shape == (100, 10)
    return {name: float(len(model.graph.node)) for name, model in models.items()}


def test_each_activation_is_trained_from_each_seed(progress: Progress) -> None:
    settings = CompareActivations(
        layers=LAYERS, activations=["relu", "sigmoid"], seeds=2, epochs=3, rows=200, learning_rate=0.02, batch_size=32
    )
    found = compare_activations(settings, few_digits(), seed=7, progress=progress, measure=_operators)
    assert found["settings"]["rows"] == 200
    rows = found["rows"]
    assert [(row["activation"], row["seed"]) for row in rows] == [
        ("relu", 7),
        ("relu", 8),
        ("sigmoid", 7),
        ("sigmoid", 8),
    ]
    assert all(len(row["curve"]) == 3 and row["curve"][-1] == row["log_loss"] and not row["diverged"] for row in rows)
    relu, sigmoid = found["summary"]
    assert relu["accuracy"] == np.mean([row["accuracy"] for row in rows[:2]])
    assert relu["log_loss_std"] == np.std([row["log_loss"] for row in rows[:2]])
    assert relu["log_loss"] < sigmoid["log_loss"]
    assert relu["gradient_ratio"] > sigmoid["gradient_ratio"]  # sigmoid's slope is a quarter at most
    assert relu["cost_us"] > 5
    assert [(task.description, task.completed, task.finished) for task in progress.tasks] == [("activations", 12, True)]


def test_the_same_seed_finds_the_same(progress: Progress) -> None:
    flat: list[Layer] = [Flatten(layer="flatten"), Dense(layer="dense", units=4)]
    settings = CompareActivations(layers=flat, activations=["relu", "elu"], seeds=1, epochs=1)
    one, other = (
        compare_activations(settings, few_digits(), seed=3, progress=progress, measure=_operators) for _ in range(2)
    )
    assert one == other


def test_a_network_that_diverges_is_said_to(progress: Progress) -> None:
    conv = Conv(layer="conv", filters=16, padding="same", batch_norm=True)
    plain = conv.model_copy(update={"batch_norm": False})
    settings = CompareActivations(
        layers=[conv, plain, plain, plain, Flatten(layer="flatten")],
        activations=["tanh", "exponential"],
        seeds=1,
        epochs=1,
        rows=100,
    )
    found = compare_activations(settings, few_digits(), seed=0, progress=progress, measure=_operators)
    tanh, exponential = found["rows"]
    assert not tanh["diverged"]
    assert exponential["diverged"]
    assert exponential["accuracy"] == 0.1
    assert exponential["curve"] == [exponential["log_loss"]] == [np.log(10)]
    assert [row["diverged"] for row in found["summary"]] == [0, 1]
    assert b"null" not in orjson.dumps([found["rows"], found["summary"]])  # what is no number becomes null


def test_activations_come_once_and_there_must_be_a_layer_for_them() -> None:
    with pytest.raises(ValidationError, match="'relu' is named more than once"):
        CompareActivations(layers=LAYERS, activations=["relu", "relu"])
    with pytest.raises(ValidationError, match="layers: expected a conv or a dense layer, got none"):
        CompareActivations(layers=[Flatten(layer="flatten")])
