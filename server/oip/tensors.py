"""Tensors of the Open Inference Protocol, from raw bytes and typed lists, and back.

Whatever a client claims of a tensor's shape is compared with what came, in Python's integers, before it is allocated.
"""

import math
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from server.codec.messages import named, shown
from server.codec.numbers import are_numbers, first_misfit
from server.errors import InvalidInput, TooLarge

Datatype = Literal[
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64", "BYTES"
]
DATATYPES: tuple[Datatype, ...] = get_args(Datatype)

ELEMENTS: dict[Datatype, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    **{cast(Datatype, f"UINT{bits}"): np.dtype(f"<u{bits // 8}") for bits in (8, 16, 32, 64)},
    **{cast(Datatype, f"INT{bits}"): np.dtype(f"<i{bits // 8}") for bits in (8, 16, 32, 64)},
    **{cast(Datatype, f"FP{bits}"): np.dtype(f"<f{bits // 8}") for bits in (16, 32, 64)},
    "BYTES": np.dtype(object),
}
"""By datatype: the element of an array; of BYTES bytes, or str."""

MAX_DIMENSIONS = 16
"""Of a shape: more than any input has, and fewer than numpy refuses."""
_LENGTH = struct.Struct("<I")


@dataclass(slots=True)  # not frozen: that takes three times as long to make
class Tensor:
    """A named tensor, whose values have its shape.

    Their element is that of the datatype, or a narrower one that holds the same numbers. Of BYTES they are bytes as
    they came, or str.
    """

    name: str
    datatype: Datatype
    values: NDArray[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape


def check_datatype(name: str, value: object) -> Datatype:
    """Raise InvalidInput unless it is one of DATATYPES."""
    if value not in DATATYPES:
        raise InvalidInput(f"input {named(name)}: datatype: expected one of {', '.join(DATATYPES)}; got {shown(value)}")
    return value


def check_shape(name: str, shape: object) -> tuple[int, ...]:
    """Raise InvalidInput unless it is an array of integers that are not negative."""
    if not isinstance(shape, Sequence) or isinstance(shape, str) or not 0 < len(shape) <= MAX_DIMENSIONS:
        raise InvalidInput(
            f"input {named(name)}: shape: expected an array of 1 to {MAX_DIMENSIONS} integers; got {shown(shape)}"
        )
    for size in shape:
        if type(size) is not int or not 0 <= size < 1 << 63:
            raise InvalidInput(
                f"input {named(name)}: shape: expected integers that are not negative; got {shown(size)}"
            )
    return tuple(shape)


def check_rows(tensors: Iterable[Tensor], most: int) -> None:
    """Raise TooLarge if one of them has more rows."""
    for tensor in tensors:
        if tensor.shape and tensor.shape[0] > most:
            raise TooLarge(f"input {named(tensor.name)}: expected at most {most} rows; got {tensor.shape[0]}")


# ---- Raw bytes ------------------------------------------------------------------------------------------------------


def from_raw(name: str, datatype: Datatype, shape: tuple[int, ...], data: bytes | memoryview) -> Tensor:
    """From little-endian bytes, row by row; of BYTES each element is preceded by its length in 4 bytes.

    The values are a view of the data, but for BYTES. Raises InvalidInput unless there are exactly as many bytes as the
    shape says.
    """
    if datatype == "BYTES":
        return Tensor(name, datatype, _as_objects(_split_elements(name, data, math.prod(shape)), shape))
    element = ELEMENTS[datatype]
    expected = math.prod(shape) * element.itemsize
    if len(data) != expected:
        raise InvalidInput(
            f"input {named(name)}: expected {expected} bytes of {datatype} of shape {list(shape)}; got {len(data)}"
        )
    values: NDArray[Any] = np.frombuffer(data, np.uint8 if datatype == "BOOL" else element)
    if datatype == "BOOL" and values.size and values.max() > 1:
        raise InvalidInput(f"input {named(name)}: expected bytes 0 and 1 for BOOL; got {values.max()}")
    return Tensor(name, datatype, values.view(element).reshape(shape))


def to_raw(tensor: Tensor) -> bytes:
    """As `from_raw` reads it; str in UTF-8."""
    if tensor.datatype != "BYTES":
        return tensor.values.astype(ELEMENTS[tensor.datatype], order="C", copy=False).tobytes()
    elements = [item.encode() if isinstance(item, str) else item for item in tensor.values.ravel().tolist()]
    return b"".join(chain.from_iterable((_LENGTH.pack(len(element)), element) for element in elements))


def _split_elements(name: str, data: bytes | memoryview, count: int) -> list[bytes]:
    elements: list[bytes] = []
    place, view = 0, memoryview(data)
    while place < len(view):
        if len(elements) == count:
            raise InvalidInput(f"input {named(name)}: expected {count} elements of BYTES; got more")
        end = place + _LENGTH.size
        if end <= len(view):
            place, end = end, end + _LENGTH.unpack_from(view, place)[0]
        if end > len(view):
            raise InvalidInput(f"input {named(name)}: expected whole elements of BYTES; element {len(elements)} is cut")
        elements.append(bytes(view[place:end]))
        place = end
    if len(elements) < count:
        raise InvalidInput(f"input {named(name)}: expected {count} elements of BYTES; got {len(elements)}")
    return elements


# ---- Typed lists ----------------------------------------------------------------------------------------------------


def from_list(name: str, datatype: Datatype, shape: tuple[int, ...], data: object) -> Tensor:
    """From a list, flat or nested as the shape, row by row: as JSON has them, and messages of gRPC.

    Floats may be None, which becomes NaN. Raises InvalidInput for another count, and for what the datatype does not
    hold.
    """
    values = _flatten(name, shape, data)
    if datatype == "BYTES":
        _check_types(name, datatype, values, {str, bytes}, "strings")
        return Tensor(name, datatype, _as_objects(values, shape))
    element = ELEMENTS[datatype]
    if datatype == "BOOL":
        _check_types(name, datatype, values, {bool}, "true and false")
    elif element.kind == "f":
        _check_floats(name, datatype, values)
    else:
        _check_integers(name, datatype, values)
    with np.errstate(over="ignore"):
        # By way of float64, as all numbers of JSON come; what is beyond the datatype becomes infinite.
        array = np.array(values, np.float64 if element.kind == "f" else element).astype(element, copy=False)
    return Tensor(name, datatype, array.reshape(shape))


def to_list(tensor: Tensor) -> list[Any]:
    """Flat, row by row: bool, int, float, or str; bytes that are no UTF-8 with replacement characters. NaN is None."""
    values: list[Any] = tensor.values.ravel().tolist()
    if tensor.datatype == "BYTES":
        return [item.decode(errors="replace") if isinstance(item, bytes) else item for item in values]
    if ELEMENTS[tensor.datatype].kind == "f":
        return [None if value != value else value for value in values]
    return values


def _flatten(name: str, shape: tuple[int, ...], data: object) -> Sequence[Any]:
    if not isinstance(data, Sequence) or isinstance(data, str | bytes):
        raise InvalidInput(f"input {named(name)}: data: expected an array; got {shown(data)}")
    sizes = shape if data and isinstance(data[0], list) else (math.prod(shape),)
    _check_count(name, shape, data, sizes[0])
    for size in sizes[1:]:
        _check_types(name, f"shape {list(shape)}", data, {list}, "arrays")
        for part in data:
            _check_count(name, shape, part, size)
        data = list(chain.from_iterable(data))
    return data


def _check_count(name: str, shape: tuple[int, ...], values: Sequence[Any], count: int) -> None:
    if len(values) != count:
        raise InvalidInput(
            f"input {named(name)}: data: expected {math.prod(shape)} values, flat or nested as {list(shape)}; "
            f"got {len(values)} where {count} were due"
        )


def _check_types(name: str, what: str, values: Sequence[Any], kinds: set[type], expected: str) -> None:
    if not set(map(type, values)) <= kinds:
        place = next(i for i, value in enumerate(values) if type(value) not in kinds)
        raise InvalidInput(
            f"input {named(name)}: data[{place}]: expected {expected} for {what}; got {shown(values[place])}"
        )


def _check_floats(name: str, datatype: Datatype, values: Sequence[Any]) -> None:
    if not are_numbers(values, missing=True):
        place = first_misfit(values, missing=True)
        raise InvalidInput(
            f"input {named(name)}: data[{place}]: expected a number for {datatype}, that float32 holds; "
            f"got {shown(values[place])}"
        )


def _check_integers(name: str, datatype: Datatype, values: Sequence[Any]) -> None:
    _check_types(name, datatype, values, {int}, "integers")
    limits = np.iinfo(ELEMENTS[datatype])
    if values and not (limits.min <= min(values) and max(values) <= limits.max):
        place = next(i for i, value in enumerate(values) if not limits.min <= value <= limits.max)
        raise InvalidInput(
            f"input {named(name)}: data[{place}]: expected {limits.min} to {limits.max} for {datatype}; "
            f"got {shown(values[place])}"
        )


def _as_objects(values: Sequence[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array.reshape(shape)
