"""The common JSON bodies, rows or a tensor of nothing but numbers, read the cheapest way.

orjson parses faster than jiter, but keeps the last of duplicate keys. Python's own bytes and arrays take a list of
numbers faster than numpy does, and neither text nor null among them. What is not plainly right is left to
those who call, who read it again and say what is wrong: nothing here makes a message.
"""

import math
import re
from array import array
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import jiter
import numpy as np
import orjson
from numpy.typing import NDArray

from server.codec.numbers import are_within
from server.codec.tensors import depth_of, forms_of
from server.manifest import InputSpec

MOST_STRINGS = 600
"""Of a body that is read here: the options hold no more. Looking for each takes longer than parsing it does."""
LARGE = 1 << 21
"""Bytes of a body from which jiter is the faster of the two: orjson asks the system for ever more memory at once."""
SHORT = 8
"""Numbers of the innermost arrays under which they are joined before they are converted: a call for each costs more."""

Plain = tuple[NDArray[np.float32], dict[str, Any]]


def read_numbers(body: bytes, spec: InputSpec, *, max_rows: int) -> Plain | None:
    """The rows `(n, *spec.shape)` and the other fields, unchecked; None if anything at all is unusual.

    No field holds true, false or null, and none was there twice: but for what is nested deeper than an option is.
    """
    strings = _count_strings(body)
    fields = None if strings is None else _parse(body)
    if not isinstance(fields, dict):
        return None
    instances = fields.pop("instances", None)
    if not isinstance(instances, list) or not 0 < len(instances) <= max_rows or _strings_in(fields) + 1 != strings:
        return None
    rows = _convert(instances, spec)
    return None if rows is None else (rows.reshape(len(instances), *spec.shape), fields)


def cut_numbers(body: bytes, key: bytes) -> tuple[bytes, bytes] | None:
    """A body of JSON with `[]` in place of an array of nothing but numbers, and that array; None if there is none.

    The array is the value of the first such key. The body is valid if both parts are, and the empty array is where it
    belongs: whether it is, those see who read the rest. No string of the body has an escape.
    """
    match = re.search(rb'"%b"[ \t\r\n]*:[ \t\r\n]*\[' % key, body)
    if match is None or b"\\" in body:
        return None
    begin = match.end() - 1
    quote = body.find(b'"', begin)
    end = quote if quote >= 0 else len(body)
    brace = body.find(b"}", begin, end)
    end = body.rfind(b"]", begin, brace if brace >= 0 else end) + 1
    if not end or body.find(b"u", begin, end) >= 0 or body.find(b"l", begin, end) >= 0:
        return None
    return body[:begin] + b"[]" + body[end:], body[begin:end]


def read_array(text: bytes, shape: Sequence[int]) -> NDArray[Any] | None:
    """An array of nothing but numbers, flat or nested as the shape, which the result has; None if it is another one.

    The values are uint8 if all are integers from 0 to 255, else float32: what is beyond that is infinite.
    """
    data = _parse(text)
    if not isinstance(data, list) or not data:
        return None
    values = _read([data], shape if isinstance(data[0], list) else [math.prod(shape)])
    return None if values is None else values.reshape(shape)


def _parse(body: bytes) -> Any:
    """None if it is no JSON."""
    try:
        return (
            orjson.loads(body) if len(body) < LARGE else jiter.from_json(body, allow_inf_nan=False, cache_mode="keys")
        )
    except ValueError:
        return None


def _count_strings(body: bytes) -> int | None:
    """How many strings a body of valid JSON holds; None if it is many, one has an escape, or there is a literal.

    true, false and null each have a `u` or an `l`, which nothing else has outside strings. To look for single bytes
    costs next to nothing, where a look at the type of every number costs as much as parsing it.
    """
    if b"\\" in body:
        return None
    begin = 0
    for count in range(MOST_STRINGS):
        opening = body.find(b'"', begin)
        end = opening if opening >= 0 else len(body)
        if body.find(b"u", begin, end) >= 0 or body.find(b"l", begin, end) >= 0:
            return None
        if opening < 0:
            return count
        begin = body.find(b'"', opening + 1) + 1
        if not begin:
            return None
    return None


def _strings_in(fields: Mapping[str, Any]) -> int:
    """Keys and values, as deep as options go. Had a key been there twice, the body would hold more."""
    count = len(fields)
    for value in fields.values():
        if isinstance(value, str):
            count += 1
        elif isinstance(value, list):
            count += sum(isinstance(item, str) for item in value)
        elif isinstance(value, dict):
            count += len(value) + sum(isinstance(item, str) for item in value.values())
    return count


def _convert(instances: Sequence[Any], spec: InputSpec) -> NDArray[np.float32] | None:
    """All numbers, of rows that are all of one form; None if they are not, or if a number is beyond the input."""
    form = forms_of(spec.shape).get(depth_of(instances[0]))
    values = None if form is None else _read(instances, form)
    if values is None:
        return None
    numbers = values.astype(np.float32, copy=False)
    return numbers if are_within(numbers, spec, small=values.dtype == np.uint8) else None


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
