"""Searches for the settings of trees by cross-validation: every combination of a grid, or trials one after another.

Both score on stratified folds of the training rows and answer the recipe with the best settings in it, which is then
trained on all rows like any other.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress, TaskID

from export.adapt import member_of
from export.datasets import Split
from export.errors import InvalidRecipe
from export.formats.source import Source
from export.fusing.fit import fit_temperature
from export.members.network import log_loss
from export.members.task import Task
from export.recipe import (
    DecisionTree,
    ExtraTrees,
    GridSearch,
    Lightgbm,
    RandomForest,
    Range,
    TrialSearch,
    Xgboost,
    seconds,
)
from export.trained import TrainedMember
from server.errors import first_line
from server.fusion import calibrate

FACTOR = 3
"""Of halving: one candidate in so many goes on, with so many times the rows."""
WARM_UP = 5
"""So many trials are drawn at random, and none is stopped before so many are complete."""

SklearnTree = DecisionTree | RandomForest | ExtraTrees
Boosted = TypeVar("Boosted", Xgboost, Lightgbm)
Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Boosting:
    """A boosted model, and its log-loss on the held-out rows after each round; `rounds` of them are in the model."""

    source: Source
    rounds: int
    curve: list[float]


Boost = Callable[[Boosted, Split, Split, int, Callable[[], object]], Boosting]
"""Trains a recipe on the first rows, watching the second, with a seed; calls the last after each round."""


def flat(split: Split) -> NDArray[np.float32]:
    """The rows as trees take them, `(n, n_features)`."""
    return split.x.reshape(len(split), -1)


@contextmanager
def refusals(name: str, *kinds: type[Exception]) -> Iterator[None]:
    """What a library raises over settings, as InvalidRecipe, which says whose they are."""
    try:
        yield
    except kinds as exc:
        raise InvalidRecipe(f"member {name!r}: its settings are refused: {first_line(exc)}") from exc


# ---- Grids ----------------------------------------------------------------------------------------------------------


def search_grid(recipe: SklearnTree, model: Any, task: Task) -> tuple[SklearnTree, Record]:
    """The recipe with the best of `recipe.tune`, if it has one, and a record of the search, under `tuning`.

    `model` is scikit-learn's, unfitted, with the recipe's settings. The score is log-loss in nats after temperature
    scaling: so a fusion sees a member, while a tree's plain log-loss tells little but how many rows fell into leaves
    without their class, at 16 nats each. Raises InvalidRecipe.
    """
    import joblib

    tune = recipe.tune
    if tune is None:
        return recipe, {}
    rows = _rows_to_search(recipe.name, tune, task, at_least=2 * tune.folds if tune.halving else tune.folds)
    total = tune.folds * _n_candidates(tune)
    shown = task.progress.add_task(f"{recipe.name}: tuning", total=total)
    search = _grid_search(tune, model, _Scorer(task.progress, shown), task.seed)
    # In threads, as scikit-learn's trees let go of Python's lock while they grow: a core a tree. Forests grow theirs in
    # threads of their own; in those of a search they would take each other's filters of warnings for their own.
    forest = not isinstance(recipe, DecisionTree)
    if forest:
        model.set_params(n_jobs=-1)
    with refusals(recipe.name, ValueError), joblib.parallel_config(backend="threading", n_jobs=1 if forest else -1):
        search.fit(flat(rows), rows.y)
    task.progress.update(shown, completed=total)
    return _chosen(recipe, type(search).__name__, "calibrated_log_loss", rows, _of_grid(search.cv_results_, tune))


def _n_candidates(tune: GridSearch) -> int:
    """Those of later rounds of halving counted again."""
    count = total = math.prod(map(len, tune.grid.values()))
    while tune.halving and count >= FACTOR:
        count = -(-count // FACTOR)
        total += count
    return total


def _grid_search(tune: GridSearch, model: Any, scorer: "_Scorer", seed: int) -> Any:
    from sklearn.experimental import enable_halving_search_cv  # noqa: F401  # brings HalvingGridSearchCV into being
    from sklearn.model_selection import GridSearchCV, HalvingGridSearchCV

    folds = _folds(tune, seed)
    same: dict[str, Any] = {"scoring": scorer, "cv": folds, "refit": False, "error_score": "raise"}
    if not tune.halving:
        return GridSearchCV(model, tune.grid, **same)
    return HalvingGridSearchCV(model, tune.grid, factor=FACTOR, random_state=seed, return_train_score=False, **same)


class _Scorer:
    """What scikit-learn asks how good a fitted model is; higher is better. Progress goes by it."""

    def __init__(self, progress: Progress, shown: TaskID) -> None:
        self._progress = progress
        self._shown = shown

    def __call__(self, model: Any, rows: NDArray[np.float32], y: NDArray[np.int64]) -> float:
        # Halving starts on so few rows that a model may not have seen every class.
        answers = np.zeros((len(rows), 1 + max(y.max(), model.classes_.max())), dtype=np.float32)
        if hasattr(model, "n_jobs"):
            model.set_params(n_jobs=None)  # threads sum a forest's answer in any order, and its last digits change
        answers[:, model.classes_] = model.predict_proba(rows)
        temperature = np.array([fit_temperature(answers, y)], dtype=np.float32)
        self._progress.advance(self._shown)
        return -log_loss(calibrate(answers[None], temperature)[0], y)


def _of_grid(found: Mapping[str, Any], tune: GridSearch) -> list[Record]:
    """Best first; of halving the last round's, which saw the most rows, before those that were out of it sooner."""
    scores = np.stack([-found[f"split{fold}_test_score"] for fold in range(tune.folds)], axis=1)
    rounds = found.get("iter", np.zeros(len(scores), dtype=np.int64))
    order = np.lexsort((scores.mean(axis=1), -rounds))
    results = [_result(rank, found["params"][place], scores[place]) for rank, place in enumerate(order, start=1)]
    if tune.halving:
        for result, place in zip(results, order, strict=True):
            result["rows"] = int(found["n_resources"][place])
    return results


