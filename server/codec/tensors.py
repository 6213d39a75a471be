"""Rows of numbers in JSON, for an input that is a tensor: flat, or nested as its shape."""

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.codec.messages import shown
from server.codec.numbers import Place, are_numbers, check_domain, first_misfit
from server.errors import InvalidInput
from server.manifest import InputSpec

Forms = Mapping[int, tuple[int, ...]]
"""The shapes that a row may be written in, by their number of dimensions."""


def forms_of(shape: Sequence[int]) -> Forms:
    """Flat; nested as the shape; and that without its last dimensions of 1."""
    return _forms_of(tuple(shape))


@lru_cache(maxsize=256)
def _forms_of(shape: tuple[int, ...]) -> Forms:
    forms: dict[int, tuple[int, ...]] = {1: (math.prod(shape),)}
    nested = shape
    while len(nested) > 1:
        forms[len(nested)] = nested
        if nested[-1] != 1:
            break
        nested = nested[:-1]
    return dict(sorted(forms.items()))


def described(forms: Forms) -> str:
    """`784 numbers, or [28, 28], or [28, 28, 1]`."""
    [[flat], *nested] = forms.values()
    return ", or ".join([f"{flat} numbers", *(str(list(form)) for form in nested)])


def decode_tensor(instances: Sequence[Any], spec: InputSpec, place: Place) -> NDArray[np.float32]:
    """`(n, *spec.shape)` from a row each.

    Raises InvalidInput for what is no number, is beyond float32, is outside the input's domain, or nested otherwise.
    """
    forms = forms_of(spec.shape)
    rows = np.stack([_convert_one(row, forms, place(i), spec.missing) for i, row in enumerate(instances)])
    check_domain(rows, spec, place)
    return rows.reshape(len(instances), *spec.shape)


def _convert_one(row: object, forms: Forms, where: str, missing: bool) -> NDArray[np.float32]:
    """One row, `(size,)`. Raises InvalidInput, naming the place."""
    form = forms.get(depth_of(row))
    if form is None or not isinstance(row, list) or len(row) != form[0]:
        raise InvalidInput(f"{where}: expected {described(forms)}; got {_described_row(row)}")
    _check_numbers(row, form, where, missing)
    return np.array(row, dtype=np.float32).reshape(-1)


def depth_of(row: object) -> int:
    depth = 0
    while isinstance(row, list):
        depth += 1
        row = row[0] if row else None
    return depth


def _check_numbers(values: object, form: tuple[int, ...], where: str, missing: bool) -> None:
    if not isinstance(values, list) or len(values) != form[0]:
        expected = f"{form[0]} numbers" if len(form) == 1 else str(list(form))
        raise InvalidInput(f"{where}: expected {expected}; got {_described_row(values)}")
    if len(form) > 1:
        for index, value in enumerate(values):
            _check_numbers(value, form[1:], f"{where}[{index}]", missing)
    elif not are_numbers(values, missing=missing):
        misfit = first_misfit(values, missing=missing)
        raise InvalidInput(f"{where}[{misfit}]: expected a number that float32 holds; got {shown(values[misfit])}")


def _described_row(row: object) -> str:
    if not isinstance(row, list):
        return shown(row)
    return str(len(row)) if depth_of(row) == 1 else f"{len(row)} arrays, nested {depth_of(row)} deep"
