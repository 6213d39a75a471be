"""From tensors to rows: the same numbers and the same checks as of any other request."""

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from server.errors import TooLarge
from server.manifest import Manifest
from server.oip.inputs import rows_of
from server.oip.tensors import DATATYPES, ELEMENTS, Datatype, Tensor, from_list
from tests import tiny
from tests.server.codec.specs import refusal

FILES = [{"name": "m1.onnx", "sha256": "0" * 64, "bytes": 1}]
PEOPLE: list[dict[str, Any]] = [
    {"name": "age", "datatype": "FP32", "shape": [1], "low": 0.0, "high": 120.0, "missing": True},
    {"name": "job", "datatype": "BYTES", "shape": [1], "categories": tiny.JOBS},
]


def manifest(*inputs: dict[str, Any]) -> Manifest:
    return Manifest.model_validate(tiny.manifest(1, inputs=list(inputs), max_batch_size=4, files=FILES))


PLAIN = manifest({"name": "X", "shape": [4]})
IMAGE = manifest({"name": "image", "shape": [2, 2, 1], "low": 0.0, "high": 255.0})
SINGLE = manifest({"name": "X", "shape": [1]})
TABLE = manifest(*PEOPLE)
TEXT = manifest({"name": "note", "datatype": "BYTES", "shape": [1]})


def tensor(values: Any, name: str = "X", datatype: Datatype = "FP32") -> Tensor:
    return Tensor(name, datatype, np.array(values, dtype=ELEMENTS[datatype]))


class TestNumbers:
    @pytest.mark.parametrize("datatype", [name for name in DATATYPES if name not in ("BOOL", "BYTES")])
    def test_of_every_datatype(self, datatype: Datatype) -> None:
        rows = rows_of(PLAIN, [tensor([[1, 2, 3, 100]], datatype=datatype)])
        assert rows.dtype == np.float32
        assert_array_equal(rows, [[1, 2, 3, 100]])

    def test_the_nearest_float32_by_way_of_float64(self) -> None:
        large = (1 << 53) + 1
        rows = rows_of(PLAIN, [tensor([[large, 0, 0, 0]], datatype="INT64")])
        assert rows[0, 0] == np.float32(float(large))

    @pytest.mark.parametrize("shape", [(3, 4), (3, 2, 2), (3, 2, 2, 1)])
    def test_the_forms_of_a_row(self, shape: tuple[int, ...]) -> None:
        values = np.arange(12, dtype=np.float32).reshape(shape)
        assert_array_equal(rows_of(IMAGE, [tensor(values, "image")]), values.reshape(3, 2, 2, 1))

    def test_of_one_number_a_row_needs_no_dimension_of_its_own(self) -> None:
        assert_array_equal(rows_of(SINGLE, [tensor([1, 2])]), [[1], [2]])

    def test_rows_are_their_own(self) -> None:
        values = np.zeros((1, 4), np.float32)
        rows = rows_of(PLAIN, [tensor(values)])
        values[:] = 1
        assert not rows.any()

    @pytest.mark.parametrize(
        ("values", "said"),
        [
            (np.zeros((2, 3)), "input 'X': shape: expected [n, …], each row 4 numbers; got [2, 3]"),
            (np.zeros(4), "input 'X': shape: expected [n, …], each row 4 numbers; got [4]"),
            (np.zeros((1, 2, 2)), "input 'X': shape: expected [n, …], each row 4 numbers; got [1, 2, 2]"),
            (np.zeros((0, 4)), "input 'X': expected at least one row; got none"),
            (
                [[0, 0, 0, 0], [0, np.nan, 0, 0]],
                "input 'X': row 1: expected numbers that float32 holds; number 1 is nan",
            ),
            ([[0, 0, 0, np.inf]], "input 'X': row 0: expected numbers that float32 holds; number 3 is inf"),
        ],
    )
    def test_refused(self, values: Any, said: str) -> None:
        assert refusal(lambda: rows_of(PLAIN, [tensor(values)])) == said

    def test_outside_the_domain(self) -> None:
        assert refusal(lambda: rows_of(IMAGE, [tensor([[0, 0, 0, 256]], "image")])) == (
            "input 'image': row 0: expected numbers from 0 to 255; number 3 is 256"
        )

    @pytest.mark.parametrize("datatype", ["BOOL", "BYTES"])
    def test_what_is_no_number(self, datatype: Datatype) -> None:
        assert refusal(lambda: rows_of(PLAIN, [tensor([[True] * 4], datatype=datatype)])) == (
            f"input 'X': datatype: expected FP32, or another of numbers; got {datatype}"
        )

    def test_too_many(self) -> None:
        said = refusal(lambda: rows_of(PLAIN, [tensor(np.zeros((5, 4)))]), TooLarge)
        assert said == "input 'X': expected at most 4 rows; got 5"


