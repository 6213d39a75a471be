"""A batch of rows as one numpy array, and as the tensors that graphs read.

An ensemble of one input of numbers has rows `(n, *shape)` float32. An ensemble of several inputs, or of text, is a
table: its rows are a structured array `(n,)` with a field an input, float32 or object (of str). So every batch can be
measured, sliced and joined alike.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.manifest import InputSpec

Rows = NDArray[Any]

ELEMENTS = {"FP32": np.dtype(np.float32), "BYTES": np.dtype(object)}
"""By datatype: the element of an array, as ONNX Runtime takes it."""


def is_table(inputs: Sequence[InputSpec]) -> bool:
    return len(inputs) > 1 or inputs[0].datatype == "BYTES"


def row_dtype(inputs: Sequence[InputSpec]) -> np.dtype[Any]:
    """The structured dtype of a table's rows."""
    return np.dtype([(spec.name, ELEMENTS[spec.datatype], tuple(spec.shape)) for spec in inputs])


def join_tensors(tensors: Mapping[str, NDArray[Any]], inputs: Sequence[InputSpec]) -> Rows:
    """Rows from an array `(n, *shape)` an input."""
    if not is_table(inputs):
        return tensors[inputs[0].name]
    rows = np.empty(len(tensors[inputs[0].name]), dtype=row_dtype(inputs))
    for spec in inputs:
        rows[spec.name] = tensors[spec.name]
    return rows


def split_rows(rows: Rows, names: Iterable[str]) -> dict[str, NDArray[Any]]:
    """The tensors `(n, *shape)` of the inputs of these names."""
    if rows.dtype.names is None:
        return dict.fromkeys(names, rows)
    return {name: np.ascontiguousarray(rows[name]) for name in names}
