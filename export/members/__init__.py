"""The families of members: how each is trained."""

import zlib
from collections.abc import Callable, Mapping

import numpy as np

from export.errors import UnseenClass
from export.members.keras_cnn import train_keras_cnn
from export.members.lightgbm_trees import train_lightgbm
from export.members.pruned_cnn import train_pruned_cnn
from export.members.quantised import train_quantised
from export.members.sklearn_trees import train_sklearn_tree
from export.members.task import Task
from export.members.xgboost_trees import train_xgboost
from export.recipe import Member
from export.trained import Splits, TrainedMember

__all__ = ["TRAINERS", "Splits", "Task", "TrainedMember", "own_seed", "train_member"]

TRAINERS: Mapping[str, Callable[..., TrainedMember]] = {
    "decision_tree": train_sklearn_tree,
    "extra_trees": train_sklearn_tree,
    "keras_cnn": train_keras_cnn,
    "lightgbm": train_lightgbm,
    "pruned_cnn": train_pruned_cnn,
    "quantised": train_quantised,
    "random_forest": train_sklearn_tree,
    "xgboost": train_xgboost,
}
"""By the `kind` of a recipe's member."""


def train_member(recipe: Member, task: Task) -> TrainedMember:
    """Train one member; its progress gets a line with the member's name.

    Raises UnseenClass.
    """
    dataset = task.dataset
    unseen = np.setdiff1d(np.arange(len(dataset.classes)), dataset.train.y)
    if len(unseen):
        raise UnseenClass(
            f"member {recipe.name!r}: expected training rows of all {len(dataset.classes)} classes, "
            f"got none of {[dataset.classes[index] for index in unseen]}"
        )
    return TRAINERS[recipe.kind](recipe, task)


def own_seed(name: str, seed: int) -> int:
    """The seed of a member, of the recipe's and its name: two members of the same settings differ, and one more member
    does not change the others."""
    return (seed + zlib.crc32(name.encode())) % (1 << 31)
