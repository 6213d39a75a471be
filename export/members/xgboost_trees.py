"""Gradient-boosted trees of XGBoost (Chen & Guestrin 2016)."""

from typing import Any

import xgboost
from rich.progress import Progress, TaskID

from export.adapt import member_of
from export.datasets import Dataset
from export.formats.xgboost_models import xgboost_source
from export.recipe import Xgboost
from export.trained import TrainedMember


def train_xgboost(recipe: Xgboost, dataset: Dataset, *, seed: int, progress: Progress) -> TrainedMember:
    """Boost `n_estimators` rounds of a tree a class on the flattened training rows, on all cores."""
    task = progress.add_task(recipe.name, total=recipe.n_estimators)
    rows = dataset.train.x.reshape(len(dataset.train), -1)
    model = xgboost.XGBClassifier(
        n_estimators=recipe.n_estimators,
        max_depth=recipe.max_depth,
        learning_rate=recipe.learning_rate,
        subsample=recipe.subsample,
        colsample_bytree=recipe.colsample_bytree,
        min_child_weight=recipe.min_child_weight,
        tree_method=recipe.tree_method,
        random_state=seed,
        callbacks=[_Rounds(progress, task)],
    ).fit(rows, dataset.train.y)
    model.set_params(callbacks=None)  # the progress display must not outlive the training
    return member_of(xgboost_source(model), recipe.name, dataset)


class _Rounds(xgboost.callback.TrainingCallback):  # type: ignore[misc]  # XGBoost is not typed
    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task

    def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
        """One round more; answering True would stop the training."""
        self._progress.advance(self._task)
        return False
