"""What an ensemble would have served, told from what its members have answered: by the code that serves.

`answers (n_members, n_samples, n_outputs) float32` of all members, in the manifest's order.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.ensemble import Ensemble
from server.fusion import CASCADE
from server.plan import Options, make_plan
from server.predicting import Ask, drive
from server.prediction import Prediction

Answers = NDArray[np.float32]
SWEEP = (*np.round(np.linspace(0, 0.9, 19), 2).tolist(), 0.92, 0.94, 0.96, 0.97, 0.98, 0.99, 0.995, 0.998, 0.999, 1.0)
"""Thresholds of a cascade that are compared."""


def replay(ensemble: Ensemble, answers: Answers, options: Options) -> Prediction:
    """The prediction that a request with these options would have got. Raises InvalidInput."""

    def answer(ask: Ask) -> Answers:
        own = answers[list(ask.members)]
        return own if ask.rows is None else own[:, ask.rows]

    return drive(ensemble, make_plan(ensemble, options), answers.shape[1], answer)


def expected_cost(prediction: Prediction) -> float:
    """Microseconds a row, of the members that it was asked of: a row of a cascade costs the stages that it came to."""
    spent = np.cumsum([_cost(prediction.ensemble, stage.members) for stage in prediction.plan.stages])
    return float(spent[-1] if prediction.stages is None else spent[prediction.stages - 1].mean())


def stages(prediction: Prediction) -> list[dict[str, Any]]:
    """Of a cascade: members, threshold (None in the last), µs a row and share of the rows that each stage answers."""
    ensemble, plan = prediction.ensemble, prediction.plan
    if prediction.stages is None:
        return []
    shares = np.bincount(prediction.stages - 1, minlength=len(plan.stages)) / len(prediction.stages)
    return [
        {
            "members": [ensemble.names[member] for member in stage.members],
            "threshold": stage.threshold if np.isfinite(stage.threshold) else None,
            "cost_us": _cost(ensemble, stage.members),
            "share": float(share),
        }
        for stage, share in zip(plan.stages, shares, strict=True)
    ]


def sweep(ensemble: Ensemble, answers: Answers, y: NDArray[np.int64]) -> list[dict[str, float]]:
    """Cost and accuracy of its cascade with one threshold for all stages, for each of `SWEEP`."""
    found = []
    for threshold in SWEEP:
        prediction = replay(ensemble, answers, Options(strategy=CASCADE, cascade_threshold=threshold))
        accuracy = float((prediction.fused.labels == y).mean())
        found.append({"threshold": threshold, "cost_us": expected_cost(prediction), "accuracy": accuracy})
    return found


def _cost(ensemble: Ensemble, members: tuple[int, ...]) -> float:
    return sum(ensemble.manifest.members[member].cost_us or 0.0 for member in members)
