"""Rows of tables: an object a row in JSON, and the checks of a column's values, which CSV shares."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.codec.messages import listed, named, shown
from server.codec.numbers import Place, are_numbers, check_domain, first_misfit
from server.codec.tensors import decode_tensor
from server.errors import InvalidInput
from server.manifest import InputSpec
from server.rows import Rows, join_tensors

TEXT_LIMIT = 1024
"""Characters of a piece of text."""


def decode_objects(instances: Sequence[Any], inputs: Sequence[InputSpec], place: Place) -> Rows:
    """A table's rows `(n,)` from an object each, whose keys are the columns.

    A value that may be missing is null, or its key is absent. Raises InvalidInput, which names row and column.
    """
    names = [spec.name for spec in inputs]
    columns = set(names)
    for index, row in enumerate(instances):
        if not isinstance(row, dict):
            raise InvalidInput(f"{place(index)}: expected an object with the keys {listed(names)}; got {shown(row)}")
        if not row.keys() <= columns:
            stranger = next(key for key in row if key not in columns)
            raise InvalidInput(
                f"{place(index)}: expected no columns but {listed(names, stranger)}; got {named(stranger)}"
            )
    return join_tensors({spec.name: _column_of(instances, spec, place) for spec in inputs}, inputs)


def _column_of(instances: Sequence[dict[str, Any]], spec: InputSpec, place: Place) -> NDArray[Any]:
    absent = None if spec.missing else next((i for i, row in enumerate(instances) if spec.name not in row), None)
    if absent is not None:
        raise InvalidInput(f"{place(absent)}: expected a value for column {named(spec.name)}; got none")
    return column([row.get(spec.name) for row in instances], spec, place)


def column(values: Sequence[Any], spec: InputSpec, place: Place) -> NDArray[Any]:
    """A column's tensor: `(n, *shape)` float32, or `(n, 1)` of str; None stands for what is missing.

    Raises InvalidInput, which names row and column.
    """

    def cell(row: int) -> str:
        return f"{place(row)}: column {named(spec.name)}"

    if spec.datatype == "BYTES":
        return _texts(values, spec, cell)
    return _numbers(values, spec, cell) if spec.shape == [1] else _vectors(values, spec, cell)


def _numbers(values: Sequence[Any], spec: InputSpec, cell: Place) -> NDArray[np.float32]:
    if not are_numbers(values, missing=spec.missing):
        misfit = first_misfit(values, missing=spec.missing)
        raise InvalidInput(f"{cell(misfit)}: expected a number that float32 holds; got {shown(values[misfit])}")
    numbers = np.array(values, dtype=np.float32).reshape(-1, 1)
    check_domain(numbers, spec, cell)
    return numbers


def _vectors(values: Sequence[Any], spec: InputSpec, cell: Place) -> NDArray[np.float32]:
    """Of a column that holds more than one number a row."""
    present = [index for index, value in enumerate(values) if value is not None or not spec.missing]
    vectors = np.full((len(values), *spec.shape), np.nan, dtype=np.float32)
    if present:
        rows = [values[index] for index in present]
        vectors[present] = decode_tensor(rows, spec, lambda row: cell(present[row]))
    return vectors


def _texts(values: Sequence[Any], spec: InputSpec, cell: Place) -> NDArray[Any]:
    known = None if spec.categories is None or spec.unknown == "accept" else frozenset(spec.categories)
    texts = np.empty((len(values), 1), dtype=object)
    for index, value in enumerate(values):
        if spec.missing and (value is None or value == ""):
            texts[index, 0] = ""
        elif isinstance(value, str) and len(value) <= TEXT_LIMIT and (value in known if known else value != ""):
            texts[index, 0] = value
        else:
            raise InvalidInput(f"{cell(index)}: expected {_expected_text(value, spec)}; got {shown(value)}")
    return texts


def _expected_text(value: object, spec: InputSpec) -> str:
    if isinstance(value, str) and spec.categories is not None and 0 < len(value) <= TEXT_LIMIT:
        return f"one of {listed(spec.categories, value)}"
    return f"text of 1 to {TEXT_LIMIT} characters"
