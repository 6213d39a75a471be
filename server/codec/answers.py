"""Predictions to wire bytes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson

from server.codec.options import Detail
from server.prediction import Prediction


def encode_json(prediction: Prediction, *, id: str | None, detail: Sequence[Detail] = ()) -> bytes:  # noqa: A002
    """The JSON answer: what was asked, who answered with which weight, and an entry a row."""
    manifest = prediction.ensemble.manifest
    answer = {
        "model": manifest.name,
        "version": manifest.version,
        "id": id,
        "strategy": prediction.plan.strategy,
        "members": weights_of(prediction),
        "degraded": False,
        "missing": [],
        "classes": manifest.classes,
        "predictions": describe_rows(prediction, detail=detail),
    }
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)


def weights_of(prediction: Prediction) -> dict[str, np.float32]:
    """By name: the effective weight of each member that took part; they sum to 1."""
    names = (prediction.ensemble.names[index] for index in prediction.members)
    return dict(zip(names, prediction.weights, strict=True))


def describe_rows(prediction: Prediction, *, detail: Sequence[Detail] = ()) -> list[dict[str, Any]]:
    """An entry a row: label, confidence, probabilities and what of `detail` is asked for; numbers are numpy's."""
    classes, fused = prediction.ensemble.manifest.classes, prediction.fused
    rows: list[dict[str, Any]] = [
        {"label": classes[label], "confidence": row[label], "probabilities": row}
        for label, row in zip(fused.labels.tolist(), fused.probabilities, strict=True)
    ]
    if "members" in detail:
        _add_members(rows, prediction)
    if prediction.uncertainty is not None and "uncertainty" in detail:
        doubt = prediction.uncertainty
        for row, *figures in zip(rows, doubt.entropy, doubt.mutual_information, doubt.disagreement, strict=True):
            row["uncertainty"] = dict(zip(("entropy", "mutual_information", "disagreement"), figures, strict=True))
    return rows


def _add_members(rows: Sequence[dict[str, Any]], prediction: Prediction) -> None:
    classes = prediction.ensemble.manifest.classes
    names = [prediction.ensemble.names[index] for index in prediction.members]
    answers = prediction.member_probabilities.transpose(1, 0, 2)
    for row, answer in zip(rows, np.ascontiguousarray(answers), strict=True):
        row["members"] = {
            name: {"label": classes[label], "probabilities": probabilities}
            for name, label, probabilities in zip(names, answer.argmax(axis=1).tolist(), answer, strict=True)
        }
