"""Fits a trained model to the data: its inputs to the rows, its columns to the classes. Refuses what does not fit."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto

from export.answer import Answer
from export.awkward import base_rows, completed
from export.convert import ELEMENTS, normalised
from export.datasets import Dataset
from export.errors import ConversionFailed, Mismatch, ParityError
from export.formats.source import Source, WantsArray, WantsColumns
from export.reading import Port, Reading
from export.trained import Splits, TrainedMember
from server.ensemble import are_distributions, on_one_line
from server.errors import first_line
from server.manifest import InputSpec
from server.rows import Rows

N_PROBES = 256
"""Rows on which a model must answer distributions over the classes."""


@dataclass(frozen=True, slots=True)
class Adaptation:
    """What nobody can read off a model: the scaling of numbers in front of it, and that it answers logits.

    `scale` and `shift` are scalars `()`, or have a value a channel `(n_channels,)`.
    """

    scale: NDArray[np.float32] | None = None
    shift: NDArray[np.float32] | None = None
    logits: bool = False


AS_IT_IS = Adaptation()


def member_of(source: Source, name: str, dataset: Dataset, adaptation: Adaptation = AS_IT_IS) -> TrainedMember:
    """The model as a member of an ensemble over this data. Raises Mismatch, which shows both sides."""
    reading = reading_of(source.wants, dataset.inputs, name, adaptation)
    answer = answer_of(source, dataset.classes, name, adaptation)
    predict = partial(_predict, source, name, reading)
    rows = base_rows(dataset)
    _check_answers(predict(completed(rows[:N_PROBES], dataset.inputs)), answer, name)
    logits, splits = source.logits, source.splits
    return TrainedMember(
        name=name,
        framework=source.framework,
        predict_proba=lambda x: answer.probabilities(predict(x)),
        to_onnx=partial(_to_onnx, source, name, reading, answer, dataset.inputs),
        logits=None if logits is None else lambda x: answer.scores(logits(reading.arrays(x))),
        splits=None if splits is None or reading.scaled else _of_ensemble(splits, reading, dataset),
        smooth=source.smooth,
    )


# ---- Inputs ---------------------------------------------------------------------------------------------------------


def reading_of(
    wants: WantsArray | WantsColumns, inputs: Sequence[InputSpec], name: str, adaptation: Adaptation = AS_IT_IS
) -> Reading:
    """Raises Mismatch."""
    if isinstance(wants, WantsColumns):
        ports = _columns(wants, inputs, name)
    elif len(inputs) == 1 and inputs[0].datatype == "FP32":
        ports = (_array(wants, inputs[0], name),)
    else:
        ports = (_side_by_side(wants, inputs, name),)
    for constant in (adaptation.scale, adaptation.shift):
        if constant is not None and constant.ndim and (len(inputs) > 1 or len(constant) != inputs[0].shape[-1]):
            raise Mismatch(
                f"member {name!r}: expected one factor, or one for each of the {inputs[0].shape[-1]} values of the "
                f"data's last axis; got {len(constant)}"
            )
    return Reading(ports, adaptation.scale, adaptation.shift)


def _array(wants: WantsArray, spec: InputSpec, name: str) -> Port:
    """A tensor of the data for an array of the model's: as it is, flat, with or without axes of 1, channels first."""
    have, want = tuple(spec.shape), wants.shape
    port = partial(Port, wants.name, (spec.name,), element=wants.element)
    if _fits(want, have):
        return port(have)
    if len(have) > 1 and _fits(want, (have[-1], *have[:-1])) and have[-1] > 1:
        return port((have[-1], *have[:-1]), channels_first=True)
    if None not in want:
        shape = tuple(size or 1 for size in want)
        flat = 1 in (len(shape), len(have)) and np.prod(shape) == np.prod(have)
        if flat or [size for size in shape if size > 1] == [size for size in have if size > 1]:
            return port(shape, reshaped=True)
    raise Mismatch(
        f"member {name!r}: the model wants rows of {_shape(want)}, the data has {_shape(have)} ({spec.name!r})"
    )


def _side_by_side(wants: WantsArray, inputs: Sequence[InputSpec], name: str) -> Port:
    """Columns of a table for an array of the model's: by the names it knows, else all of them in their order."""
    numbers = [spec.name for spec in inputs if spec.datatype == "FP32" and spec.shape == [1]]
    known = {name.replace(" ", "_"): name for name in numbers}  # as LightGBM spells them
    features = tuple(name if name in numbers else known.get(name, name) for name in wants.features or ())
    names = features or (tuple(numbers) if len(numbers) == len(inputs) else ())
    if len(wants.shape) == 1 and names and set(names) <= set(numbers) and wants.shape[0] in (len(names), None):
        return Port(wants.name, names, (len(names),), element=wants.element)
    wanted = f"columns {', '.join(wants.features)}" if wants.features else f"rows of {_shape(wants.shape)}, unnamed"
    raise Mismatch(f"member {name!r}: the model wants {wanted}, as numbers; {_listed(inputs, wants.features)}")


