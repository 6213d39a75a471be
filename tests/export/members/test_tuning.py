import itertools
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from rich.console import Console
from rich.progress import Progress
from sklearn.model_selection import StratifiedKFold
from sklearn.tree import DecisionTreeClassifier

from export.datasets import Dataset, Split
from export.errors import InvalidRecipe
from export.fusing.fit import fit_temperature
from export.members import Task, TrainedMember, train_member
from export.members.network import log_loss
from export.recipe import DecisionTree, Lightgbm, RandomForest, Xgboost
from server.fusion import calibrate
from tests.export.small import digits, train


def _tree(**tune: Any) -> DecisionTree:
    return DecisionTree.model_validate({"kind": "decision_tree", "name": "tree", "max_leaf_nodes": 40, "tune": tune})


def _forest(**tune: Any) -> RandomForest:
    return RandomForest.model_validate({"kind": "random_forest", "name": "forest", "n_estimators": 3, "tune": tune})


def _boosted(kind: type[Xgboost | Lightgbm] = Xgboost, **tune: Any) -> Xgboost | Lightgbm:
    named = {"kind": kind.__name__.lower(), "name": "boosted", "n_estimators": 4, "max_depth": 2, "max_bin": 8}
    return kind.model_validate({**named, "tune": tune})


def _train(recipe: Any, dataset: Dataset, seed: int = 7) -> tuple[TrainedMember, Progress]:
    progress = Progress(console=Console(quiet=True))
    return train_member(recipe, Task(dataset, seed, progress)), progress


# ---- Grids ----------------------------------------------------------------------------------------------------------


def test_a_grid_is_tried_in_full_on_every_fold() -> None:
    member, progress = _train(_tree(grid={"max_depth": [3, 8], "criterion": ["gini", "entropy"]}, folds=3), digits())
    tuning = member.record["tuning"]
    assert tuning["method"] == "GridSearchCV"
    assert (tuning["folds"], tuning["rows"]) == (3, 997)
    tried = [tuple(result["params"][key] for key in ("max_depth", "criterion")) for result in tuning["results"]]
    assert sorted(tried) == sorted(itertools.product([3, 8], ["gini", "entropy"]))
    means = [result["mean_score"] for result in tuning["results"]]
    assert means == sorted(means)  # the least log-loss comes first
    assert [result["rank"] for result in tuning["results"]] == [1, 2, 3, 4]
    for result in tuning["results"]:
        assert len(result["fold_scores"]) == 3
        assert result["mean_score"] == pytest.approx(np.mean(result["fold_scores"]))
        assert result["std_score"] == pytest.approx(np.std(result["fold_scores"]))
    assert tuning["best"] == tuning["results"][0]["params"]
    assert tuning["best_score"] == means[0]
    assert tuning["best"]["max_depth"] == 8
    json.dumps(member.record, allow_nan=False)
    shown = [(task.description, task.completed, task.finished) for task in progress.tasks]
    assert shown == [("tree: tuning", 12, True), ("tree", 1, True)]


def test_the_score_of_a_tree_is_its_log_loss_once_calibrated() -> None:
    dataset = digits()
    member, _ = _train(_tree(grid={"max_depth": [6]}, folds=2), dataset)
    (result,) = member.record["tuning"]["results"]
    x, y = dataset.train.x.reshape(len(dataset.train), -1), dataset.train.y
    by_hand = []
    for learn, hold in StratifiedKFold(2, shuffle=True, random_state=7).split(x, y):
        model = DecisionTreeClassifier(max_depth=6, max_leaf_nodes=40, random_state=7).fit(x[learn], y[learn])
        answers = model.predict_proba(x[hold]).astype(np.float32)
        temperature = np.array([fit_temperature(answers, y[hold])], dtype=np.float32)
        by_hand.append(log_loss(calibrate(answers[None], temperature)[0], y[hold]))
        assert by_hand[-1] < log_loss(answers, y[hold]) - 0.1  # which counts the leaves that lack a class
    assert result["fold_scores"] == pytest.approx(by_hand)


