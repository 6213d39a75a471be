"""Predictions to wire bytes."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import lru_cache
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from server.codec.options import Detail
from server.prediction import Prediction

Row = dict[str, Any]


def encode_json(prediction: Prediction, *, id: str | None, detail: Sequence[Detail] = ()) -> bytes:  # noqa: A002
    """The JSON answer: what was asked, who answered with which weight, and an entry a row."""
    manifest = prediction.ensemble.manifest
    answer = {
        "model": manifest.name,
        "version": manifest.version,
        "id": id,
        "strategy": prediction.strategy,
        "members": weights_of(prediction),
        "degraded": bool(prediction.missing),
        "missing": list(prediction.missing),
        **({"reasons": prediction.missing} if prediction.missing else {}),
        **({"classes": manifest.classes} if manifest.classes else {"targets": manifest.targets}),
        "predictions": describe_rows(prediction, detail=detail),
    }
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)


def weights_of(prediction: Prediction) -> Mapping[str, np.float32]:
    """By name: the effective weight of each member that took part; they sum to 1."""
    return _weights_of(tuple(_names(prediction)), prediction.weights.tobytes())


def write_weights(prediction: Prediction) -> str:
    """`cnn:0.7,xgb:0.3`: as `weights_of`, and as a request writes them."""
    return _write_weights(tuple(_names(prediction)), prediction.weights.tobytes())


# Remembered: most requests ask for the same, and to make or write a number takes a microsecond.


@lru_cache(maxsize=256)
def _weights_of(names: Sequence[str], weights: bytes) -> Mapping[str, np.float32]:
    return dict(zip(names, np.frombuffer(weights, np.float32), strict=True))


@lru_cache(maxsize=256)
def _write_weights(names: Sequence[str], weights: bytes) -> str:
    return ",".join(f"{name}:{weight!s}" for name, weight in _weights_of(names, weights).items())


def describe_rows(prediction: Prediction, *, detail: Sequence[Detail] = ()) -> list[Row]:
    """An entry a row, with what of `detail` is asked for; numbers are numpy's.

    Of a classification: label, confidence, probabilities; of a regression: values.
    """
    if prediction.ensemble.manifest.task == "regression":
        rows: list[Row] = [{"values": row} for row in prediction.fused.probabilities]
    else:
        rows = _labelled(prediction)
    if "members" in detail:
        _add_by_member(rows, "members", prediction, prediction.member_probabilities, _member_entry)
    if prediction.uncertainty is not None and "uncertainty" in detail:
        names = [field.name for field in fields(prediction.uncertainty)]
        figures = (getattr(prediction.uncertainty, name) for name in names)
        for row, *values in zip(rows, *figures, strict=True):
            row["uncertainty"] = dict(zip(names, values, strict=True))
    if prediction.contributions is not None and "contributions" in detail:
        _add_by_member(rows, "contributions", prediction, prediction.contributions, lambda _, moved: moved)
    return rows


def _labelled(prediction: Prediction) -> list[Row]:
    classes, fused = prediction.ensemble.manifest.classes, prediction.fused
    rows: list[Row] = [
        {"label": classes[label], "confidence": row[label], "probabilities": row}
        for label, row in zip(fused.labels.tolist(), fused.probabilities, strict=True)
    ]
    if (abstains := prediction.abstains) is not None:
        for index in np.flatnonzero(abstains).tolist():
            rows[index]["label"] = None
    if prediction.stages is not None:
        for row, stage in zip(rows, prediction.stages.tolist(), strict=True):
            row["stage"] = stage
    return rows


def _add_by_member(
    rows: Sequence[Row], key: str, prediction: Prediction, values: NDArray[np.float32], entry: Any
) -> None:
    """`values (n_members, n_samples, n_outputs)`: an entry for each member that has answered the row."""
    names = _names(prediction)
    of_rows = np.ascontiguousarray(values.transpose(1, 0, 2))
    answered = (~np.isnan(of_rows[:, :, 0])).tolist()
    for row, members, there in zip(rows, of_rows, answered, strict=True):
        row[key] = {
            name: entry(prediction, member)
            for name, member, is_there in zip(names, members, there, strict=True)
            if is_there
        }


def _member_entry(prediction: Prediction, answer: NDArray[np.float32]) -> Mapping[str, Any]:
    if prediction.ensemble.manifest.task == "regression":
        return {"values": answer}
    return {"label": prediction.ensemble.manifest.classes[int(answer.argmax())], "probabilities": answer}


def _names(prediction: Prediction) -> list[str]:
    return [prediction.ensemble.names[index] for index in prediction.members]
