import numpy as np
import pytest
import xgboost
from rich.console import Console
from rich.progress import Progress

from export.errors import InvalidRecipe
from export.members import Task, train_member
from tests.export.members.boosted import assert_the_best_rounds_alone
from tests.export.small import XGB, digits, train

OVERFITTING = XGB.model_copy(update={"n_estimators": 40, "learning_rate": 0.9, "early_stopping": 2})


def test_it_boosts_all_rounds() -> None:
    dataset = digits()
    member = train(XGB, dataset)
    probabilities = member.predict_proba(dataset.test.x)
    assert member.framework == f"xgboost {xgboost.__version__}"
    assert probabilities.shape == (300, 10)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)
    assert (probabilities.argmax(axis=1) == dataset.test.y).mean() > 0.8
    assert member.record["rounds"] == 5


def test_it_is_xgboosts_classifier() -> None:
    dataset = digits()
    rows = dataset.train.x.reshape(len(dataset.train), -1)
    settings = {"subsample": 0.5, "colsample_bytree": 0.5, "reg_lambda": 3.0, "max_bin": 8}
    own = xgboost.XGBClassifier(n_estimators=5, max_depth=3, learning_rate=0.3, random_state=7, **settings)
    own.fit(rows, dataset.train.y)
    recipe = XGB.model_copy(update=settings)
    member = train_member(recipe, Task(dataset, 7, Progress(console=Console(quiet=True))))
    test = dataset.test.x.reshape(len(dataset.test), -1)
    np.testing.assert_array_equal(member.predict_proba(dataset.test.x), own.predict_proba(test))


def test_early_stopping_keeps_the_best_rounds_trees_alone() -> None:
    dataset = digits()
    assert_the_best_rounds_alone(train(OVERFITTING, dataset), dataset, patience=2, most=40)


def test_splits_are_all_trees_inner_nodes() -> None:
    member = train(XGB, digits())
    assert member.splits is not None
    assert 5 * 10 < len(member.splits) <= 5 * 10 * 7  # rounds x classes x inner nodes of a tree of depth 3
    np.testing.assert_array_equal(member.splits.thresholds, member.splits.thresholds.astype(np.float32))


def test_each_split_compares_as_its_tree_does() -> None:
    """Moving a row's feature across the threshold of a split that it comes by changes the leaf it ends in."""
    dataset = digits()
    settings = XGB.model_copy(update={"n_estimators": 1, "max_depth": 1})
    member = train(settings, dataset)
    assert member.splits is not None
    for feature, threshold, row in zip(
        member.splits.features, member.splits.thresholds, member.splits.rows, strict=True
    ):
        rows = np.repeat(dataset.train.x[row : row + 1], 2, axis=0)
        rows.reshape(2, -1)[:, feature] = np.nextafter(np.float32(threshold), np.float32(-np.inf)), threshold
        below, at = member.predict_proba(rows)
        assert not np.array_equal(below, at)


def test_what_xgboost_refuses_is_the_recipes() -> None:
    with pytest.raises(InvalidRecipe, match=r"member 'xgb': its settings are refused: .*max_bin"):
        train(XGB.model_copy(update={"max_bin": 1 << 40}), digits())


def test_progress_counts_rounds() -> None:
    progress = Progress(console=Console(quiet=True))
    train_member(XGB, Task(digits(), 0, progress))
    assert [(task.description, task.completed, task.finished) for task in progress.tasks] == [("xgb", 5, True)]


def test_progress_ends_when_the_training_stops_early() -> None:
    progress = Progress(console=Console(quiet=True))
    train_member(OVERFITTING, Task(digits(), 0, progress))
    assert [task.finished for task in progress.tasks] == [True]
