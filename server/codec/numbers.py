"""What counts as a number on the wire, and what float32 can hold of it."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.errors import InvalidInput
from server.manifest import InputSpec

FLOAT32_LIMIT = 2.0**128 - 2.0**103
"""The least magnitude that rounds to infinity in float32."""

LARGEST = float(np.finfo(np.float32).max)

NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
"""A number as JSON writes it; the one way to write it as text too."""

Place = Callable[[int], str]
"""What a message calls the row of this index: `instances[3]`, `line 5`."""


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def are_numbers(values: Sequence[Any], *, missing: bool = False) -> bool:
    """Whether all are numbers that float32 holds, or None where values may be missing; NaN is no number."""
    kinds = set(map(type, values))
    if missing and type(None) in kinds:
        values = [value for value in values if value is not None]
        kinds.discard(type(None))
    if not values:
        return True
    return kinds <= {float, int} and min(values) > -FLOAT32_LIMIT and max(values) < FLOAT32_LIMIT


def first_misfit(values: Sequence[Any], *, missing: bool = False) -> int:
    """The index of what keeps `are_numbers` from being true."""
    fits = ((value is None and missing) or (is_number(value) and abs(value) < FLOAT32_LIMIT) for value in values)
    return next(index for index, fit in enumerate(fits) if not fit)


def are_within(rows: NDArray[np.float32], spec: InputSpec, *, small: bool = False) -> bool:
    """Whether all are numbers that the input takes, and none is missing; `small`: they are integers from 0 to 255."""
    low, high = spec.low, spec.high
    if small and (low is None or low <= 0) and (high is None or high >= 255):
        return True
    least, most = np.minimum.reduce(rows, axis=None), np.maximum.reduce(rows, axis=None)  # NaN where one of them is
    return bool(
        least >= (-LARGEST if low is None or low < -LARGEST else low)
        and most <= (LARGEST if high is None or high > LARGEST else high)
    )


def check_finite(rows: NDArray[np.float32], spec: InputSpec, place: Place) -> None:
    """Raise InvalidInput at the first of `rows (n, size)` that holds an infinity, or NaN where none may be missing."""
    finite = np.isfinite(rows)
    if finite.all():
        return
    bad = np.argwhere(np.isinf(rows) if spec.missing else ~finite)
    if len(bad):
        row, index = bad[0]
        raise InvalidInput(f"{place(row)}: expected numbers that float32 holds; number {index} is {rows[row, index]:g}")


def check_domain(rows: NDArray[np.float32], spec: InputSpec, place: Place) -> None:
    """Raise InvalidInput at the first of `rows (n, size)` with a number outside what the input declares."""
    low = -np.inf if spec.low is None else spec.low
    high = np.inf if spec.high is None else spec.high
    if rows.min() >= low and rows.max() <= high:
        return  # never so where one of them is NaN
    bad = np.argwhere((rows < low) | (rows > high))
    if len(bad):
        row, index = bad[0]
        several = rows.shape[1] > 1
        expected, came = ("numbers", f"number {index} is") if several else ("a number", "got")
        raise InvalidInput(f"{place(row)}: expected {expected} from {low:g} to {high:g}; {came} {rows[row, index]:g}")