# ---- Trials ---------------------------------------------------------------------------------------------------------


def search_trials(recipe: Boosted, boost: Boost[Boosted], task: Task) -> tuple[Boosted, Record]:
    """The recipe with the best settings that the trials of `recipe.tune` found, and a record of it, under `tuning`.

    Optuna's tree-structured Parzen estimator (Akiba et al. 2019; Bergstra et al. 2011) draws the settings; the recipe's
    own come first, where they are within the ranges. A trial whose mean log-loss after some folds is above the median
    of the others' there is stopped. With early stopping each fold stops by its own held-out rows. Without `budget` the
    same seed gives the same trials. Raises InvalidRecipe.
    """
    import optuna

    tune = recipe.tune
    if tune is None:
        return recipe, {}
    rows = _rows_to_search(recipe.name, tune, task, at_least=tune.folds)
    folds = _folds(tune, task.seed)
    total = tune.trials * tune.folds
    shown = task.progress.add_task(f"{recipe.name}: tuning", total=total)

    def attempt(trial: Any) -> float:
        drawn = {key: _draw(trial, key, within) for key, within in tune.ranges.items()}
        settings = recipe.model_copy(update={**drawn, "tune": None})
        scores: list[float] = []
        rounds: list[int] = []
        for fold, (held, made) in enumerate(_cross_validated(settings, boost, rows, folds, task.seed), start=1):
            scores.append(log_loss(made.source.predict([flat(held)]), held.y))
            rounds.append(made.rounds)
            trial.set_user_attr("found", {"fold_scores": scores, "rounds": rounds})
            trial.report(float(np.mean(scores)), fold)
            task.progress.update(shown, completed=trial.number * tune.folds + fold)
            if fold < tune.folds and trial.should_prune():
                raise optuna.TrialPruned
        return float(np.mean(scores))

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        sampler=optuna.samplers.TPESampler(n_startup_trials=WARM_UP, seed=task.seed),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=WARM_UP),
    )
    own = {key: getattr(recipe, key) for key in tune.ranges}
    if all(value is not None and tune.ranges[key].low <= value <= tune.ranges[key].high for key, value in own.items()):
        study.enqueue_trial(own)
    study.optimize(attempt, n_trials=tune.trials, timeout=tune.budget and seconds(tune.budget))
    task.progress.update(shown, completed=total)
    return _chosen(recipe, "optuna", "log_loss", rows, _of_trials(study.trials, tune))


