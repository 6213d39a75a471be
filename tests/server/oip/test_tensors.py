"""Tensors from raw bytes and typed lists, and back."""

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from server.oip.tensors import (
    DATATYPES,
    ELEMENTS,
    MAX_DIMENSIONS,
    Datatype,
    Tensor,
    check_datatype,
    check_shape,
    from_list,
    from_raw,
    to_list,
    to_raw,
)
from tests.server.codec.specs import refusal, refused

NUMERIC = [datatype for datatype in DATATYPES if datatype != "BYTES"]
WHOLE = [datatype for datatype in NUMERIC if ELEMENTS[datatype].kind in "ui"]
shapes = st.lists(st.integers(0, 4), min_size=1, max_size=4).map(tuple)


@st.composite
def tensors(draw: st.DrawFn, datatypes: Sequence[Datatype]) -> Tensor:
    """Of any of these datatypes, of values that it holds; no float is NaN or infinite."""
    datatype = draw(st.sampled_from(datatypes))
    shape = draw(shapes)
    element = ELEMENTS[datatype]
    values: st.SearchStrategy[Any]
    if datatype == "BYTES":
        values = st.binary(max_size=5)
    elif datatype == "BOOL":
        values = st.booleans()
    elif element.kind == "f":
        width = min(element.itemsize * 8, 32)
        values = st.floats(allow_nan=False, allow_infinity=False, width=width)  # type: ignore[arg-type]
    else:
        limits = np.iinfo(element)
        values = st.integers(int(limits.min), int(limits.max))
    size = int(np.prod(shape))
    array = np.empty(size, dtype=element)
    array[:] = draw(st.lists(values, min_size=size, max_size=size))
    return Tensor("X", datatype, array.reshape(shape))


def same(one: Tensor, other: Tensor) -> None:
    assert (one.name, one.datatype, one.shape) == (other.name, other.datatype, other.shape)
    assert_array_equal(one.values, other.values)
    assert one.values.dtype == other.values.dtype


class TestRaw:
    @given(tensors(DATATYPES))
    def test_there_and_back(self, tensor: Tensor) -> None:
        same(from_raw("X", tensor.datatype, tensor.shape, to_raw(tensor)), tensor)

    @given(tensors(NUMERIC))
    def test_as_numpy_has_it(self, tensor: Tensor) -> None:
        assert to_raw(tensor) == tensor.values.astype(ELEMENTS[tensor.datatype]).tobytes()

    @given(tensors(DATATYPES), st.integers(1, 9))
    def test_more_bytes_than_are_due_are_refused(self, tensor: Tensor, more: int) -> None:
        said = refusal(lambda: from_raw("X", tensor.datatype, tensor.shape, to_raw(tensor) + bytes(more)))
        assert said.startswith("input 'X': expected ")

    @given(tensors(DATATYPES), st.integers(1, 9))
    def test_fewer_bytes_are_refused(self, tensor: Tensor, fewer: int) -> None:
        data = to_raw(tensor)
        if data:
            assert refused(lambda: from_raw("X", tensor.datatype, tensor.shape, data[:-fewer]))

    @given(st.sampled_from(DATATYPES), shapes, st.binary(max_size=40))
    def test_any_bytes_are_a_tensor_or_refused(self, datatype: Datatype, shape: tuple[int, ...], data: bytes) -> None:
        tensor = None

        def read() -> None:
            nonlocal tensor
            tensor = from_raw("X", datatype, shape, data)

        if refused(read) is None:
            assert tensor is not None
            assert tensor.shape == shape
            assert to_raw(tensor) == data

    @pytest.mark.parametrize("datatype", NUMERIC)
    def test_a_length_that_is_not_the_shapes(self, datatype: Datatype) -> None:
        size = ELEMENTS[datatype].itemsize
        assert refusal(lambda: from_raw("X", datatype, (2, 3), bytes(6 * size - 1))) == (
            f"input 'X': expected {6 * size} bytes of {datatype} of shape [2, 3]; got {6 * size - 1}"
        )

    def test_little_endian_row_by_row(self) -> None:
        tensor = from_raw("X", "UINT16", (2, 2), bytes([1, 0, 2, 0, 0, 1, 255, 255]))
        assert tensor.values.tolist() == [[1, 2], [256, 65535]]
        big = Tensor("X", "UINT16", np.asfortranarray(np.array([[1, 2], [256, 65535]], dtype=">u2")))
        assert to_raw(big) == bytes([1, 0, 2, 0, 0, 1, 255, 255])

    def test_numbers_are_a_view(self) -> None:
        data = np.arange(4, dtype="<f4").tobytes()
        assert not from_raw("X", "FP32", (4,), data).values.flags.owndata

    def test_nothing_is_allocated_for_what_is_only_claimed(self) -> None:
        shape = (1 << 62,) * MAX_DIMENSIONS
        assert "bytes of FP64" in refusal(lambda: from_raw("X", "FP64", shape, bytes(8)))
        assert refusal(lambda: from_raw("X", "BYTES", shape, bytes(4))).endswith("elements of BYTES; got 1")

    def test_a_bool_is_a_byte_of_0_or_1(self) -> None:
        assert from_raw("X", "BOOL", (3,), b"\0\1\0").values.tolist() == [False, True, False]
        assert refusal(lambda: from_raw("X", "BOOL", (3,), b"\0\2\0")) == (
            "input 'X': expected bytes 0 and 1 for BOOL; got 2"
        )

    @pytest.mark.parametrize(
        ("data", "said"),
        [
            (b"\1\0\0\0a", "expected 2 elements of BYTES; got 1"),
            (b"\1\0\0\0a\2\0\0\0b", "expected whole elements of BYTES; element 1 is cut"),
            (b"\1\0\0\0a\0\0", "expected whole elements of BYTES; element 1 is cut"),
            (b"\xff\xff\xff\xffa", "expected whole elements of BYTES; element 0 is cut"),
            (bytes(12), "expected 2 elements of BYTES; got more"),
        ],
    )
    def test_elements_of_bytes_that_are_not_right(self, data: bytes, said: str) -> None:
        assert refusal(lambda: from_raw("X", "BYTES", (2,), data)) == f"input 'X': {said}"

    def test_text_goes_out_in_utf_8(self) -> None:
        tensor = Tensor("X", "BYTES", np.array(["é", b"\xff", ""], dtype=object))
        assert to_raw(tensor) == b"".join(struct.pack("<I", len(b)) + b for b in ("é".encode(), b"\xff", b""))


