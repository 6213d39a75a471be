"""What a model answers, as tensors: which there are for each task, and how they are made of a prediction.

The first dimension of each is the batch.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.manifest import Manifest, Task
from server.oip.tensors import Datatype, Tensor
from server.prediction import Prediction
from server.uncertainty import Uncertainty

UNCERTAINTY = "uncertainty"
"""The output for which a prediction has to be made with its uncertainty."""
MEASURES = tuple(field.name for field in fields(Uncertainty))
"""What the columns of `uncertainty` stand for, of a classification; of a regression it is the spread, a target each."""
VARIABLE = -1
"""A dimension that is not known before the answer."""


@dataclass(frozen=True, slots=True)
class Output:
    datatype: Datatype
    shape: Callable[[Manifest], tuple[int, ...]]
    """With VARIABLE for the rows, and for the members that take part."""
    make: Callable[[Prediction], NDArray[Any]]

    def tensor(self, name: str, prediction: Prediction) -> Tensor:
        return Tensor(name, self.datatype, self.make(prediction))


def classify(tensor: Tensor, names: Sequence[str], count: int) -> Tensor:
    """The `count` largest of each row `(n, n_outputs)`, as Triton writes them: `0.910000:9:Ankle boot`."""
    top = np.argsort(-tensor.values, axis=1, kind="stable")[:, :count]
    texts = [
        [f"{row[place]:f}:{place}:{names[place]}" for place in places]
        for row, places in zip(tensor.values, top.tolist(), strict=True)
    ]
    return Tensor(tensor.name, "BYTES", np.array(texts, dtype=object))


def _labels(prediction: Prediction) -> NDArray[Any]:
    """Empty where the label is left open."""
    labels = np.array(prediction.ensemble.manifest.classes, dtype=object)[prediction.fused.labels]
    if (abstains := prediction.abstains) is not None:
        labels[abstains] = ""
    return labels


def _member_answers(prediction: Prediction) -> NDArray[np.float32]:
    return prediction.member_probabilities.transpose(1, 0, 2)


def _uncertainty(prediction: Prediction) -> NDArray[np.float32]:
    measured = prediction.uncertainty
    assert measured is not None
    if isinstance(measured, Uncertainty):
        return np.stack([getattr(measured, name) for name in MEASURES], axis=1)
    return measured.spread


def _degraded(prediction: Prediction) -> NDArray[np.bool_]:
    return np.full(len(prediction.fused.probabilities), bool(prediction.missing))


_ANSWER = Output("FP32", lambda manifest: (VARIABLE, len(manifest.outputs)), lambda made: made.fused.probabilities)
_OWN = Output("FP32", _ANSWER.shape, lambda made: made.member_probabilities[0])
_LABEL = Output("BYTES", lambda _: (VARIABLE,), _labels)
_MEMBERS = Output("FP32", lambda manifest: (VARIABLE, VARIABLE, len(manifest.outputs)), _member_answers)
_MEASURED = Output("FP32", lambda _: (VARIABLE, len(MEASURES)), _uncertainty)
_SPREAD = Output("FP32", lambda manifest: (VARIABLE, len(manifest.outputs)), _uncertainty)
_DEGRADED = Output("BOOL", lambda _: (VARIABLE,), _degraded)

ENSEMBLE: Mapping[Task, Mapping[str, Output]] = {
    "classification": {
        "probabilities": _ANSWER,
        "label": _LABEL,
        "member_probabilities": _MEMBERS,
        UNCERTAINTY: _MEASURED,
        "degraded": _DEGRADED,
    },
    "regression": {"values": _ANSWER, "member_values": _MEMBERS, UNCERTAINTY: _SPREAD, "degraded": _DEGRADED},
}
"""By name, what an ensemble answers, its answer first. Members stand in the order of the manifest; NaN stands for those
that a cascade did not ask about a row."""

MEMBER: Mapping[Task, Mapping[str, Output]] = {
    "classification": {"probabilities": _OWN, "label": _LABEL},
    "regression": {"values": _OWN},
}
"""By name, what a member of an ensemble answers as a model of its own."""
