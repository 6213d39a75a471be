"""Rows of somebody's own data as the inputs of an ensemble that is there already, or one line that says why not.

The server refuses the same rows one request at a time; here all are looked at before any member runs.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.errors import Mismatch
from server.manifest import InputSpec
from server.rows import Rows, is_table, join_tensors

SHOWN = 20
"""Names of columns in a message."""
KINDS = {"FP32": "numbers", "BYTES": "text"}


def fit_inputs(
    have: Sequence[InputSpec], x: Rows, wanted: Sequence[InputSpec], *, data: str, where: str
) -> tuple[Rows, list[str]]:
    """The rows `x` of the inputs `have` as rows of those that are `wanted`, and what there is to say about it.

    An ensemble of one array takes an array of another name, and of a shape that differs in dimensions of 1 or is flat,
    and columns of numbers in their order. Columns that a table's ensemble does not read are left out. `data` and
    `where` name the two. Raises Mismatch: another shape, a column that is not there, or holds numbers in place of text,
    a value outside the input's domain, or one that is missing and may not be.
    """
    if not is_table(wanted):
        return _array(have, x, wanted[0], data, where), []
    if x.dtype.names is None and not (len(have) == 1 and have[0].name == wanted[0].name and len(wanted) == 1):
        raise Mismatch(
            f"{data}: expected columns, {_listed(wanted)}, as {where} reads; got one array {_shape(have[0])}"
        )
    by_name = {spec.name: spec for spec in have}
    tensors = {}
    for spec in wanted:
        tensors[spec.name] = _column(by_name, x, spec, data, where)
        _check(tensors[spec.name], spec, f"{data}: column {spec.name!r}", where)
    unread = [spec.name for spec in have if spec.name not in tensors]
    notes = [f"{where} does not read {', '.join(unread)}: left out"] if unread else []
    return join_tensors(tensors, wanted), notes


def _array(have: Sequence[InputSpec], x: Rows, wanted: InputSpec, data: str, where: str) -> NDArray[np.float32]:
    if text := [spec.name for spec in have if spec.datatype == "BYTES"]:
        raise Mismatch(f"{data}: column {text[0]!r}: expected numbers, as {where} reads; got text")
    if x.dtype.names is not None:
        size = math.prod(wanted.shape)
        if len(have) != size:
            raise Mismatch(f"{data}: expected {size} columns of numbers, as {where} reads; got {len(have)}")
        x = np.column_stack([x[spec.name] for spec in have])
    shape = x.shape[1:]
    if list(shape) != wanted.shape and not _same_but_for_ones(shape, wanted.shape):
        raise Mismatch(
            f"{data}: expected rows of shape {wanted.shape}, input {wanted.name!r} of {where}; got {list(shape)}"
        )
    rows = np.ascontiguousarray(x.reshape(len(x), *wanted.shape), dtype=np.float32)
    _check(rows, wanted, data, where)
    return rows


def _same_but_for_ones(shape: Sequence[int], wanted: Sequence[int]) -> bool:
    """Also flat, as the server takes it."""
    flat = len(shape) == 1 and shape[0] == math.prod(wanted)
    return flat or [size for size in shape if size != 1] == [size for size in wanted if size != 1]


def _column(by_name: dict[str, InputSpec], x: Rows, spec: InputSpec, data: str, where: str) -> NDArray[Any]:
    own = by_name.get(spec.name)
    if own is None:
        raise Mismatch(
            f"{data}: expected a column {spec.name!r}, as {where} reads; got {_listed(list(by_name.values()))}"
        )
    if (own.datatype, own.shape) != (spec.datatype, spec.shape):
        raise Mismatch(
            f"{data}: column {spec.name!r}: expected {KINDS[spec.datatype]} of shape {spec.shape}, as {where} reads; "
            f"got {KINDS[own.datatype]} of shape {own.shape}"
        )
    return np.ascontiguousarray(x if x.dtype.names is None else x[spec.name])


def _check(values: NDArray[Any], spec: InputSpec, name: str, where: str) -> None:
    """Raises Mismatch over the first row, of `values (n, *shape)`, that the input does not take."""
    if spec.datatype == "BYTES":
        missing = values == ""
        known = spec.categories if spec.unknown == "refuse" else None
        outside = np.zeros(values.shape, dtype=bool) if known is None else ~np.isin(values, np.array(known, object))
        expected = f"one of {', '.join(known[:SHOWN])}{' …' if len(known) > SHOWN else ''}" if known else "text"
    else:
        missing = np.isnan(values)
        low, high = (-np.inf if spec.low is None else spec.low), (np.inf if spec.high is None else spec.high)
        outside = (values < low) | (values > high)
        expected = f"numbers from {_number(low)} to {_number(high)}"
    if missing.any() and not spec.missing:
        raise Mismatch(f"{name}: row {np.argwhere(missing)[0][0]}: expected a value, as {where} takes; got none")
    if (outside := outside & ~missing).any():
        place = tuple(np.argwhere(outside)[0])
        got = repr(values[place]) if spec.datatype == "BYTES" else _number(values[place])
        raise Mismatch(f"{name}: row {place[0]}: expected {expected}, as {where} takes; got {got}")


def _number(value: float) -> str:
    return f"{value:g}".replace("inf", "infinity")


def _listed(inputs: Sequence[InputSpec]) -> str:
    names = [spec.name for spec in inputs]
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def _shape(spec: InputSpec) -> str:
    return str(spec.shape)
