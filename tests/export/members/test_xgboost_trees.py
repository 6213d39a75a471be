import numpy as np
import xgboost
from rich.console import Console
from rich.progress import Progress

from export.members import train_member
from tests.export.small import XGB, digits, train


def test_it_boosts_all_rounds() -> None:
    dataset = digits()
    member = train(XGB, dataset)
    probabilities = member.predict_proba(dataset.test.x)
    assert member.framework == f"xgboost {xgboost.__version__}"
    assert probabilities.shape == (300, 10)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)
    assert (probabilities.argmax(axis=1) == dataset.test.y).mean() > 0.8


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


def test_progress_counts_rounds() -> None:
    progress = Progress(console=Console(quiet=True))
    train_member(XGB, digits(), seed=0, progress=progress)
    assert [(task.description, task.completed, task.finished) for task in progress.tasks] == [("xgb", 5, True)]
