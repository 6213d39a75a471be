"""Gradient-boosted trees of XGBoost (Chen & Guestrin 2016)."""

import json
from functools import partial
from typing import Any

import numpy as np
import xgboost
from numpy.typing import NDArray
from rich.progress import Progress, TaskID

from export.convert import from_xgboost
from export.datasets import Dataset
from export.members.trained import Splits, TrainedMember, tree_splits
from export.recipe import Xgboost


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
    return TrainedMember(
        name=recipe.name,
        framework=f"xgboost {xgboost.__version__}",
        predict_proba=lambda x: model.predict_proba(x.reshape(len(x), -1)),
        to_onnx=partial(from_xgboost, model, dataset.input, len(dataset.classes)),
        splits=_splits(model.get_booster(), rows),
    )


class _Rounds(xgboost.callback.TrainingCallback):  # type: ignore[misc]  # XGBoost is not typed
    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task

    def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
        """One round more; answering True would stop the training."""
        self._progress.advance(self._task)
        return False


def _splits(booster: Any, rows: NDArray[np.float32]) -> Splits:
    trees = json.loads(booster.save_raw("json"))["learner"]["gradient_booster"]["model"]["trees"]
    leaves = booster.predict(xgboost.DMatrix(rows), pred_leaf=True).astype(np.int64).reshape(len(rows), -1)
    return Splits.joined(
        [
            tree_splits(
                np.array(tree["left_children"]),
                np.array(tree["right_children"]),
                np.array(tree["split_indices"]),
                np.array(tree["split_conditions"]),
                leaves[:, index],
            )
            for index, tree in enumerate(trees)
        ]
    )
