"""The families of members: how each is trained."""

import zlib
from collections.abc import Callable, Mapping

import numpy as np
from rich.progress import Progress

from export.datasets import Dataset
from export.errors import UnseenClass
from export.members.decision_tree import train_decision_tree
from export.members.keras_cnn import train_keras_cnn
from export.members.xgboost_trees import train_xgboost
from export.recipe import Member
from export.trained import Splits, TrainedMember

__all__ = ["TRAINERS", "Splits", "TrainedMember", "train_member"]

TRAINERS: Mapping[str, Callable[..., TrainedMember]] = {
    "decision_tree": train_decision_tree,
    "keras_cnn": train_keras_cnn,
    "xgboost": train_xgboost,
}
"""By the `kind` of a recipe's member."""


def train_member(recipe: Member, dataset: Dataset, *, seed: int, progress: Progress) -> TrainedMember:
    """Train one member; `progress` gets a task with the member's name.

    The member's own seed comes of `seed` and its name: two members of the same settings differ, and one more member
    does not change the others. Raises UnseenClass.
    """
    unseen = np.setdiff1d(np.arange(len(dataset.classes)), dataset.train.y)
    if len(unseen):
        raise UnseenClass(
            f"member {recipe.name!r}: expected training rows of all {len(dataset.classes)} classes, "
            f"got none of {[dataset.classes[index] for index in unseen]}"
        )
    own_seed = (seed + zlib.crc32(recipe.name.encode())) % (1 << 31)
    return TRAINERS[recipe.kind](recipe, dataset, seed=own_seed, progress=progress)
