"""Single decision trees of scikit-learn."""

from functools import partial

import sklearn
from rich.progress import Progress
from sklearn.tree import DecisionTreeClassifier

from export.convert import from_sklearn
from export.datasets import Dataset
from export.members.trained import Splits, TrainedMember, tree_splits
from export.recipe import DecisionTree


def train_decision_tree(recipe: DecisionTree, dataset: Dataset, *, seed: int, progress: Progress) -> TrainedMember:
    """Fit one tree on the flattened training rows."""
    task = progress.add_task(recipe.name, total=1)
    rows = dataset.train.x.reshape(len(dataset.train), -1)
    model = DecisionTreeClassifier(
        criterion=recipe.criterion,
        splitter=recipe.splitter,
        max_depth=recipe.max_depth,
        max_leaf_nodes=recipe.max_leaf_nodes,
        min_samples_leaf=recipe.min_samples_leaf,
        max_features=recipe.max_features,
        random_state=seed,
    ).fit(rows, dataset.train.y)
    progress.advance(task)
    tree = model.tree_
    splits = tree_splits(tree.children_left, tree.children_right, tree.feature, tree.threshold, model.apply(rows))
    return TrainedMember(
        name=recipe.name,
        framework=f"scikit-learn {sklearn.__version__}",
        predict_proba=lambda x: model.predict_proba(x.reshape(len(x), -1)),
        to_onnx=partial(from_sklearn, model, dataset.input, len(dataset.classes)),
        splits=Splits.joined([splits]),
    )
