"""Gradient-boosted trees of LightGBM (Ke et al. 2017)."""

from collections.abc import Callable
from typing import Any

import lightgbm
import numpy as np

from export.datasets import Split
from export.formats.lightgbm_models import lightgbm_source
from export.members.task import Task
from export.members.tuning import Boosting, boosted_member, flat, refusals
from export.recipe import Lightgbm
from export.trained import TrainedMember

FIXED = {
    "verbosity": -1,
    # Else LightGBM times both ways of counting and takes the faster, and sums in another order the next time.
    "deterministic": True,
    "force_col_wise": True,
    "subsample_freq": 1,  # else `subsample` does nothing
}


def train_lightgbm(recipe: Lightgbm, task: Task) -> TrainedMember:
    """Boost `n_estimators` rounds of a tree a class on the flattened training rows, on all cores.

    With `tune` of the best settings found, with `early_stopping` no more rounds than served the validation rows.
    Raises InvalidRecipe.
    """
    return boosted_member(recipe, _boost, task)


def _boost(recipe: Lightgbm, train: Split, held: Split, seed: int, on_round: Callable[[], object]) -> Boosting:
    excluded = {"kind", "name", "tune", "early_stopping", "n_estimators"}
    settings = FIXED | _objective(train) | {"seed": seed} | recipe.model_dump(exclude=excluded)
    curves: dict[str, dict[str, list[float]]] = {}
    callbacks: list[Any] = [lightgbm.record_evaluation(curves), lambda env: on_round()]
    if recipe.early_stopping is not None:
        callbacks.append(lightgbm.early_stopping(recipe.early_stopping, verbose=False))
    rows = lightgbm.Dataset(flat(train), train.y)
    with refusals(recipe.name, lightgbm.basic.LightGBMError):
        booster = lightgbm.train(
            settings,
            rows,
            num_boost_round=recipe.n_estimators,
            valid_sets=[rows.create_valid(flat(held), held.y)],
            callbacks=callbacks,
        )
    ((curve,),) = (metrics.values() for metrics in curves.values())
    return Boosting(lightgbm_source(booster), booster.best_iteration or booster.current_iteration(), curve)


def _objective(train: Split) -> dict[str, object]:
    n_classes = len(np.unique(train.y))
    return {"objective": "multiclass", "num_class": n_classes} if n_classes > 2 else {"objective": "binary"}