def test_halving_gives_the_better_third_more_rows() -> None:
    grid = {"max_depth": [1, 2, 8], "min_samples_leaf": [1, 2, 40]}
    member, progress = _train(_tree(grid=grid, folds=2, halving=True), digits())
    tuning = member.record["tuning"]
    assert tuning["method"] == "HalvingGridSearchCV"
    rows = [result["rows"] for result in tuning["results"]]
    assert rows == sorted(rows, reverse=True)
    counts = [rows.count(each) for each in dict.fromkeys(rows)]
    assert counts == [1, 3, 9]
    assert tuning["best"]["max_depth"] == 8
    assert all(task.finished for task in progress.tasks)
    json.dumps(member.record, allow_nan=False)


def test_halving_may_start_on_rows_that_lack_a_class() -> None:
    """Of the 40 rows that it starts on, 20 train: of one class in fifty there may be none."""
    dataset = digits()
    member, _ = _train(
        _tree(grid={"max_depth": list(range(1, 28))}, folds=2, halving=True), _with_a_rare_class(dataset)
    )
    assert member.record["tuning"]["results"][-1]["rows"] < 60


def test_fewer_rows_are_searched_but_all_are_trained_on() -> None:
    dataset = digits()
    recipe = _tree(grid={"min_samples_leaf": [1, 30]}, folds=2, rows=200)
    member, _ = _train(recipe, dataset)
    assert member.record["tuning"]["rows"] == 200
    best = recipe.model_copy(update={"tune": None, **member.record["tuning"]["best"]})
    by_hand, _ = _train(best, dataset)
    np.testing.assert_array_equal(member.predict_proba(dataset.test.x), by_hand.predict_proba(dataset.test.x))


@pytest.mark.parametrize("halving", [False, True])
def test_the_same_seed_finds_the_same(halving: bool) -> None:
    recipe = _forest(grid={"max_leaf_nodes": [5, 20, 40]}, folds=2, rows=300, halving=halving)
    assert train(recipe, digits()).record == train(recipe, digits()).record
    assert train(recipe, digits()).record != train(recipe, digits(), seed=1).record


# ---- Trials ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Xgboost, Lightgbm])
def test_trials_are_scored_on_every_fold(kind: type[Xgboost | Lightgbm]) -> None:
    dataset = digits()
    ranges = {
        "learning_rate": {"low": 0.001, "high": 1.0, "log": True},
        "max_depth": {"low": 1, "high": 3},
        "subsample": {"low": 0.5, "high": 1.0},
    }
    member, progress = _train(_boosted(kind, ranges=ranges, trials=3, folds=2, rows=300), dataset)
    tuning = member.record["tuning"]
    assert (tuning["method"], tuning["folds"], tuning["rows"]) == ("optuna", 2, 300)
    results = tuning["results"]
    assert sorted(result["trial"] for result in results) == [0, 1, 2]
    for result in results:
        assert result["state"] == "complete"
        assert result["rounds"] == [4, 4]
        assert result["mean_score"] == pytest.approx(np.mean(result["fold_scores"]))
        assert 0.001 <= result["params"]["learning_rate"] <= 1.0
        assert result["params"]["max_depth"] in (1, 2, 3)
    assert tuning["best_score"] == min(result["mean_score"] for result in results)
    assert tuning["best"] == results[0]["params"]
    shown = [(task.description, task.completed, task.finished) for task in progress.tasks]
    assert shown == [("boosted: tuning", 6, True), ("boosted", 4, True)]
    json.dumps(member.record, allow_nan=False)


def test_the_best_trial_is_trained_on_all_rows() -> None:
    dataset = digits()
    recipe = _boosted(ranges={"max_depth": {"low": 1, "high": 4}}, trials=2, folds=2, rows=200)
    member, _ = _train(recipe, dataset)
    best = recipe.model_copy(update={"tune": None, **member.record["tuning"]["best"]})
    by_hand, _ = _train(best, dataset)
    np.testing.assert_array_equal(member.predict_proba(dataset.test.x), by_hand.predict_proba(dataset.test.x))


def test_the_recipes_own_settings_come_first_within_the_ranges() -> None:
    def first(low: float) -> float:
        recipe = _boosted(ranges={"learning_rate": {"low": low, "high": 0.9}}, trials=1, folds=2, rows=200)
        (result,) = train(recipe, digits()).record["tuning"]["results"]
        drawn: float = result["params"]["learning_rate"]
        return drawn

    assert first(0.1) == 0.3
    assert first(0.4) > 0.4


