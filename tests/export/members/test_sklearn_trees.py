from typing import get_args

import numpy as np
import pytest
import sklearn
from rich.console import Console
from rich.progress import Progress
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
from sklearn.tree import DecisionTreeClassifier

from export.members import Task, train_member
from export.members.tuning import SklearnTree
from export.parity import check_parity
from export.recipe import DecisionTree, ExtraTrees, RandomForest
from tests.export.small import TREE, digits, train

FOREST = RandomForest(kind="random_forest", name="forest", n_estimators=5, max_leaf_nodes=40, max_features=0.3)
EXTRA = ExtraTrees(kind="extra_trees", name="extra", n_estimators=5, min_samples_leaf=4, criterion="entropy")


def test_it_is_scikit_learns_tree() -> None:
    dataset = digits()
    member = train(TREE, dataset, seed=5)
    rows = dataset.test.x.reshape(len(dataset.test), -1)
    probabilities = member.predict_proba(dataset.test.x)
    assert member.framework == f"scikit-learn {sklearn.__version__}"
    assert probabilities.shape == (300, 10)
    assert (probabilities.argmax(axis=1) == dataset.test.y).mean() > 0.7
    best = DecisionTreeClassifier(max_leaf_nodes=60, random_state=0).fit(
        dataset.train.x.reshape(len(dataset.train), -1), dataset.train.y
    )
    assert (best.predict(rows) == probabilities.argmax(axis=1)).mean() > 0.9  # the seed only decides ties of splits


@pytest.mark.parametrize(
    ("recipe", "own"),
    [
        (FOREST, RandomForestClassifier(5, max_leaf_nodes=40, max_features=0.3, random_state=7)),
        (EXTRA, ExtraTreesClassifier(5, min_samples_leaf=4, criterion="entropy", random_state=7)),
    ],
)
def test_forests_are_scikit_learns(recipe: SklearnTree, own: RandomForestClassifier | ExtraTreesClassifier) -> None:
    dataset = digits()
    own.fit(dataset.train.x.reshape(len(dataset.train), -1), dataset.train.y)
    member = train_member(recipe, Task(dataset, 7, Progress(console=Console(quiet=True))))
    rows = dataset.test.x.reshape(len(dataset.test), -1)
    np.testing.assert_array_equal(member.predict_proba(dataset.test.x), own.predict_proba(rows))


@pytest.mark.parametrize("recipe", [TREE, FOREST, EXTRA], ids=lambda recipe: recipe.kind)
def test_the_graph_answers_what_the_model_does(recipe: SklearnTree) -> None:
    dataset = digits()
    member = train(recipe, dataset)
    assert check_parity(member, member.to_onnx(), dataset).largest_difference < 1e-6


def test_splits_are_its_inner_nodes() -> None:
    dataset = digits()
    member = train(TREE, dataset)
    assert member.splits is not None
    assert len(member.splits) == 60 - 1  # a binary tree of 60 leaves
    assert member.logits is None
    values = dataset.train.x.reshape(len(dataset.train), -1)[member.splits.rows, member.splits.features]
    assert np.isfinite(values).all()


def test_a_pruned_tree_is_smaller() -> None:
    dataset = digits()
    pruned = train(DecisionTree(kind="decision_tree", name="tree", ccp_alpha=0.01), dataset)
    whole = train(DecisionTree(kind="decision_tree", name="tree"), dataset)
    assert pruned.splits is not None
    assert whole.splits is not None
    assert 0 < len(pruned.splits) < len(whole.splits)


def test_it_trains_with_the_settings_found() -> None:
    dataset = digits()
    recipe = DecisionTree.model_validate(
        {
            "kind": "decision_tree",
            "name": "tree",
            "min_samples_leaf": 3,
            "tune": {"grid": {"max_leaf_nodes": [2, 60]}, "folds": 2},
        }
    )
    tuned = train(recipe, dataset)
    by_hand = train(recipe.model_copy(update={"tune": None, "max_leaf_nodes": 60}), dataset)
    assert tuned.record["tuning"]["best"] == {"max_leaf_nodes": 60}
    assert by_hand.record == {}
    np.testing.assert_array_equal(tuned.predict_proba(dataset.test.x), by_hand.predict_proba(dataset.test.x))


@pytest.mark.parametrize("kind", get_args(SklearnTree))
def test_progress_ends(kind: type[SklearnTree]) -> None:
    progress = Progress(console=Console(quiet=True))
    name = kind.model_fields["kind"].annotation
    recipe = kind.model_validate({"kind": get_args(name)[0], "name": "tree", "max_leaf_nodes": 5})
    train_member(recipe, Task(digits(), 0, progress))
    assert [(task.description, task.finished) for task in progress.tasks] == [("tree", True)]