class TestNames:
    def test_none(self) -> None:
        assert refusal(lambda: rows_of(PLAIN, [])) == "inputs: expected 'X'; got none"

    def test_a_stranger(self) -> None:
        said = refusal(lambda: rows_of(PLAIN, [tensor(np.zeros((1, 4)), "Y")]))
        assert said == "inputs: expected none but 'X'; got 'Y'"

    def test_twice(self) -> None:
        assert refusal(lambda: rows_of(PLAIN, [tensor(np.zeros((1, 4)))] * 2)) == (
            "inputs: expected each once; got one twice"
        )

    def test_one_too_few(self) -> None:
        said = refusal(lambda: rows_of(TABLE, [tensor([[41]], "age")]))
        assert said == "inputs: expected 'job' too; got 'age'"


class TestTables:
    def ages(self, *values: float) -> Tensor:
        return tensor([[value] for value in values], "age")

    def jobs(self, *values: str | bytes) -> Tensor:
        return tensor([[value] for value in values], "job", "BYTES")

    def test_columns(self) -> None:
        rows = rows_of(TABLE, [self.jobs("nurse", b"cook"), self.ages(41, np.nan)])
        assert rows["job"].ravel().tolist() == ["nurse", "cook"]
        assert_array_equal(rows["age"].ravel(), [41, np.nan])

    def test_a_column_that_may_be_missing_needs_no_tensor(self) -> None:
        rows = rows_of(TABLE, [self.jobs("nurse", "cook")])
        assert np.isnan(rows["age"]).all()

    def test_one_value_a_row_may_stand_flat(self) -> None:
        tensors = [from_list("age", "INT32", (1,), [41]), from_list("job", "BYTES", (1,), ["nurse"])]
        assert rows_of(TABLE, tensors)["age"].tolist() == [[41]]

    def test_one_input_of_text(self) -> None:
        assert rows_of(TEXT, [tensor([["a"], ["é"]], "note", "BYTES")])["note"].ravel().tolist() == ["a", "é"]

    @pytest.mark.parametrize(
        ("ages", "jobs", "said"),
        [
            ([41, 42], ["nurse"], "input 'job': expected 2 rows, as 'age' has; got 1"),
            ([121], ["nurse"], "input 'age': row 0: expected a number from 0 to 120; got 121"),
            ([41], ["baker"], "row 0: column 'job': expected one of 'cook', 'nurse', 'pilot'; got the string 'baker'"),
            ([41], [b"\xff"], "row 0: column 'job': expected UTF-8; got the string 'ÿ'"),
            ([41], [""], "row 0: column 'job': expected text of 1 to 1024 characters; got the string ''"),
        ],
    )
    def test_refused(self, ages: list[float], jobs: list[str | bytes], said: str) -> None:
        assert refusal(lambda: rows_of(TABLE, [self.ages(*ages), self.jobs(*jobs)])) == said

    def test_text_where_numbers_are_due_and_the_other_way_round(self) -> None:
        said = refusal(lambda: rows_of(TABLE, [tensor([["41"]], "age", "BYTES"), self.jobs("cook")]))
        assert said == "input 'age': datatype: expected FP32, or another of numbers; got BYTES"
        said = refusal(lambda: rows_of(TABLE, [self.ages(41), tensor([[1]], "job")]))
        assert said == "input 'job': datatype: expected BYTES, of text; got FP32"
