from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from export.datasets import Dataset
from export.errors import InvalidRecipe, NothingFits
from export.formats.keras_models import load_keras
from export.library import Entry
from export.members import Task
from export.members.pruned_cnn import narrower, train_pruned_cnn
from export.members.surgery import widths
from export.parity import check_parity
from export.recipe import Conv, Dense, Flatten, KerasCnn, MaxPool, PrunedCnn
from tests.export.members.entries import kept, task_with
from tests.export.small import TREE, train

NET = KerasCnn(
    kind="keras_cnn",
    name="net",
    layers=[
        Conv(layer="conv", filters=16),
        MaxPool(layer="maxpool"),
        Flatten(layer="flatten"),
        Dense(layer="dense", units=64),
    ],
    learning_rate=0.01,
    epochs=3,
)


def _recipe(**changed: Any) -> PrunedCnn:
    settings = {"kind": "pruned_cnn", "name": "small", "of": "net", "learning_rate": 0.002, "epochs": 1, "rounds": 2}
    return PrunedCnn.model_validate(settings | changed)


def _log(record: Mapping[str, Any]) -> list[tuple[int, list[int], bool]]:
    return [(row["round"], row["widths"], row["kept"]) for row in record["rounds"]]


def test_it_is_a_narrower_network_that_can_be_pruned_again(task: Task, dataset: Dataset, entry: Entry) -> None:
    member = train_pruned_cnn(_recipe(keep=0.25, tolerance=1), task)
    record = member.record
    assert record["of"] == "net"
    assert _log(record) == [(0, [16, 64], False), (1, [16, 48], False), (2, [16, 16], True)]
    assert [row["parameters"] for row in record["rounds"]] == [16 * 10 + 145 * n + 10 * (n + 1) for n in (64, 48, 16)]
    assert record["kept"] == {key: value for key, value in record["rounds"][2].items() if key != "kept"}
    assert [row["round"] for row in record["control"]] == [0, 1, 2]
    hits = entry.answers["validation"].argmax(axis=1) == dataset.validation.y
    assert record["rounds"][0]["accuracy"] == record["control"][0]["accuracy"] == hits.mean()
    right = member.predict_proba(dataset.validation.x).argmax(axis=1) == dataset.validation.y
    assert record["kept"]["accuracy"] == right.mean() > 0.5
    assert member.to_onnx().ByteSize() < 0.5 * entry.bytes
    check_parity(member, member.to_onnx(), dataset)
    (shown,) = task.progress.tasks
    assert (shown.description, shown.completed, shown.finished) == ("small", 4, True)


def test_what_it_leaves_is_the_network(task: Task, dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> None:
    member = train_pruned_cnn(_recipe(rounds=1, tolerance=1), task)
    folder = tmp_path_factory.mktemp("library")
    again = task_with(kept(member, dataset, folder), dataset)
    assert widths(load_keras(again.sources["small"].folder / "model.keras")) == [16, 32]
    smaller = train_pruned_cnn(_recipe(name="smaller", of="small", rounds=1, tolerance=1), again)
    assert _log(smaller.record) == [(0, [16, 32], False), (1, [16, 16], True)]


def test_the_same_seed_gives_the_same_network(task: Task, dataset: Dataset) -> None:
    one, two = (train_pruned_cnn(_recipe(rounds=1, tolerance=1), task) for _ in range(2))
    np.testing.assert_array_equal(one.predict_proba(dataset.test.x), two.predict_proba(dataset.test.x))


def test_it_stops_when_it_is_cheap_enough(task: Task) -> None:
    record = train_pruned_cnn(_recipe(keep=0.25, tolerance=1, max_cost_us=1e6), task).record
    assert _log(record) == [(0, [16, 64], False), (1, [16, 48], True)]
    assert len(record["control"]) == 2


def test_when_a_round_loses_too_much_the_one_before_it_is_kept(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    lost = iter([0.01, 0.02, 0.02])
    monkeypatch.setattr("export.members.pruned_cnn.accuracy_lost", lambda *_: next(lost))
    member = train_pruned_cnn(_recipe(keep=0.25, tolerance=0.01), task)
    assert _log(member.record) == [(0, [16, 64], False), (1, [16, 48], True), (2, [16, 16], False)]
    assert member.record["kept"]["widths"] == [16, 48]


def test_when_the_first_round_loses_too_much_nothing_is_kept(task: Task) -> None:
    """At so high a learning rate nothing is left of what it knew."""
    with pytest.raises(NothingFits) as caught:
        train_pruned_cnn(_recipe(keep=0.5, rounds=1, learning_rate=10, tolerance=0.01), task)
    expected = "member 'small': no narrower 'net' within 0.01 of its accuracy: the first round took it from 0."
    assert caught.value.message.startswith(expected)
    assert caught.value.message.endswith(" µs a row, from 16-64 to 16-32 channels")


def test_where_there_is_nothing_to_prune_it_says_so(task: Task) -> None:
    expected = (
        "'small': nothing to prune of 'net': its layers have 16-64 channels, and 0.9 of them are, in multiples of"
    )
    with pytest.raises(NothingFits, match=expected):
        train_pruned_cnn(_recipe(keep=0.9), task)


def test_a_source_that_is_no_network_is_refused(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> None:
    task = task_with(kept(train(TREE, dataset), dataset, tmp_path_factory.mktemp("library")), dataset)
    with pytest.raises(InvalidRecipe, match=r"member 'small': expected 'tree' to be a Keras network, .* holds none"):
        train_pruned_cnn(_recipe(of="tree"), task)


@pytest.mark.parametrize(
    ("before", "keep", "rounds", "expected"),
    [
        ([32, 64, 64], 0.5, 1, [[16, 32, 32]]),
        ([32, 64, 64], 0.5, 3, [[32, 48, 48], [16, 48, 48], [16, 32, 32]]),
        ([16, 8, 24], 0.1, 1, [[16, 8, 16]]),
        ([128], 0.25, 2, [[80], [32]]),
        ([40], 0.99, 2, [[32]]),
        ([16, 16], 0.1, 3, []),
        ([100], 1.0, 3, [[96]]),
        ([96, 16, 8], 1.0, 3, []),
    ],
)
def test_widths_go_down_in_multiples_of_16(
    before: list[int], keep: float, rounds: int, expected: list[list[int]]
) -> None:
    assert narrower(before, keep=keep, rounds=rounds) == expected
