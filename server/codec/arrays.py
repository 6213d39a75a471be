"""Rows and answers as bytes of arrays: raw float32 or uint8, and numpy's `.npy`."""

import io
import math
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.codec.numbers import Place, are_within, check_domain, check_finite
from server.codec.tensors import described, forms_of
from server.errors import InvalidInput, TooLarge
from server.manifest import InputSpec

NPY_MAGIC = b"\x93NUMPY"
HEADER_LIMIT = 4096
"""Bytes of the header of an `.npy` file; numpy writes 118."""
ELEMENTS: dict[str, np.dtype[Any]] = {"float32": np.dtype("<f4"), "uint8": np.dtype("u1")}

_DTYPE = re.compile(r"'[<>|]([fiu][1248])'")
_FIELD = re.compile(
    r"\s*'(?:descr'\s*:\s*(?P<descr>'[<>|=][a-zA-Z]{1,2}[0-9]*')|fortran_order'\s*:\s*(?P<fortran_order>True|False)"
    r"|shape'\s*:\s*\((?P<shape>(?: *[0-9]{1,19} *,)*(?: *[0-9]{1,19})?) *\))\s*(?:,|$)"
)


def decode_raw(body: bytes, spec: InputSpec, *, dtype: str, max_rows: int) -> NDArray[np.float32]:
    """`(n, *spec.shape)` from rows of `float32`, little-endian, or of `uint8`, one after the other.

    Raises InvalidInput for a part of a row and for numbers that the input does not take, TooLarge for too many rows.
    """
    size = math.prod(spec.shape)
    row_bytes = size * ELEMENTS[dtype].itemsize
    if not body or len(body) % row_bytes:
        raise InvalidInput(
            f"body: expected rows of {row_bytes} bytes, {size} numbers of {dtype} each; got {len(body)} bytes"
        )
    _check_count(len(body) // row_bytes, max_rows)
    return to_float32(np.frombuffer(body, ELEMENTS[dtype]).reshape(-1, size), spec)


def decode_npy(body: bytes, spec: InputSpec, *, max_rows: int) -> NDArray[np.float32]:
    """`(n, *spec.shape)` from an `.npy` file of numbers, in one of the forms of a JSON row, or of many of them.

    Raises InvalidInput for what is no such file, is cut short, or holds numbers that the input does not take, and
    TooLarge for too many rows. Nothing is allocated for what a header only claims.
    """
    dtype, fortran, shape, offset = _parse_header(body)
    if math.prod(shape) * dtype.itemsize != len(body) - offset:
        raise InvalidInput(
            f"npy: expected the bytes of {dtype.name} of shape {list(shape)}; got {len(body) - offset} bytes of data"
        )
    forms = forms_of(spec.shape)
    single = shape in forms.values()
    if not single and (len(shape) < 2 or shape[1:] not in forms.values() or not shape[0]):
        raise InvalidInput(f"npy: expected rows, each {described(forms)}; got an array of shape {list(shape)}")
    # Where a shape is both one row and several, it is both of the same numbers: it holds one.
    count = 1 if single else shape[0]
    _check_count(count, max_rows)
    values: NDArray[Any] = np.frombuffer(body, dtype, offset=offset).reshape(shape, order="F" if fortran else "C")
    return to_float32(values.reshape(count, -1), spec)


def to_float32(values: NDArray[Any], spec: InputSpec, place: Place = "row {}".format) -> NDArray[np.float32]:
    """`values (n, size)` of numbers as float32 of their own, `(n, *spec.shape)`: each becomes the nearest.

    Raises InvalidInput, which names the place, for numbers that the input does not take.
    """
    small = values.dtype == np.uint8
    if small or values.dtype == np.float32:
        rows = np.array(values, dtype=np.float32, order="C")
    else:
        with np.errstate(over="ignore", invalid="ignore"):
            # By way of float64, as the numbers of JSON come: large integers are to round alike.
            by_way = values if values.dtype.kind == "f" or values.dtype.itemsize < 4 else values.astype(np.float64)
            rows = np.array(by_way, dtype=np.float32, order="C")
    if not are_within(rows, spec, small=small):
        check_finite(rows, spec, place)
        check_domain(rows, spec, place)
    return rows.reshape(len(rows), *spec.shape)


def encode_raw(probabilities: NDArray[np.float32]) -> bytes:
    """`(n, n_classes)` as float32, little-endian, row by row."""
    return probabilities.astype("<f4", order="C").tobytes()


def encode_npy(probabilities: NDArray[np.float32]) -> bytes:
    """`(n, n_classes)` as an `.npy` file of float32."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, probabilities.astype("<f4", order="C"), allow_pickle=False)
    return buffer.getvalue()


def _check_count(count: int, max_rows: int) -> None:
    if count > max_rows:
        raise TooLarge(f"body: expected at most {max_rows} rows; got {count}")


def _parse_header(body: bytes) -> tuple[np.dtype[Any], bool, tuple[int, ...], int]:
    """Element, order, shape, and where the data begin. It is not evaluated, as numpy itself would do."""
    if not body.startswith(NPY_MAGIC) or len(body) < 12 or body[6] not in (1, 2):
        raise InvalidInput("npy: expected a file of format 1 or 2, as numpy.save writes it; got something else")
    begin = 10 if body[6] == 1 else 12
    length = int.from_bytes(body[8:begin], "little")
    if length > HEADER_LIMIT or begin + length > len(body):
        raise InvalidInput(f"npy: expected a header of at most {HEADER_LIMIT} bytes; got one of {length}")
    fields = _parse_fields(body[begin : begin + length].decode("latin-1").strip())
    if not (element := _DTYPE.fullmatch(fields["descr"])) or element[1] == "f1":
        raise InvalidInput(f"npy: expected floats or integers of at most 64 bits; got {fields['descr']}")
    shape = tuple(int(size) for size in fields["shape"].split(",") if size.strip())
    return np.dtype(fields["descr"][1:-1]), fields["fortran_order"] == "True", shape, begin + length


def _parse_fields(header: str) -> dict[str, str]:
    """`{'descr': '<f4', 'fortran_order': False, 'shape': (2, 784), }`."""
    fields: dict[str, str] = {}
    inside, place = header[1:-1].rstrip(), 0
    while place < len(inside) and (match := _FIELD.match(inside, place)):
        fields |= {name: value for name, value in match.groupdict().items() if value is not None}
        place = match.end()
    if header[:1] + header[-1:] != "{}" or place < len(inside) or len(fields) != 3:
        raise InvalidInput("npy: expected a header of descr, fortran_order and shape; got something else")
    return fields
