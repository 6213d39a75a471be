from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from export.errors import Mismatch
from export.evaluating.inputs import fit_inputs
from server.manifest import InputSpec
from server.rows import join_tensors

IMAGE = InputSpec(name="image", shape=[2, 3, 1], low=0.0, high=255.0)
AGE = InputSpec(name="age", shape=[1], low=0.0, high=120.0, missing=True)
JOB = InputSpec(name="job", datatype="BYTES", shape=[1], categories=["cook", "pilot"])
PIXELS = np.arange(24, dtype=np.float32).reshape(4, 2, 3, 1)


def _x(shape: list[int], **facts: Any) -> InputSpec:
    return InputSpec(name="x", shape=shape, **facts)


def _people(age: list[float], job: list[str], **others: NDArray[Any]) -> tuple[list[InputSpec], NDArray[Any]]:
    tensors = {"age": np.array(age, dtype=np.float32)[:, None], "job": np.array(job, dtype=object)[:, None], **others}
    specs = [InputSpec(name=name, datatype="BYTES" if t.dtype == object else "FP32", shape=[1])
             for name, t in tensors.items()]  # fmt: skip
    return specs, join_tensors(tensors, specs)


def _refusal(have: list[InputSpec], x: NDArray[Any], wanted: list[InputSpec]) -> str:
    with pytest.raises(Mismatch) as caught:
        fit_inputs(have, x, wanted, data="t.csv", where="m/1")
    assert "\n" not in caught.value.message
    return caught.value.message


@pytest.mark.parametrize("shape", [[2, 3, 1], [2, 3], [6], [1, 2, 3]])
def test_an_array_of_another_name_is_taken_flat_or_without_dimensions_of_one(shape: list[int]) -> None:
    rows, notes = fit_inputs([_x(shape)], PIXELS.reshape(4, *shape), [IMAGE], data="t.npz", where="m/1")
    np.testing.assert_array_equal(rows, PIXELS)
    assert rows.dtype == np.float32
    assert notes == []


def test_columns_of_numbers_are_an_array_in_their_order() -> None:
    specs = [InputSpec(name=name, shape=[1]) for name in ("b", "a")]
    x = join_tensors({"b": PIXELS[:, 0, 0], "a": PIXELS[:, 0, 1]}, specs)
    rows, _ = fit_inputs(specs, x, [_x([2])], data="t.csv", where="m/1")
    np.testing.assert_array_equal(rows, PIXELS[:, 0, :2, 0])


def test_columns_go_by_name_and_those_that_are_not_read_are_left_out() -> None:
    have, x = _people([30, np.nan], ["cook", "pilot"], id=np.array([[1], [2]], dtype=np.float32))
    rows, notes = fit_inputs(have, x, [JOB, AGE], data="t.csv", where="m/1")
    assert rows.dtype.names == ("job", "age")
    np.testing.assert_array_equal(rows["age"], [[30], [np.nan]])
    assert rows["job"].tolist() == [["cook"], ["pilot"]]
    assert notes == ["m/1 does not read id: left out"]


def test_a_shape_that_is_another_is_refused() -> None:
    assert _refusal([_x([3, 2])], PIXELS.reshape(4, 3, 2), [IMAGE]) == (
        "t.csv: expected rows of shape [2, 3, 1], input 'image' of m/1; got [3, 2]"
    )
    have, x = _people([1], ["2"])
    assert _refusal(have[:1], x[["age"]], [_x([2])]) == "t.csv: expected 2 columns of numbers, as m/1 reads; got 1"
    assert _refusal(have, x, [_x([2])]) == "t.csv: column 'job': expected numbers, as m/1 reads; got text"


def test_columns_that_are_not_there_or_of_another_kind_are_refused() -> None:
    have, x = _people([30], ["cook"])
    assert _refusal([_x([2])], PIXELS[:, 0, :2, 0], [AGE, JOB]) == (
        "t.csv: expected columns, age, job, as m/1 reads; got one array [2]"
    )
    income = InputSpec(name="income", shape=[1])
    assert _refusal(have, x, [AGE, income]) == "t.csv: expected a column 'income', as m/1 reads; got age, job"
    text = InputSpec(name="age", datatype="BYTES", shape=[1])
    assert _refusal(have, x, [text, JOB]) == (
        "t.csv: column 'age': expected text of shape [1], as m/1 reads; got numbers of shape [1]"
    )


def test_values_that_the_server_would_refuse_are_refused() -> None:
    bright = PIXELS.copy()
    bright[2, 0, 1] = 255.5
    assert _refusal([_x([2, 3, 1])], bright, [IMAGE]) == (
        "t.csv: row 2: expected numbers from 0 to 255, as m/1 takes; got 255.5"
    )
    bright[1, 0, 0] = np.nan
    assert _refusal([_x([2, 3, 1])], bright, [IMAGE]) == "t.csv: row 1: expected a value, as m/1 takes; got none"
    positive = InputSpec(name="age", shape=[1], low=0.0)
    have, x = _people([30, -1], ["cook", "cook"])
    assert _refusal(have, x, [positive, JOB]) == (
        "t.csv: column 'age': row 1: expected numbers from 0 to infinity, as m/1 takes; got -1"
    )
    have, x = _people([30, 30], ["cook", "spy"])
    assert _refusal(have, x, [AGE, JOB]) == (
        "t.csv: column 'job': row 1: expected one of cook, pilot, as m/1 takes; got 'spy'"
    )
    have, x = _people([30, 30], ["", "cook"])
    assert _refusal(have, x, [AGE, JOB]) == "t.csv: column 'job': row 0: expected a value, as m/1 takes; got none"


def test_text_that_nobody_knows_is_taken_where_the_ensemble_takes_it() -> None:
    have, x = _people([30], ["spy"])
    accepting = JOB.model_copy(update={"unknown": "accept"})
    rows, _ = fit_inputs(have, x, [AGE, accepting], data="t.csv", where="m/1")
    assert rows["job"].tolist() == [["spy"]]