def _cross_validated(
    recipe: Boosted, boost: Boost[Boosted], rows: Split, folds: Any, seed: int
) -> Iterator[tuple[Split, Boosting]]:
    """A model a fold, and the rows that were held out of it."""
    for learn, hold in folds.split(rows.y, rows.y):
        held = Split(rows.x[hold], rows.y[hold])
        yield held, boost(recipe, Split(rows.x[learn], rows.y[learn]), held, seed, lambda: None)


def _draw(trial: Any, key: str, within: Range) -> int | float:
    draw = trial.suggest_int if within.whole else trial.suggest_float
    value: int | float = draw(key, within.low, within.high, log=within.log)
    return value


def _of_trials(trials: list[Any], tune: TrialSearch) -> list[Record]:
    """Best first, then those that were stopped."""
    scored = [(trial, trial.user_attrs["found"]) for trial in trials]
    scored.sort(key=lambda pair: (-len(pair[1]["fold_scores"]), np.mean(pair[1]["fold_scores"])))
    return [
        _result(rank, trial.params, found["fold_scores"])
        | {
            "trial": trial.number,
            "state": "complete" if len(found["rounds"]) == tune.folds else "pruned",
            "rounds": found["rounds"],
        }
        for rank, (trial, found) in enumerate(scored, start=1)
    ]


def boosted_member(recipe: Boosted, boost: Boost[Boosted], task: Task) -> TrainedMember:
    """Search if the recipe says so, then boost on all training rows, watching the validation rows."""
    dataset = task.dataset
    recipe, record = search_trials(recipe, boost, task)
    shown = task.progress.add_task(recipe.name, total=recipe.n_estimators)
    made = boost(recipe, dataset.train, dataset.validation, task.seed, lambda: task.progress.advance(shown))
    task.progress.update(shown, completed=recipe.n_estimators)
    curves = {"validation_log_loss": made.curve}
    # Its classes are the labels, which are indices into the data set's, whatever those are called.
    member = member_of(replace(made.source, classes=None), recipe.name, dataset)
    return replace(member, record={**record, "rounds": made.rounds, "curves": curves})


# ---- Both -----------------------------------------------------------------------------------------------------------


def _rows_to_search(name: str, tune: GridSearch | TrialSearch, task: Task, *, at_least: int) -> Split:
    """The training rows, or `tune.rows` of them, stratified. Raises InvalidRecipe for too few rows of a class."""
    train = task.dataset.train
    chosen = train
    if tune.rows is not None and tune.rows < len(train):
        with refusals(name, ValueError):
            chosen = train.some(tune.rows, seed=task.seed)
    fewest = int(np.bincount(chosen.y).min())
    if fewest < at_least:
        raise InvalidRecipe(
            f"member {name!r}: tune: expected at least {at_least} rows of each class for {tune.folds} folds, "
            f"got {fewest} of one, in {len(chosen)} rows"
        )
    return chosen


def _folds(tune: GridSearch | TrialSearch, seed: int) -> Any:
    from sklearn.model_selection import StratifiedKFold

    return StratifiedKFold(tune.folds, shuffle=True, random_state=seed)


def _result(rank: int, params: Mapping[str, Any], scores: Sequence[float] | NDArray[np.float64]) -> Record:
    return {
        "params": dict(params),
        "mean_score": float(np.mean(scores)),
        "std_score": float(np.std(scores)),
        "rank": rank,
        "fold_scores": list(map(float, scores)),
    }


def _chosen(recipe: Any, method: str, score: str, rows: Split, results: list[Record]) -> tuple[Any, Record]:
    best = results[0]
    record = {
        "method": method,
        "score": score,
        "folds": recipe.tune.folds,
        "rows": len(rows),
        "best": best["params"],
        "best_score": best["mean_score"],
        "results": results,
    }
    return recipe.model_copy(update={**best["params"], "tune": None}), {"tuning": record}
