"""Gradient-boosted trees of XGBoost (Chen & Guestrin 2016)."""

from collections.abc import Callable
from typing import Any

import xgboost

from export.datasets import Split
from export.formats.xgboost_models import xgboost_source
from export.members.task import Task
from export.members.tuning import Boosting, boosted_member, flat, refusals
from export.recipe import Xgboost
from export.trained import TrainedMember


def train_xgboost(recipe: Xgboost, task: Task) -> TrainedMember:
    """Boost `n_estimators` rounds of a tree a class on the flattened training rows, on all cores.

    With `tune` of the best settings found, with `early_stopping` no more rounds than served the validation rows.
    Raises InvalidRecipe.
    """
    return boosted_member(recipe, _boost, task)


def _boost(recipe: Xgboost, train: Split, held: Split, seed: int, on_round: Callable[[], object]) -> Boosting:
    callbacks: list[Any] = [_Rounds(on_round)]
    if recipe.early_stopping is not None:
        callbacks.append(xgboost.callback.EarlyStopping(rounds=recipe.early_stopping, save_best=True))
    settings = recipe.model_dump(exclude={"kind", "name", "tune", "early_stopping"})  # which have XGBoost's names
    model = xgboost.XGBClassifier(**settings, random_state=seed, callbacks=callbacks)
    with refusals(recipe.name, ValueError):
        model.fit(flat(train), train.y, eval_set=[(flat(held), held.y)], verbose=False)
    booster = model.get_booster()
    (curve,) = model.evals_result()["validation_0"].values()
    return Boosting(xgboost_source(booster), booster.num_boosted_rounds(), curve)


class _Rounds(xgboost.callback.TrainingCallback):  # type: ignore[misc]  # XGBoost is not typed
    def __init__(self, on_round: Callable[[], object]) -> None:
        self._on_round = on_round

    def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
        """One round more; answering True would stop the training."""
        self._on_round()
        return False
