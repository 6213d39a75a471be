"""Single decision trees of scikit-learn."""

from dataclasses import replace

from rich.progress import Progress
from sklearn.tree import DecisionTreeClassifier

from export.adapt import member_of
from export.datasets import Dataset
from export.formats.sklearn_models import sklearn_source
from export.recipe import DecisionTree
from export.trained import TrainedMember


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
    # Its classes are the labels, which are indices into the data set's, whatever those are called.
    return member_of(replace(sklearn_source(model), classes=None), recipe.name, dataset)
