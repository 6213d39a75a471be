import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import ArrayLike, NDArray

from server.codec.arrays import HEADER_LIMIT, NPY_MAGIC, decode_npy, decode_raw, encode_npy, encode_raw
from server.errors import InvalidInput, TooLarge
from server.manifest import InputSpec
from tests.server.codec.specs import FOUR, GAPPY, IMAGE, refusal, refused

ROWS = np.array([[1, 2.5, -3, 1e-3], [0, -0.0, 7, 8]], dtype=np.float32)


def npy(array: ArrayLike) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def with_header(header: str, data: bytes = b"\0" * 16, version: bytes = b"\x01\0") -> bytes:
    return NPY_MAGIC + version + len(header).to_bytes(2 if version[0] == 1 else 4, "little") + header.encode() + data


def read(body: bytes, spec: InputSpec = FOUR, max_rows: int = 8) -> NDArray[np.float32]:
    return decode_npy(body, spec, max_rows=max_rows)


class TestRaw:
    def test_float32(self) -> None:
        rows = decode_raw(ROWS.astype("<f4").tobytes(), FOUR, dtype="float32", max_rows=2)
        np.testing.assert_array_equal(rows, ROWS)
        assert rows.dtype == np.float32

    def test_uint8(self) -> None:
        pixels = np.arange(2 * 784, dtype=np.uint8)
        rows = decode_raw(pixels.tobytes(), IMAGE, dtype="uint8", max_rows=2)
        np.testing.assert_array_equal(rows, pixels.reshape(2, 28, 28, 1).astype(np.float32))

    @pytest.mark.parametrize("size", [0, 1, 15, 17, 40])
    def test_parts_of_rows(self, size: int) -> None:
        said = refusal(lambda: decode_raw(bytes(size), FOUR, dtype="float32", max_rows=8))
        assert said == f"body: expected rows of 16 bytes, 4 numbers of float32 each; got {size} bytes"

    def test_too_many(self) -> None:
        said = refusal(lambda: decode_raw(bytes(48), FOUR, dtype="float32", max_rows=2), TooLarge)
        assert said == "body: expected at most 2 rows; got 3"

    @pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
    def test_no_number(self, odd: float) -> None:
        body = np.array([0, 0, 0, 0, 0, odd, 0, 0], dtype="<f4").tobytes()
        said = refusal(lambda: decode_raw(body, FOUR, dtype="float32", max_rows=2))
        assert said == f"row 1: expected numbers that float32 holds; number 1 is {odd:g}"

    def test_nan_is_missing_where_values_may_be(self) -> None:
        body = np.array([0, np.nan, 0, 0], dtype="<f4").tobytes()
        np.testing.assert_array_equal(decode_raw(body, GAPPY, dtype="float32", max_rows=2), [[0, np.nan, 0, 0]])
        for odd, said in ((np.inf, "number 3 is inf"), (11, "from -10 to 10; number 3 is 11")):
            body = np.array([0, np.nan, 0, odd], dtype="<f4").tobytes()
            with pytest.raises(InvalidInput, match=said):
                decode_raw(body, GAPPY, dtype="float32", max_rows=2)


