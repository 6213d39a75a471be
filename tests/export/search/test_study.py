"""Searches for networks on digits, with real trainings of an epoch or two."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from onnx import ModelProto
from rich.console import Console
from rich.progress import Progress

from export.datasets import Dataset
from export.errors import InvalidRecipe, NothingFits
from export.recipe import Search
from export.search import pick, run_search
from export.search.front import nondominated
from server.manifest import InputSpec
from server.rows import Rows
from tests.export.small import digits

SEARCH = Search(name="small", space="wider", trials=3, epochs=1, rows=200)


def by_size(model: ModelProto, rows: Rows) -> float:
    """Stands for a measurement: it comes out the same each time."""
    return len(model.SerializeToString()) / 1000


def forbidden(model: ModelProto, rows: Rows) -> float:
    raise AssertionError("nothing was to be tried")


@pytest.fixture(scope="module", name="dataset")
def _dataset() -> Dataset:
    return digits()


@pytest.fixture(scope="module", name="folder")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("searches")


@pytest.fixture(scope="module", name="record")
def _record(dataset: Dataset, folder: Path) -> dict[str, Any]:
    return search(dataset, folder, Progress(console=Console(quiet=True)))


def search(
    dataset: Dataset, folder: Path, progress: Progress, what: Search = SEARCH, measure: Any = by_size, **options: Any
) -> dict[str, Any]:
    return run_search(what, dataset, seed=3, folder=folder, progress=progress, measure=measure, **options)


def test_the_record_tells_what_came_of_each_trial(record: dict[str, Any]) -> None:
    assert orjson.loads(orjson.dumps(record)) == record
    assert (record["name"], record["space"], record["settings"]["rows"]) == ("small", "wider", 200)
    assert [trial["number"] for trial in record["trials"]] == [0, 1, 2]
    for trial in record["trials"]:
        assert (trial["state"], trial["reason"], len(trial["curve"])) == ("complete", None, 1)
        assert trial["log_loss"] == trial["curve"][-1] > 0
        assert 0 <= trial["accuracy"] <= 1
        assert trial["cost_us"] == trial["bytes"] / 1000 > 0
        assert trial["parameters"] > 0
        assert trial["batch_size"] == trial["params"]["batch_size"]
    assert record["seconds"] == pytest.approx(sum(trial["seconds"] for trial in record["trials"]))


def test_the_front_is_of_the_complete_trials(record: dict[str, Any]) -> None:
    figures = np.array([[trial[key] for key in ("log_loss", "cost_us", "bytes")] for trial in record["trials"]])
    assert [trial["front"] for trial in record["trials"]] == nondominated(figures).tolist()
    best = min(record["trials"], key=lambda trial: trial["log_loss"])
    assert pick(record, max_cost_us=None, member="cnn").number == best["number"]


def test_what_was_asked_before_is_answered_without_a_trial(
    dataset: Dataset, folder: Path, progress: Progress, record: dict[str, Any]
) -> None:
    assert search(dataset, folder, progress, measure=forbidden) == record
    assert [task.description for task in progress.tasks] == ["search small"]
    assert progress.tasks[0].finished


def test_fewer_trials_are_the_first_ones(
    dataset: Dataset, folder: Path, progress: Progress, record: dict[str, Any]
) -> None:
    fewer = search(dataset, folder, progress, measure=forbidden, trials=2)
    assert fewer["settings"]["trials"] == 2
    assert [trial["params"] for trial in fewer["trials"]] == [trial["params"] for trial in record["trials"][:2]]


def test_a_budget_that_is_spent_ends_it(
    dataset: Dataset, folder: Path, progress: Progress, record: dict[str, Any]
) -> None:
    """By the time that is written down, so that it ends there each time."""
    spent = np.cumsum([trial["seconds"] for trial in record["trials"]])
    begun = search(dataset, folder, progress, measure=forbidden, budget="1s")
    assert len(begun["trials"]) == 1 + int((spent[:2] < 1).sum())
    assert progress.tasks[0].finished


def test_the_same_seed_makes_the_same_trials_after_an_interruption(
    dataset: Dataset, tmp_path: Path, progress: Progress, record: dict[str, Any]
) -> None:
    """Stopped within its second trial, then gone on with."""
    graphs = 0

    def interrupted(model: ModelProto, rows: Rows) -> float:
        nonlocal graphs
        graphs += 1
        if graphs == 2:
            raise KeyboardInterrupt
        return by_size(model, rows)

    with pytest.raises(KeyboardInterrupt):
        search(dataset, tmp_path, progress, measure=interrupted)
    again = search(dataset, tmp_path, progress, trials=2)
    assert [untimed(trial) for trial in again["trials"]] == [untimed(trial) for trial in record["trials"][:2]]


def untimed(trial: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in trial.items() if key != "seconds"}


def test_other_settings_are_another_search(dataset: Dataset, folder: Path, progress: Progress) -> None:
    before = len(list(folder.iterdir()))
    with pytest.raises(NothingFits):
        search(dataset, folder, progress, SEARCH.model_copy(update={"trials": 1, "max_cost_us": 1e-3}))
    assert len(list(folder.iterdir())) == before + 1


def test_dear_networks_are_not_trained_and_failed_ones_fail_alone(
    dataset: Dataset, tmp_path: Path, progress: Progress
) -> None:
    costs: list[Any] = [50.0, ValueError("no such\noperator"), 5.0]

    def measure(model: ModelProto, rows: Rows) -> float:
        cost = costs.pop(0)
        if isinstance(cost, Exception):
            raise cost
        return float(cost)

    record = search(dataset, tmp_path, progress, SEARCH.model_copy(update={"max_cost_us": 20.0, "rows": None}), measure)
    assert [(trial["state"], trial["reason"], trial["front"]) for trial in record["trials"]] == [
        ("pruned", "it costs 50.0 µs a row", False),
        ("failed", "no such", False),
        ("complete", None, True),
    ]
    assert [trial["cost_us"] for trial in record["trials"]] == [50.0, None, 5.0]
    assert [len(trial["curve"]) for trial in record["trials"]] == [0, 0, 1]


def test_it_says_why_no_trial_is_complete(dataset: Dataset, tmp_path: Path, progress: Progress) -> None:
    def broken(model: ModelProto, rows: Rows) -> float:
        raise ValueError("no such operator")

    with pytest.raises(NothingFits) as caught:
        search(dataset, tmp_path, progress, measure=broken, trials=2)
    assert caught.value.message == (
        "search 'small': expected a complete trial, got none of 2; the first: no such operator"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trials": 0}, "search 'small': trials: Input should be greater than or equal to 1, got 0"),
        ({"budget": "soon"}, r"search 'small': budget: String should match pattern .*, got 'soon'"),
        ({"what": SEARCH.model_copy(update={"rows": 5})}, "search 'small': rows: expected 10 to 987, or all, got 5"),
        (
            {"what": SEARCH.model_copy(update={"rows": 990})},
            "search 'small': rows: expected 10 to 987, or all, got 990",
        ),
    ],
)
def test_what_cannot_be_searched_is_refused(
    dataset: Dataset, tmp_path: Path, progress: Progress, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidRecipe, match=message):
        search(dataset, tmp_path, progress, **options)


def test_rows_that_are_no_pictures_are_refused(dataset: Dataset, tmp_path: Path, progress: Progress) -> None:
    flat = replace(dataset, inputs=[InputSpec(name="values", shape=[64])])
    with pytest.raises(InvalidRecipe, match=r"search 'small': expected pictures, \(height, width, channels\)"):
        search(flat, tmp_path, progress)
