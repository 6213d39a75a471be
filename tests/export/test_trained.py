import numpy as np

from export.trained import Splits, tree_splits

# Node 0 asks feature 5; its right child is node 2, which asks feature 7; leaves are 1, 3 and 4.
LEFT = np.array([1, -1, 3, -1, -1])
RIGHT = np.array([2, -1, 4, -1, -1])
FEATURES = np.array([5, 0, 7, 0, 0])
THRESHOLDS = np.array([0.5, 0, 1.5, 0, 0])


def test_each_split_has_a_row_that_comes_by_it() -> None:
    splits = tree_splits(LEFT, RIGHT, FEATURES, THRESHOLDS, leaves=np.array([1, 3, 1]))
    assert splits.features.tolist() == [5, 7]
    assert splits.thresholds.tolist() == [0.5, 1.5]
    assert splits.rows[1] == 1  # the only row right of the root
    assert splits.rows[0] in (0, 1, 2)


def test_a_split_that_no_row_comes_by_is_left_out() -> None:
    splits = tree_splits(LEFT, RIGHT, FEATURES, THRESHOLDS, leaves=np.array([1, 1]))
    assert splits.features.tolist() == [5]


def test_a_lone_leaf_has_no_splits() -> None:
    alone = np.array([-1])
    assert len(tree_splits(alone, alone, np.array([0]), np.array([0.0]), leaves=np.array([0, 0]))) == 0


def test_joined_keeps_order() -> None:
    one = tree_splits(LEFT, RIGHT, FEATURES, THRESHOLDS, leaves=np.array([1, 3, 4]))
    joined = Splits.joined([one, one])
    assert joined.features.tolist() == [5, 7, 5, 7]
    assert len(joined) == 4