class TestNpy:
    @pytest.mark.parametrize("shape", [(784,), (28, 28), (28, 28, 1)])
    @pytest.mark.parametrize("dtype", ["uint8", "int16", ">u4", "int64", "float16", "<f4", ">f4", "<f8", ">f8"])
    @pytest.mark.parametrize("order", ["C", "F"])
    @pytest.mark.parametrize("count", [None, 1, 3])
    def test_forms(self, shape: tuple[int, ...], dtype: str, order: Any, count: int | None) -> None:
        pixels = (np.arange((count or 1) * 784) % 251).astype(dtype)
        array = np.array(pixels.reshape(shape if count is None else (count, *shape)), order=order)
        rows = read(npy(array), IMAGE)
        np.testing.assert_array_equal(rows, pixels.reshape(-1, 28, 28, 1).astype(np.float32))
        assert rows.dtype == np.float32
        assert rows.flags.c_contiguous
        assert rows.flags.aligned

    def test_format_2(self) -> None:
        buffer = io.BytesIO()
        np.lib.format.write_array(buffer, ROWS, version=(2, 0))
        np.testing.assert_array_equal(read(buffer.getvalue()), ROWS)

    def test_headers_of_other_writers(self) -> None:
        header = "{'shape':(1,4),'fortran_order':False,'descr':'|u1'}"
        assert read(with_header(header, b"\1\2\3\4")).tolist() == [[1, 2, 3, 4]]

    def test_integers_round_as_those_of_json(self) -> None:
        numbers = [2**53 + 1, 2**24 + 1, -(2**62) + 1, 3]
        expected = np.array([float(number) for number in numbers], dtype=np.float32)
        np.testing.assert_array_equal(read(npy(np.array(numbers)))[0], expected)

    @pytest.mark.parametrize(
        ("array", "said"),
        [
            (np.zeros(5), "npy: expected rows, each 4 numbers; got an array of shape [5]"),
            (np.zeros((0, 4)), "npy: expected rows, each 4 numbers; got an array of shape [0, 4]"),
            (np.zeros((2, 2)), "npy: expected rows, each 4 numbers; got an array of shape [2, 2]"),
            (np.float32(1), "npy: expected rows, each 4 numbers; got an array of shape []"),
            (np.zeros((1, 4, 1)), "npy: expected rows, each 4 numbers; got an array of shape [1, 4, 1]"),
            (np.array([True] * 4), "npy: expected floats or integers of at most 64 bits; got '|b1'"),
            (np.zeros(4, dtype=np.complex64), "npy: expected floats or integers of at most 64 bits; got '<c8'"),
            (np.array(["a"] * 4), "npy: expected floats or integers of at most 64 bits; got '<U1'"),
            (np.zeros(4, dtype=np.longdouble), "npy: expected floats or integers of at most 64 bits; got '<f16'"),
            (np.zeros(4, dtype=[("a", "<f4")]), "npy: expected a header of descr, fortran_order and shape; got some"),
            (np.array([0, 1e39, 0, 0]), "row 0: expected numbers that float32 holds; number 1 is inf"),
            (np.array([0, 0, np.nan, 0]), "row 0: expected numbers that float32 holds; number 2 is nan"),
        ],
    )
    def test_refused(self, array: NDArray[Any], said: str) -> None:
        assert refusal(lambda: read(npy(array))).startswith(said)

    def test_pickles_are_never_read(self) -> None:
        buffer = io.BytesIO()
        np.save(buffer, np.array([print] * 4, dtype=object), allow_pickle=True)
        assert refusal(lambda: read(buffer.getvalue())).startswith("npy: expected floats or integers")

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            NPY_MAGIC,
            NPY_MAGIC + b"\x01\0\xff\xff",
            with_header("{}"),
            with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 4), }", version=b"\x03\0"),
            with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 4), }", version=b"\x01\0")[:-1],
            with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 4), }", b"\0" * 17),
            with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 4), 'x': 1}"),
            with_header("{'descr': '<f4', 'fortran_order': 0, 'shape': (1, 4), }"),
            with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (1, -4), }"),
            with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (1, __import__('os')), }"),
            with_header("'descr': '<f4', 'fortran_order': False, 'shape': (1, 4), "),
            with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (" + "9" * 3000 + ",), }"),
            with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296, 4), }", b""),
            with_header("(" * HEADER_LIMIT),
            with_header(" " * (HEADER_LIMIT + 1)),
        ],
        ids=range(16),
    )
    def test_no_such_file(self, body: bytes) -> None:
        assert refusal(lambda: read(body)).startswith("npy: ")

    def test_too_many(self) -> None:
        assert refusal(lambda: read(npy(np.zeros((9, 4)))), TooLarge) == "body: expected at most 8 rows; got 9"

    def test_missing(self) -> None:
        np.testing.assert_array_equal(read(npy(np.array([0, np.nan, 1, 2])), GAPPY), [[0, np.nan, 1, 2]])


@settings(deadline=None)
@given(
    npst.arrays(
        np.float32, st.tuples(st.integers(1, 5), st.just(4)), elements={"allow_nan": False, "allow_infinity": False}
    )
)
def test_round_trips(array: NDArray[np.float32]) -> None:
    np.testing.assert_array_equal(decode_raw(encode_raw(array), FOUR, dtype="float32", max_rows=5), array)
    np.testing.assert_array_equal(decode_npy(encode_npy(array), FOUR, max_rows=5), array)
    np.testing.assert_array_equal(np.load(io.BytesIO(encode_npy(array))), array)


@settings(deadline=None)
@given(st.binary(max_size=200), st.sampled_from([b"", NPY_MAGIC, npy(ROWS)[:60], npy(ROWS)[:128]]))
def test_whatever_comes_is_read_or_refused(tail: bytes, head: bytes) -> None:
    refused(lambda: read(head + tail))


def test_slices_are_encoded_row_by_row() -> None:
    wide = np.arange(12, dtype=np.float32).reshape(2, 6)
    assert encode_raw(wide[:, ::2]) == wide[:, ::2].copy().tobytes()
    assert b"'fortran_order': False" in encode_npy(wide.T)