def _columns(wants: WantsColumns, inputs: Sequence[InputSpec], name: str) -> tuple[Port, ...]:
    have = {spec.name: ELEMENTS[spec.datatype] for spec in inputs if spec.shape == [1]}
    if set(wants.names) <= have.keys():
        elements = wants.elements or tuple(have[column] for column in wants.names)
        if all(
            (element == TensorProto.STRING) == (have[column] == TensorProto.STRING)
            for column, element in zip(wants.names, elements, strict=True)
        ):
            return tuple(
                Port(column, (column,), (1,), element) for column, element in zip(wants.names, elements, strict=True)
            )
    kinds = dict.fromkeys(wants.names, "")
    for column, element in zip(wants.names, wants.elements or (), strict=False):
        kinds[column] = " (text)" if element == TensorProto.STRING else " (numbers)"
    wanted = ", ".join(f"{column}{kind}" for column, kind in kinds.items())
    raise Mismatch(f"member {name!r}: the model wants columns {wanted}; {_listed(inputs, wants.names)}")


def _listed(inputs: Sequence[InputSpec], wanted: Sequence[str] | None) -> str:
    kinds = {"FP32": "numbers", "BYTES": "text"}
    listed = ", ".join(f"{spec.name} ({kinds[spec.datatype]}{_unless_column(spec)})" for spec in inputs)
    lacking = sorted(set(wanted or ()) - {spec.name for spec in inputs})
    return f"the data has {listed}" + (f"; it lacks {', '.join(lacking)}" if lacking else "")


def _unless_column(spec: InputSpec) -> str:
    return "" if spec.shape == [1] else f" {_shape(spec.shape)}"


def _fits(want: Sequence[int | None], have: Sequence[int]) -> bool:
    return len(want) == len(have) and all(size in (None, got) for size, got in zip(want, have, strict=True))


def _shape(shape: Sequence[int | None]) -> str:
    return "[" + ", ".join("?" if size is None else str(size) for size in shape) + "]"


# ---- Classes --------------------------------------------------------------------------------------------------------


def answer_of(source: Source, classes: Sequence[str], name: str, adaptation: Adaptation = AS_IT_IS) -> Answer:
    """The model's columns in the order of the classes: by the names that it knows, else as they stand.

    Raises Mismatch: a class that the data does not have, or one that the model does not know, is no small thing.
    """
    n_columns = max(2, source.n_outputs)
    in_order = Answer(source.n_outputs, tuple(range(n_columns)), adaptation.logits)
    own = source.classes
    if own is None and n_columns == len(classes):
        return in_order
    for same in (str, str.casefold):
        places = {same(column): place for place, column in enumerate(own or ())}
        if places and places.keys() == {same(known) for known in classes}:
            return replace(in_order, order=tuple(places[same(known)] for known in classes))
    if own == tuple(map(str, range(len(classes)))):  # numbers instead of names
        return in_order
    has = ", ".join(own) if own else f"{n_columns} without names"
    raise Mismatch(
        f"member {name!r}: the model's classes are {has}; the data's are {', '.join(classes)}; a member must know all "
        "of the data's classes and no others"
    )


def _check_answers(outputs: NDArray[Any], answer: Answer, name: str) -> None:
    """Raises Mismatch unless they are what the answer is made of."""
    values = np.asarray(outputs, dtype=np.float64)
    if values.reshape(len(values), -1).shape[1] != answer.n_outputs:
        raise Mismatch(f"member {name!r}: expected {answer.n_outputs} values a row, got {values.shape[1:]}")
    rows = answer.probabilities(values) if answer.n_outputs == 1 and not answer.logits else values
    distributions = are_distributions(rows.astype(np.float32)) and len(rows) > 0
    row = on_one_line(values[:1].ravel())
    if distributions and answer.logits and answer.n_outputs > 1:
        raise Mismatch(f"member {name!r}: said to answer logits, but answers distributions already, such as {row}")
    if not distributions and not answer.logits:
        raise Mismatch(
            f"member {name!r}: expected a distribution over the classes for each row, got {row}; if these are logits, "
            f"say --logits {name}"
        )


# ---- Both sides -----------------------------------------------------------------------------------------------------


def _predict(source: Source, name: str, reading: Reading, x: Rows) -> NDArray[Any]:
    """What the source answers, `(n, n_outputs)`."""
    try:
        return source.predict(reading.arrays(x))
    except Exception as exc:  # a stranger's model raises whatever it likes
        reason = first_line(exc)
        raise ParityError(f"member {name!r}: the model itself does not answer rows of the data: {reason}") from exc


def _to_onnx(source: Source, name: str, reading: Reading, answer: Answer, inputs: Sequence[InputSpec]) -> ModelProto:
    try:
        graph = source.to_onnx(reading.ports)
        return normalised(graph, reading, answer, inputs, output=source.output)
    except ConversionFailed as exc:
        raise ConversionFailed(f"member {name!r}: {exc.message}") from exc


def _of_ensemble(splits: Any, reading: Reading, dataset: Dataset) -> Splits:
    """The model's splits, its features named as the ensemble's: places in a flat row, or columns of a table."""
    (port,), rows = reading.ports, base_rows(dataset)
    found: Splits = splits(reading.arrays(rows)[0].reshape(len(rows), -1))
    if rows.dtype.names is None:
        shape = dataset.inputs[0].shape
        places = np.arange(np.prod(shape), dtype=np.int64).reshape(1, *shape)
        own = (np.moveaxis(places, -1, 1) if port.channels_first else places).ravel()
    else:
        names = [spec.name for spec in dataset.inputs]
        own = np.array([names.index(column) for column in port.inputs], dtype=np.int64)
    return Splits(own[found.features], found.thresholds, found.rows)
