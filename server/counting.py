"""What the metrics count of predictions and of members' answers."""

import numpy as np

from server import telemetry
from server.ensemble import Ensemble
from server.predicting import Answered
from server.prediction import Prediction


def count_answered(ensemble: Ensemble, answered: Answered, requests: int = 1) -> Answered:
    """What became of the members that so many requests have asked; returned as it is."""
    telemetry.count_members(
        ensemble.labels,
        ensemble.names,
        answered.members,
        answered.missing,
        rows=answered.probabilities.shape[1],
        requests=requests,
    )
    return answered


def count_prediction(prediction: Prediction, requests: int = 1) -> None:
    """One that answers so many requests."""
    manifest = prediction.ensemble.manifest
    stages, abstains = prediction.stages, prediction.abstains
    telemetry.count_prediction(
        ensemble=manifest.name,
        version=manifest.version,
        strategy=prediction.strategy,
        requests=requests,
        rows=len(prediction.fused.labels),
        degraded=bool(prediction.missing),
        abstained=0 if abstains is None else int(abstains.sum()),
        by_stage=[] if stages is None else np.bincount(stages)[1:].tolist(),
        disagreements=_disagreements(prediction) if manifest.task == "classification" else {},
    )


def _disagreements(prediction: Prediction) -> dict[str, int]:
    """By member, on how many of the rows that it answered its best class is not the answer's label."""
    differs = prediction.member_probabilities.argmax(axis=2) != prediction.fused.labels
    if prediction.stages is not None:
        differs &= ~np.isnan(prediction.member_probabilities[:, :, 0])
    names = prediction.ensemble.names
    return {names[i]: n for i, n in zip(prediction.members, differs.sum(axis=1).tolist(), strict=True)}
