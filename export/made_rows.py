"""Inputs and rows where there is no data: read off the models, and made up."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from export.datasets import Dataset, Split
from export.errors import Mismatch
from export.formats.source import Source, WantsArray, WantsColumns
from server.manifest import InputSpec
from server.rows import join_tensors

N_ROWS = 96
"""A third each of about 0, between 0 and 1, and between 0 and 255: what inputs of models usually are."""
WORDS = ("a", "b", "c")


def made_dataset(sources: Mapping[str, Source], classes: Sequence[str]) -> Dataset:
    """Made-up rows in `validation`, and nothing else: there is nothing to fit or to score on.

    Raises Mismatch if the models do not say what their inputs are.
    """
    inputs = _inputs(sources)
    rows = join_tensors({spec.name: _values(spec, index) for index, spec in enumerate(inputs)}, inputs)
    empty = Split(rows[:0], np.zeros(0, dtype=np.int64))
    made = Split(rows, np.zeros(len(rows), dtype=np.int64))
    return Dataset("none", list(classes), inputs, empty, made, empty, empty)


def _inputs(sources: Mapping[str, Source]) -> list[InputSpec]:
    shapes: list[tuple[int, ...]] = []
    columns: dict[str, InputSpec] = {}
    for name, source in sources.items():
        wants = source.wants
        if isinstance(wants, WantsArray):
            shapes.append(_known(name, wants))
        else:
            columns |= _of_columns(name, wants)
    if columns:
        return list(columns.values())
    shape = max(shapes, key=len)  # a picture rather than the flat row that it can become
    return [InputSpec(name="image" if len(shape) == 3 else "x", shape=list(shape))]


def _known(name: str, wants: WantsArray) -> tuple[int, ...]:
    if not wants.shape or None in wants.shape:
        raise Mismatch(f"member {name!r}: its input {list(wants.shape)} has no known size: it takes --data to say it")
    return tuple(size or 1 for size in wants.shape)


def _of_columns(name: str, wants: WantsColumns) -> dict[str, InputSpec]:
    if wants.elements is None:
        raise Mismatch(
            f"member {name!r}: it wants columns {', '.join(wants.names)}, and does not say which of them are text: it "
            "takes --data to say it"
        )
    kinds = ("BYTES" if element == TensorProto.STRING else "FP32" for element in wants.elements)
    return {
        column: InputSpec(name=column, shape=[1], datatype="BYTES" if kind == "BYTES" else "FP32")
        for column, kind in zip(wants.names, kinds, strict=True)
    }


def _values(spec: InputSpec, seed: int) -> NDArray[Any]:
    generator = np.random.default_rng(seed)
    shape = (N_ROWS // 3, *spec.shape)
    if spec.datatype == "BYTES":
        return np.array(WORDS, dtype=object)[generator.integers(len(WORDS), size=(N_ROWS, 1))]
    parts = [generator.normal(0, 1, shape), generator.uniform(0, 1, shape), generator.uniform(0, 255, shape).round()]
    return np.concatenate(parts).astype(np.float32)
