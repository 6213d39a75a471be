"""Scores a published ensemble on rows that it has not seen: everything there is to say about it, ready for JSON."""

import dataclasses
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from export.errors import Mismatch
from export.evaluate import N_BINS, N_RESAMPLES, Evaluation, evaluate, evaluate_values, mcnemar
from export.evaluating.asked import Asked, Subject, answer, asked_of, default_of, measure, record, subset_strategy
from export.evaluating.compared import compare
from export.own.rows import FittedRows, OwnRows, fit_rows
from export.page.analysis import confusion, reliability
from export.report import rounded_scores
from export.software import versions
from server.ensemble import Ensemble
from server.fusion import CASCADE, FLOOR, Fused
from server.prediction import Prediction

SOFTWARE = ("numpy", "onnxruntime", "scipy")
EXPLAINED = {
    "accuracy": "share of rows whose label is right",
    "log_loss": f"mean -log of the true class's probability, in nats, probabilities floored at {FLOOR:.0e}",
    "brier": "mean squared distance to the true distribution, 0 to 2",
    "ece": f"expected calibration error, {N_BINS} bins of equal width",
    "rmse": "root of the mean squared error, in the target's unit; of several targets, the mean",
    "mae": "mean absolute error, in the target's unit; of several targets, the mean",
    "r2": "share of the target's variance that is explained; of several targets, the mean",
}
ALWAYS_EXPLAINED = {
    "interval": f"95% percentile bootstrap, {N_RESAMPLES} resamples of the rows, the same for all",
    "cost_us": "processor time of a prediction on one thread, microseconds a row, median of batches of 64 rows",
}
THRESHOLDS = [*(round(0.02 * k, 2) for k in range(50)), 0.99, 0.995, 0.999]
"""Confidences under which a request may have the ensemble abstain."""
OTHER = "other"
"""The key of the answer of the ensemble that is compared with."""


def evaluate_ensemble(
    ensemble: Ensemble,
    own: OwnRows,
    *,
    other: Ensemble | None = None,
    subsets: Sequence[Sequence[str]] = (),
    thresholds: Sequence[float] = (),
    seed: int = 0,
    progress: Progress,
) -> dict[str, Any]:
    """The figures of every strategy, member, subset and threshold, and of `other` beside them.

    `subsets` and `thresholds` as `export.asked.asked_of` takes them; `seed` is of the resamples. Raises Mismatch where
    rows, or the other ensemble, do not fit; MemberFailed of the server.
    """
    asked = asked_of(ensemble, subsets, thresholds)
    fitted = fit_rows(own, ensemble.manifest, where=ensemble.where)
    columns = None if other is None else _columns(ensemble, other)
    fitted_other = None if other is None else fit_rows(own, other.manifest, where=other.where)
    default = default_of(ensemble)
    task = progress.add_task("members", total=len(fitted.x) * (1 if other is None else 2))
    subject = record(ensemble, fitted.x, lambda n: progress.advance(task, n))
    predictions = {one.key: answer(subject, one.plan) for one in asked}
    answers = {key: prediction.fused for key, prediction in predictions.items()}
    plans = {one.key: (subject, one.plan) for one in asked}
    if other is not None and fitted_other is not None and columns is not None:
        beside = record(other, fitted_other.x, lambda n: progress.advance(task, n))
        plan = default_of(other).plan
        answers[OTHER] = _reordered(answer(beside, plan).fused, columns)
        plans[OTHER] = (beside, plan)
    scored = _score(answers, fitted.y, ensemble, seed)
    task = progress.add_task("costs", total=None)
    times = measure(plans, seed=seed, advance=lambda: progress.advance(task))
    progress.update(task, total=len(next(iter(times.values()))) + 1)
    about = _about(ensemble, own, fitted, scored, seed)
    about["answers"] = [_answer(one, ensemble, predictions[one.key], scored, times[one.key]) for one in asked]
    if ensemble.manifest.task == "classification":
        about |= _of_classes(
            subject, default, fitted.y, {one.name: answers[one.key] for one in asked if one.kind == "strategy"}
        )
    if other is not None:
        costs = (times[default.key], times[OTHER])
        about["against"] = _against(other, default, scored, answers, fitted.y, costs, seed)
    return about


def _score(answers: dict[str, Fused], y: NDArray[Any], ensemble: Ensemble, seed: int) -> Evaluation:
    if ensemble.manifest.task == "regression":
        return evaluate_values(answers, y, seed=seed)
    return evaluate(answers, y, seed=seed)