class TestLists:
    @given(tensors(DATATYPES), st.booleans())
    def test_there_and_back(self, tensor: Tensor, nested: bool) -> None:
        if tensor.datatype == "BYTES":
            tensor = Tensor("X", "BYTES", np.frompyfunc(lambda item: item.hex(), 1, 1)(tensor.values).astype(object))
        data = tensor.values.tolist() if nested else to_list(tensor)
        same(from_list("X", tensor.datatype, tensor.shape, data), tensor)

    @given(tensors(NUMERIC))
    def test_flat_as_nested(self, tensor: Tensor) -> None:
        assert to_list(tensor) == tensor.values.ravel().tolist()

    @pytest.mark.parametrize(
        ("datatype", "value", "said"),
        [
            ("BOOL", 1, "data[1]: expected true and false for BOOL; got 1"),
            ("FP32", True, "data[1]: expected a number for FP32, that float32 holds; got true"),
            ("FP64", "1", "data[1]: expected a number for FP64, that float32 holds; got the string '1'"),
            ("FP16", 1e39, "data[1]: expected a number for FP16, that float32 holds; got 1e+39"),
            ("FP32", [1], "data[1]: expected a number for FP32, that float32 holds; got an array of 1"),
            ("BYTES", 1, "data[1]: expected strings for BYTES; got 1"),
            ("BYTES", None, "data[1]: expected strings for BYTES; got null"),
            *((datatype, 1.0, f"data[1]: expected integers for {datatype}; got 1.0") for datatype in WHOLE),
            *((datatype, True, f"data[1]: expected integers for {datatype}; got true") for datatype in WHOLE),
            *((datatype, None, f"data[1]: expected integers for {datatype}; got null") for datatype in WHOLE),
        ],
    )
    def test_a_value_that_the_datatype_does_not_hold(self, datatype: Datatype, value: object, said: str) -> None:
        first = {"BOOL": True, "BYTES": "a"}.get(datatype, 1)
        assert refusal(lambda: from_list("X", datatype, (2,), [first, value])) == f"input 'X': {said}"

    @pytest.mark.parametrize("datatype", WHOLE)
    def test_integers_to_the_limit(self, datatype: Datatype) -> None:
        limits = np.iinfo(ELEMENTS[datatype])
        ends = [int(limits.min), int(limits.max)]
        assert from_list("X", datatype, (2,), ends).values.tolist() == ends
        for beyond in (ends[0] - 1, ends[1] + 1):
            said = refusal(
                lambda beyond=beyond: from_list(  # type: ignore[misc]
                    "X", datatype, (1,), [beyond]
                )
            )
            assert said == f"input 'X': data[0]: expected {ends[0]} to {ends[1]} for {datatype}; got {beyond}"

    @pytest.mark.parametrize("datatype", NUMERIC)
    @pytest.mark.parametrize("data", [[1, 2, 3], [[1, 2], [3]], [[1, 2], 3], [[1], [2], [3], [4]], [[[1, 2], [3, 4]]]])
    def test_a_count_or_nesting_that_is_not_the_shapes(self, datatype: Datatype, data: list[Any]) -> None:
        assert refusal(lambda: from_list("X", datatype, (2, 2), data)).startswith("input 'X': data")

    @pytest.mark.parametrize("data", [None, 5, "abcd", {"0": 1}])
    def test_what_is_no_array(self, data: object) -> None:
        assert refusal(lambda: from_list("X", "FP32", (4,), data)).startswith("input 'X': data: expected an array; got")

    def test_the_message_of_a_count(self) -> None:
        assert refusal(lambda: from_list("X", "FP32", (2, 2), [1, 2, 3])) == (
            "input 'X': data: expected 4 values, flat or nested as [2, 2]; got 3 where 4 were due"
        )
        assert refusal(lambda: from_list("X", "FP32", (2, 2), [[1, 2], [3]])) == (
            "input 'X': data: expected 4 values, flat or nested as [2, 2]; got 1 where 2 were due"
        )

    def test_a_float_may_be_missing(self) -> None:
        tensor = from_list("X", "FP32", (2,), [None, 1.5])
        assert np.isnan(tensor.values[0])
        assert to_list(tensor) == [None, 1.5]

    def test_numbers_beyond_a_half_are_infinite(self) -> None:
        assert from_list("X", "FP16", (1,), [1e6]).values.tolist() == [np.inf]

    def test_bytes_that_are_no_text(self) -> None:
        assert to_list(Tensor("X", "BYTES", np.array([b"a\xff", "b"], dtype=object))) == ["a\ufffd", "b"]