def test_the_same_seed_draws_the_same_trials() -> None:
    recipe = _boosted(ranges={"learning_rate": {"low": 0.01, "high": 1.0}}, trials=3, folds=2, rows=200)
    assert train(recipe, digits()).record == train(recipe, digits()).record
    assert train(recipe, digits()).record != train(recipe, digits(), seed=1).record


def test_a_trial_that_does_badly_is_stopped_after_a_fold() -> None:
    recipe = _boosted(ranges={"learning_rate": {"low": 0.001, "high": 1.0}}, trials=12, folds=2, rows=200)
    member, progress = _train(recipe, digits())
    results = member.record["tuning"]["results"]
    states = [result["state"] for result in results]
    assert states.count("complete") >= 5
    assert states == ["complete"] * states.count("complete") + ["pruned"] * states.count("pruned")
    stopped = [result for result in results if result["state"] == "pruned"]
    assert stopped
    assert all(len(result["fold_scores"]) == 1 for result in stopped)
    assert all(task.finished for task in progress.tasks)


def test_no_trial_starts_after_the_budget() -> None:
    recipe = _boosted(ranges={"max_depth": {"low": 1, "high": 3}}, trials=100_000, folds=2, rows=100, budget="1s")
    member, progress = _train(recipe, digits())
    assert 1 <= len(member.record["tuning"]["results"]) < 100_000
    assert all(task.finished for task in progress.tasks)


def test_folds_stop_early_by_their_own_rows() -> None:
    recipe = _boosted(ranges={"max_depth": {"low": 2, "high": 3}}, trials=1, folds=2, rows=200)
    eager = recipe.model_copy(update={"n_estimators": 60, "learning_rate": 0.9, "early_stopping": 2})
    member = train(eager, digits())
    (result,) = member.record["tuning"]["results"]
    assert all(1 <= rounds < 60 for rounds in result["rounds"])
    assert member.record["rounds"] < 60


# ---- What cannot be tried -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ({"depth": [3]}, "'tree': tune: expected settings among criterion, .*max_depth.*; got 'depth'"),
        ({"tune": [3]}, "'tree': tune: expected settings among .*; got 'tune'"),
        ({"max_depth": [3, 0]}, "'tree': tune: max_depth: Input should be greater than or equal to 1; got 0"),
        ({"criterion": ["gini", "guess"]}, "'tree': tune: criterion: Input should be 'gini', .*; got 'guess'"),
    ],
)
def test_a_grid_of_what_the_tree_does_not_take_is_refused(grid: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        _tree(grid=grid)


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        ({"eta": {"low": 0.1, "high": 1.0}}, "tune: expected settings among n_estimators, .*; got 'eta'"),
        ({"subsample": {"low": 0.5, "high": 1.5}}, "tune: subsample: Input should be less than or equal to 1; got 1.5"),
        ({"max_depth": {"low": 1.5, "high": 4.0}}, "tune: max_depth: Input should be a valid integer"),
        ({"tree_method": {"low": 1, "high": 2}}, "tune: tree_method: Input should be 'hist'"),
    ],
)
def test_a_range_of_what_the_booster_does_not_take_is_refused(ranges: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        _boosted(ranges=ranges)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (
            _tree(grid={"max_depth": [2]}, folds=3, rows=20),
            "'tree': tune: expected at least 3 rows of each class for 3 folds, got [12] of one, in 20 rows",
        ),
        (
            _tree(grid={"max_depth": [2]}, folds=3, rows=5),
            "'tree': its settings are refused: The test_size = 5 should be",
        ),
        (_tree(grid={"max_depth": [2]}, folds=3, rows=40, halving=True), "expected at least 6 rows of each class"),
        (
            _boosted(ranges={"max_depth": {"low": 1, "high": 2}}, folds=4, rows=30),
            "'boosted': tune: expected at least 4",
        ),
    ],
)
def test_too_few_rows_for_the_folds_are_refused(recipe: Any, message: str) -> None:
    with pytest.raises(InvalidRecipe, match=message):
        train(recipe, digits())


def _with_a_rare_class(dataset: Dataset) -> Dataset:
    """Ten classes, one of which has six training rows."""
    train_y = dataset.train.y
    rare = np.flatnonzero(train_y == 9)[6:]
    kept = np.setdiff1d(np.arange(len(train_y)), rare)
    return replace(dataset, train=Split(dataset.train.x[kept], train_y[kept]))
