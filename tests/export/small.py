"""Small real members, each trained on scikit-learn's digits in about a second."""

from rich.console import Console
from rich.progress import Progress

from export.datasets import Dataset, load_dataset
from export.members import Task, TrainedMember, own_seed, train_member
from export.recipe import Conv, DecisionTree, Dropout, Flatten, KerasCnn, MaxPool, Member, Xgboost

CNN = KerasCnn(
    kind="keras_cnn",
    name="cnn",
    layers=[
        Conv(layer="conv", filters=8),
        MaxPool(layer="maxpool"),
        Flatten(layer="flatten"),
        Dropout(layer="dropout", rate=0.1),
    ],
    learning_rate=0.01,
    epochs=3,
)
TREE = DecisionTree(kind="decision_tree", name="tree", max_leaf_nodes=60)
XGB = Xgboost(kind="xgboost", name="xgb", n_estimators=5, max_depth=3)


def digits() -> Dataset:
    return load_dataset("digits", seed=0)


def train(recipe: Member, dataset: Dataset, *, seed: int = 0) -> TrainedMember:
    own = own_seed(recipe.name, seed)
    return train_member(recipe, Task(dataset, own, Progress(console=Console(quiet=True))))
