from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

from server.manifest import InputSpec
from server.rows import is_table, join_tensors, row_dtype, split_rows

IMAGE = InputSpec(name="image", shape=[2, 3, 1])
AGE = InputSpec(name="age", shape=[1])
JOB = InputSpec(name="job", datatype="BYTES", shape=[1])
TABLES = [[AGE, JOB], [JOB, AGE, IMAGE], [AGE, IMAGE], [JOB]]
EVERY = [[IMAGE], *TABLES]


def make_tensors(inputs: list[InputSpec], n: int) -> dict[str, NDArray[Any]]:
    """`(n, *shape)` an input, no two values alike but for missing ones."""
    tensors: dict[str, NDArray[Any]] = {}
    for k, spec in enumerate(inputs):
        values = np.arange(n * np.prod(spec.shape)).reshape(n, *spec.shape) + 1000 * k
        if spec.datatype == "BYTES":
            tensors[spec.name] = np.array([f"né {value}" for value in values.flat], dtype=object).reshape(values.shape)
        else:
            tensors[spec.name] = np.where(values % 7 == 3, np.nan, values).astype(np.float32)
    return tensors


def assert_same(some: dict[str, NDArray[Any]], others: dict[str, NDArray[Any]]) -> None:
    assert some.keys() == others.keys()
    for name, tensor in some.items():
        assert tensor.dtype == others[name].dtype
        assert_array_equal(tensor, others[name])


def names(inputs: list[InputSpec]) -> list[str]:
    return [spec.name for spec in inputs]


def test_a_table_has_several_inputs_or_text() -> None:
    assert not is_table([IMAGE])
    assert all(is_table(inputs) for inputs in TABLES)


def test_a_row_of_a_table_has_a_field_an_input() -> None:
    dtype = row_dtype([AGE, JOB, IMAGE])
    assert dtype.names == ("age", "job", "image")
    assert [dtype[name].base for name in ("age", "job", "image")] == [np.float32, object, np.float32]
    assert [dtype[name].shape for name in ("age", "job", "image")] == [(1,), (1,), (2, 3, 1)]


def test_the_rows_of_one_input_of_numbers_are_its_tensor() -> None:
    tensors = make_tensors([IMAGE], 4)
    assert join_tensors(tensors, [IMAGE]) is tensors["image"]


def test_the_rows_of_a_table_are_one_dimensional() -> None:
    rows = join_tensors(make_tensors([AGE, IMAGE], 4), [AGE, IMAGE])
    assert (rows.shape, rows.dtype) == ((4,), row_dtype([AGE, IMAGE]))
    assert rows[2]["age"] == [2]


@given(st.sampled_from(EVERY), st.integers(0, 9))
def test_what_is_joined_splits_into_what_it_was(inputs: list[InputSpec], n: int) -> None:
    tensors = make_tensors(inputs, n)
    assert_same(split_rows(join_tensors(tensors, inputs), names(inputs)), tensors)


@given(st.sampled_from(EVERY), st.integers(0, 9), st.integers(0, 9), st.integers(1, 3))
def test_a_slice_of_the_rows_is_of_the_slices_of_the_tensors(
    inputs: list[InputSpec], start: int, stop: int, step: int
) -> None:
    tensors = make_tensors(inputs, 9)
    part = join_tensors(tensors, inputs)[start:stop:step]
    assert_same(split_rows(part, names(inputs)), {name: tensor[start:stop:step] for name, tensor in tensors.items()})


@given(st.sampled_from(EVERY), st.lists(st.integers(0, 9), max_size=4).map(lambda cuts: sorted([0, *cuts, 9])))
def test_rows_that_are_cut_and_concatenated_are_the_same(inputs: list[InputSpec], cuts: list[int]) -> None:
    tensors = make_tensors(inputs, 9)
    rows = join_tensors(tensors, inputs)
    again = np.concatenate([rows[start:stop] for start, stop in pairwise(cuts)])
    assert again.dtype == rows.dtype
    assert_same(split_rows(again, names(inputs)), tensors)


@pytest.mark.parametrize("inputs", TABLES, ids=lambda inputs: "+".join(names(inputs)))
def test_tensors_of_a_table_lie_in_memory_as_graphs_read_them(inputs: list[InputSpec]) -> None:
    split = split_rows(join_tensors(make_tensors(inputs, 5), inputs)[::2], names(inputs))
    assert all(tensor.flags.c_contiguous for tensor in split.values())


def test_only_the_inputs_that_are_named_are_split_off() -> None:
    rows = join_tensors(make_tensors([AGE, JOB, IMAGE], 3), [AGE, JOB, IMAGE])
    assert list(split_rows(rows, ["image", "age"])) == ["image", "age"]


def test_the_rows_own_their_values() -> None:
    tensors = make_tensors([AGE, JOB], 2)
    rows = join_tensors(tensors, [AGE, JOB])
    tensors["age"][:] = -1
    assert rows["age"].tolist() == [[0], [1]]
