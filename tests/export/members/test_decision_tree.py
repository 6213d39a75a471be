import numpy as np
import sklearn
from rich.console import Console
from rich.progress import Progress
from sklearn.tree import DecisionTreeClassifier

from export.members import train_member
from tests.export.small import TREE, digits, train


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


def test_splits_are_its_inner_nodes() -> None:
    dataset = digits()
    member = train(TREE, dataset)
    assert member.splits is not None
    assert len(member.splits) == 60 - 1  # a binary tree of 60 leaves
    assert member.logits is None
    values = dataset.train.x.reshape(len(dataset.train), -1)[member.splits.rows, member.splits.features]
    assert np.isfinite(values).all()


def test_progress_ends() -> None:
    progress = Progress(console=Console(quiet=True))
    train_member(TREE, digits(), seed=0, progress=progress)
    assert [(task.description, task.finished) for task in progress.tasks] == [("tree", True)]