def _about(ensemble: Ensemble, own: OwnRows, fitted: FittedRows, scored: Evaluation, seed: int) -> dict[str, Any]:
    manifest = ensemble.manifest
    return {
        "ensemble": manifest.name,
        "version": manifest.version,
        "folder": ensemble.where,
        "description": manifest.description,
        "task": manifest.task,
        "members": ensemble.names,
        "default_strategy": manifest.default_strategy,
        "subset_strategy": subset_strategy(ensemble),
        "data": {"path": str(own.path), "rows": len(fitted.x), "outputs": manifest.outputs},
        "seed": seed,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "metrics": {name: EXPLAINED[name] for name in scored.metrics} | ALWAYS_EXPLAINED,
        "notes": fitted.notes,
        "machine": f"{platform.system()} {platform.machine()}",
        "software": {"python": platform.python_version(), **versions(SOFTWARE)},
    }


def _answer(
    one: Asked, ensemble: Ensemble, prediction: Prediction, scored: Evaluation, times: NDArray[np.float64]
) -> dict[str, Any]:
    entry = {
        "kind": one.kind,
        "name": one.name,
        "strategy": one.plan.strategy,
        "members": [ensemble.names[index] for index in one.plan.members],
        "cost_us": round(float(np.median(times)), 4),
        "scores": rounded_scores(scored, one.key),
    }
    if one.plan.strategy == CASCADE and prediction.stages is not None:
        counts = np.bincount(prediction.stages, minlength=len(one.plan.stages) + 1)[1:]
        entry["answered_by_stage"] = [round(float(share), 6) for share in counts / len(prediction.stages)]
    return entry if one.threshold is None else {**entry, "threshold": one.threshold}


def _of_classes(subject: Subject, default: Asked, y: NDArray[np.int64], strategies: dict[str, Fused]) -> dict[str, Any]:
    return {
        "selective": _selective(answer(subject, default.plan), y),
        "reliability": {name: reliability(fused, y) for name, fused in strategies.items()},
        "confusion": {
            default.name: confusion(strategies[default.name].labels, y, len(subject.ensemble.manifest.classes))
        },
    }


def _selective(prediction: Prediction, y: NDArray[np.int64]) -> list[dict[str, float]]:
    """The share of the rows that is answered, and how many of these rightly, as fewer and fewer are: by
    `abstain_below`, where it changes anything, until none is left."""
    right = prediction.fused.labels == y
    found: list[dict[str, float]] = []
    for threshold in THRESHOLDS:
        plan = dataclasses.replace(prediction.plan, abstain_below=threshold)
        abstains = dataclasses.replace(prediction, plan=plan).abstains
        answered = np.ones(len(y), dtype=bool) if abstains is None else ~abstains
        share = round(float(answered.mean()), 6)
        if share and (not found or share < found[-1]["answered"]):
            found.append(
                {"abstain_below": threshold, "answered": share, "accuracy": round(float(right[answered].mean()), 6)}
            )
    return found


# ---- Against another ------------------------------------------------------------------------------------------------


def _columns(ensemble: Ensemble, other: Ensemble) -> list[int]:
    """Where the other has each of the ensemble's classes, or targets. Raises Mismatch if it has others."""
    first, second = ensemble.manifest, other.manifest
    if first.task != second.task or set(first.outputs) != set(second.outputs):
        raise Mismatch(
            f"--against {other.where}: expected a {first.task} with the classes or targets of {ensemble.where}, "
            f"{_few(first.outputs)}; got a {second.task} with {_few(second.outputs)}"
        )
    return [second.outputs.index(name) for name in first.outputs]


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + (" …" if len(names) > 10 else "")


def _reordered(fused: Fused, columns: list[int]) -> Fused:
    """With the columns of the ensemble that it is compared with."""
    labels = np.argsort(columns)[fused.labels] if len(columns) > 1 else fused.labels
    return Fused(fused.probabilities[:, columns], labels.astype(np.intp))


def _against(
    other: Ensemble,
    default: Asked,
    scored: Evaluation,
    answers: dict[str, Fused],
    y: NDArray[Any],
    costs: tuple[NDArray[np.float64], NDArray[np.float64]],
    seed: int,
) -> dict[str, Any]:
    manifest = other.manifest
    test = None
    if manifest.task == "classification":
        test = mcnemar(answers[default.key].labels == y, answers[OTHER].labels == y)
    found = compare(scored, default.key, OTHER, costs, test, seed=seed)
    about: dict[str, Any] = {
        "ensemble": manifest.name,
        "version": manifest.version,
        "folder": other.where,
        "strategy": manifest.default_strategy,
        "members": other.names,
        "cost_us": round(float(np.median(costs[1])), 4),
        "scores": rounded_scores(scored, OTHER),
        "differences": {metric: difference.to_json() for metric, difference in found.items()},
    }
    return about if test is None else {**about, "mcnemar": dataclasses.asdict(test)}
