"""`report.json`: how an ensemble was made, and how each member and each strategy does on rows that nothing has seen."""

import dataclasses
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from export.candidate import Candidate
from export.datasets import Dataset
from export.evaluate import METRICS, N_BINS, N_RESAMPLES, Evaluation, Interval
from export.fusing.fit import Fitted
from export.fusing.replay import expected_cost, stages
from export.fusing.selective import selective
from export.software import versions
from server.fusion import CASCADE, FLOOR, Fused
from server.manifest import Manifest, MemberSpec
from server.prediction import Prediction

REPORT_FILE = "report.json"
SOFTWARE = (
    "keras",
    "lightgbm",
    "numpy",
    "onnx",
    "onnxmltools",
    "onnxruntime",
    "scikit-learn",
    "skl2onnx",
    "tf2onnx",
    "xgboost-cpu",
    "xgboost",
)


def make_report(
    manifest: Manifest,
    candidates: Sequence[Candidate],
    fitted: Fitted,
    test: Evaluation,
    dataset: Dataset,
    baselines: Mapping[str, Any],
    *,
    cascade: Mapping[str, Any] | None,
    default: Fused,
    seed: int,
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """Everything that the report says, ready for JSON.

    `test` are the scores of all members and offered strategies, `baselines` what `export.fusing.baselines` compares
    with, `cascade` what `cascade_on_test` tells, `default` what the default strategy answers to the test rows.
    """
    keys = [f"member:{member.name}" for member in manifest.members]
    losses = {name: fitted.validation.scores(name)["log_loss"].value for name in fitted.validation.names}
    if cascade is not None:
        losses[CASCADE] = cascade["validation_log_loss"]
    return {
        "ensemble": manifest.name,
        "version": manifest.version,
        "description": manifest.description,
        "created": manifest.created,
        "default_strategy": manifest.default_strategy,
        "dataset": {
            "name": dataset.name,
            "seed": seed,
            "rows": {split: len(getattr(dataset, split).y) for split in ("train", "validation", "calibration", "test")},
        },
        "metrics": {
            "accuracy": "share of rows whose label is right",
            "log_loss": f"mean -log of the true class's probability, in nats, probabilities floored at {FLOOR:.0e}",
            "brier": "mean squared distance to the true distribution, 0 to 2",
            "ece": f"expected calibration error, {N_BINS} bins of equal width",
            "interval": f"95% percentile bootstrap, {N_RESAMPLES} resamples of the test rows, the same for all",
        },
        "members": {
            member.name: _member(member, candidate, test, key)
            for member, candidate, key in zip(manifest.members, candidates, keys, strict=True)
        },
        "strategies": {
            strategy: {
                "validation_log_loss": round(losses[strategy], 6),
                "test": rounded_scores(test, strategy),
                "over_best_member": _gains(test, strategy, keys),
            }
            for strategy in test.names
            if strategy not in keys
        },
        "baselines": baselines,
        "weights": fitted.choice,
        "stacking": fitted.stacking and fitted.stacking.to_json(),
        "cascade": cascade,
        "selective": _selective(default, dataset),
        "notes": [*notes, *fitted.notes, *_at_chance(manifest, test, dataset)],
        "software": {"python": platform.python_version(), **versions(SOFTWARE)},
    }


def cascade_on_test(on_test: Prediction, test: Evaluation, *, validation_log_loss: float) -> dict[str, Any]:
    """The cascade on the test rows: its stages, what it costs, and how it does beside all members, fused alike."""
    plan = on_test.plan
    spec = on_test.ensemble.manifest.cascade
    everyone = sum(member.cost_us or 0.0 for member in on_test.ensemble.manifest.members)
    return {
        "strategy": plan.rule,
        "measure": plan.measure,
        "tolerance": spec and spec.tolerance,
        "stages": [{**stage, "share": round(stage["share"], 6)} for stage in stages(on_test)],
        "cost_us": round(expected_cost(on_test), 2),
        "all_members_us": round(everyone, 2),
        "validation_log_loss": round(validation_log_loss, 6),
        "over_all_members": {
            metric: rounded(test.difference(CASCADE, plan.rule, metric)) for metric in ("accuracy", "log_loss")
        },
    }


def _selective(default: Fused, dataset: Dataset) -> list[dict[str, float]]:
    return [{name: round(value, 6) for name, value in point.items()} for point in selective(default, dataset.test.y)]


def _at_chance(manifest: Manifest, test: Evaluation, dataset: Dataset) -> list[str]:
    """Members that do no better than saying the commonest class every time: a sign that something does not fit."""
    commonest = np.bincount(dataset.test.y).max() / len(dataset.test)
    accuracies = {member.name: test.scores(f"member:{member.name}")["accuracy"].value for member in manifest.members}
    return [
        f"member {name!r} is right on {accuracy:.4f} of the test rows, no better than always saying the commonest "
        f"class ({commonest:.4f}): its inputs may want scaling (--scale), or its classes another order (--classes)"
        for name, accuracy in accuracies.items()
        if accuracy <= commonest
    ]


def to_json(contents: dict[str, Any]) -> bytes:
    return orjson.dumps(contents, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY)


def _member(member: MemberSpec, candidate: Candidate, test: Evaluation, key: str) -> dict[str, Any]:
    return {
        "framework": member.framework,
        "cost_us": member.cost_us,
        "bytes": candidate.model.ByteSize(),
        "temperature": member.temperature,
        "weights": member.weights,
        "parity": dataclasses.asdict(candidate.parity),
        "test": rounded_scores(test, key),
    }


def rounded_scores(evaluation: Evaluation, name: str) -> dict[str, dict[str, float]]:
    """An answer's figures, by metric, ready for JSON."""
    return {metric: rounded(interval) for metric, interval in evaluation.scores(name).items()}


def _gains(evaluation: Evaluation, strategy: str, members: list[str]) -> dict[str, Any]:
    """The strategy's figure less that of the member that is best at it on these very rows: the hardest to beat."""
    gains = {}
    for metric in METRICS:
        best = evaluation.best(members, metric)
        difference = evaluation.difference(strategy, best, metric)
        gains[metric] = {"member": best.removeprefix("member:"), **rounded(difference)}
    return gains


def rounded(interval: Interval) -> dict[str, float]:
    """`value`, `low` and `high` with six digits after the point."""
    return {name: round(value, 6) for name, value in dataclasses.asdict(interval).items()}
