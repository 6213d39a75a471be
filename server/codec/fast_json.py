"""The common JSON bodies, rows or a tensor of nothing but numbers, read the cheapest way.

orjson parses faster than jiter, but keeps the last of duplicate keys. Python's own bytes and arrays take a list of
numbers faster than numpy does, and neither text nor null among them. What is not plainly right is left to
those who call, who read it again and say what is wrong: nothing here makes a message.
"""

import math
from array import array
from collections.abc import Sequence
from itertools import chain
from typing import Any

import jiter
import numpy as np
import orjson
from numpy.typing import NDArray

from server.codec.tensors import depth_of, forms_of
from server.manifest import InputSpec

MOST_STRINGS = 600
"""Of a body that is read here: the options hold no more. Looking for each takes longer than parsing it does."""
LARGE = 1 << 21
"""Bytes of a body from which jiter is the faster of the two: orjson asks the system for ever more memory at once."""
SHORT = 8
"""Numbers of the innermost arrays under which they are joined before they are converted: a call for each costs more."""
DEEPEST = 4
"""How deep the fields beside the numbers are looked into: no option, and no parameter, lies deeper."""
LARGEST = float(np.finfo(np.float32).max)

Plain = tuple[NDArray[np.float32], dict[str, Any]]


def read_numbers(body: bytes, spec: InputSpec, *, max_rows: int) -> Plain | None:
    """The rows `(n, *spec.shape)` and the other fields, unchecked; None if anything at all is unusual.

    No field holds true, false or null, and none was there twice: but for what is nested deeper than an option is.
    """
    strings = _count_strings(body)
    fields = None if strings is None else _parse(body)
    if fields is None:
        return None
    instances = fields.pop("instances", None)
    if not isinstance(instances, list) or not 0 < len(instances) <= max_rows or _strings_in(fields) + 1 != strings:
        return None
    rows = _convert(instances, spec)
    return None if rows is None else (rows.reshape(len(instances), *spec.shape), fields)


def read_tensor(body: bytes) -> tuple[NDArray[Any], dict[str, Any]] | None:
    """The one tensor of an Open Inference Protocol request, and the request without its data, unchecked.

    The values have the tensor's shape, and are uint8 if all are integers from 0 to 255, else float32: what is beyond
    that is infinite. None if there are several tensors, or anything at all is unusual.
    """
    strings = _count_strings(body, only_after=b"data")
    fields = None if strings is None else _parse(body)
    inputs = None if fields is None else fields.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        return None
    data, shape = inputs[0].pop("data", None), inputs[0].get("shape")
    if not isinstance(data, list) or not data or _strings_in(fields) + 1 != strings:
        return None
    if not isinstance(shape, list) or not shape or not all(type(size) is int and size > 0 for size in shape):
        return None
    values = _read([data], shape if isinstance(data[0], list) else [math.prod(shape)])
    return None if values is None or fields is None else (values.reshape(shape), fields)


def _parse(body: bytes) -> dict[str, Any] | None:
    try:
        fields = (
            orjson.loads(body) if len(body) < LARGE else jiter.from_json(body, allow_inf_nan=False, cache_mode="keys")
        )
    except ValueError:
        return None
    return fields if isinstance(fields, dict) else None


def _count_strings(body: bytes, *, only_after: bytes | None = None) -> int | None:
    """How many strings a body of valid JSON holds; None if it is many, one has an escape, or there is a literal.

    Of literals only those count that stand between the string `only_after`, a key, and the next one. true, false and
    null each have a `u` or an `l`, which nothing else has outside strings. To look for single bytes costs next to
    nothing, where a look at the type of every number costs as much as parsing it.
    """
    if b"\\" in body:
        return None
    begin, last = 0, b""
    for count in range(MOST_STRINGS):
        opening = body.find(b'"', begin)
        end = opening if opening >= 0 else len(body)
        if only_after in (None, last) and (body.find(b"u", begin, end) >= 0 or body.find(b"l", begin, end) >= 0):
            return None
        if opening < 0:
            return count
        begin = body.find(b'"', opening + 1) + 1
        if not begin:
            return None
        last = body[opening + 1 : begin - 1]
    return None


def _strings_in(value: object, depth: int = DEEPEST) -> int:
    """Keys and values. Had a key been there twice, the body would hold more."""
    if isinstance(value, str):
        return 1
    if isinstance(value, dict | list) and not depth:
        return MOST_STRINGS  # more than there can be: it is unusual
    if isinstance(value, dict):
        return len(value) + sum(_strings_in(item, depth - 1) for item in value.values())
    return sum(_strings_in(item, depth - 1) for item in value) if isinstance(value, list) else 0


def _convert(instances: Sequence[Any], spec: InputSpec) -> NDArray[np.float32] | None:
    """All numbers, of rows that are all of one form; None if they are not, or if a number is beyond the input."""
    form = forms_of(spec.shape).get(depth_of(instances[0]))
    values = None if form is None else _read(instances, form)
    if values is None:
        return None
    low = -LARGEST if spec.low is None else max(spec.low, -LARGEST)
    high = LARGEST if spec.high is None else min(spec.high, LARGEST)
    numbers = values.astype(np.float32, copy=False)
    if values.dtype == np.uint8 and low <= 0 and high >= 255:
        return numbers
    return numbers if numbers.min() >= low and numbers.max() <= high else None


def _read(arrays: Sequence[Any], form: Sequence[int]) -> NDArray[Any] | None:
    """All numbers of arrays that are all of this form, as uint8 or float32; None if they are not."""
    try:
        leaves = _leaves(arrays, form)
        if leaves is None:
            return None
        pixels = _to_uint8(leaves)
        return _to_float32(leaves) if pixels is None else pixels
    except (TypeError, OverflowError):
        return None


def _leaves(arrays: Sequence[Any], form: Sequence[int]) -> Sequence[Any] | None:
    """The innermost arrays, if at every depth all are of the form's length.

    Raises TypeError for what has no length. Text and objects have one, but nothing makes numbers of them later.
    """
    for place, size in enumerate(form):
        if place:
            arrays = list(chain.from_iterable(arrays))
        if set(map(len, arrays)) != {size}:
            return None
    return arrays if form[-1] >= SHORT else [list(chain.from_iterable(arrays))]


def _to_uint8(leaves: Sequence[Any]) -> NDArray[np.uint8] | None:
    """One after the other; None if one is no integer from 0 to 255, as pixels are."""
    if type(leaves[0][0]) is not int:
        return None
    try:
        return np.frombuffer(b"".join(map(bytes, leaves)), np.uint8)
    except (TypeError, ValueError):
        return None


def _to_float32(leaves: Sequence[Any]) -> NDArray[np.float32]:
    """One after the other, each by way of float64; what is beyond float32 becomes infinite.

    Raises TypeError for what is neither an integer nor a float, nor true or false; OverflowError for an integer beyond
    float64.
    """
    numbers = array("f")
    for leaf in leaves:
        numbers.fromlist(leaf)
    return np.frombuffer(numbers, np.float32)