class TestHeads:
    @pytest.mark.parametrize("datatype", DATATYPES)
    def test_datatypes(self, datatype: Datatype) -> None:
        assert check_datatype("X", datatype) == datatype

    @pytest.mark.parametrize("value", ["fp32", "BF16", "", None, 5, ["FP32"], {"FP32": 1}])
    def test_what_is_none(self, value: object) -> None:
        assert refusal(lambda: check_datatype("X", value)).startswith(
            "input 'X': datatype: expected one of BOOL, UINT8,"
        )

    @given(st.lists(st.integers(0, (1 << 63) - 1), min_size=1, max_size=MAX_DIMENSIONS))
    def test_shapes(self, shape: list[int]) -> None:
        assert check_shape("X", shape) == tuple(shape)

    @pytest.mark.parametrize(
        ("shape", "said"),
        [
            (None, "expected an array of 1 to 16 integers; got null"),
            ("12", "expected an array of 1 to 16 integers; got the string '12'"),
            ({}, "expected an array of 1 to 16 integers; got an object of 0 fields"),
            ([], "expected an array of 1 to 16 integers; got an array of 0"),
            ([1] * 17, "expected an array of 1 to 16 integers; got an array of 17"),
            ([1, -1], "expected integers that are not negative; got -1"),
            ([1.0], "expected integers that are not negative; got 1.0"),
            ([True], "expected integers that are not negative; got true"),
            ([[1]], "expected integers that are not negative; got an array of 1"),
            ([1 << 63], "expected integers that are not negative; got 9223372036854775808"),
        ],
    )
    def test_what_is_no_shape(self, shape: object, said: str) -> None:
        assert refusal(lambda: check_shape("X", shape)) == f"input 'X': shape: {said}"
