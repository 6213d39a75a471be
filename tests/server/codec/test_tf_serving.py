"""Bodies in TensorFlow Serving's form."""

import json
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from server.codec.tf_serving import TfBody, read_tf, write_tf
from server.errors import TooLarge
from server.manifest import InputSpec
from tests.server.codec import specs
from tests.server.codec.specs import AGE, FOUR, GAPPY, IMAGE, JOB, NOTE, TABLE, WIDE

NUMBERS = np.array([[1, 2.5, 3, 4], [5, 6, 7, 8]], dtype=np.float32)


def read(inputs: list[InputSpec], /, **fields: Any) -> TfBody:
    return read_tf(json.dumps(fields).encode(), inputs, max_rows=4)


def refusal(inputs: list[InputSpec], /, **fields: Any) -> str:
    return specs.refusal(lambda: read(inputs, **fields))


class TestNumbers:
    @pytest.mark.parametrize(
        "fields",
        [
            {"instances": NUMBERS.tolist()},
            {"instances": [{"X": row} for row in NUMBERS.tolist()]},
            {"inputs": NUMBERS.tolist()},
            {"inputs": {"X": NUMBERS.tolist()}},
        ],
    )
    @pytest.mark.parametrize("extra", [{}, {"signature_name": "serving_default"}, {"signature_name": '"'}])
    def test_every_way_to_write_them(self, fields: dict[str, Any], extra: dict[str, Any]) -> None:
        said = read([FOUR], **fields, **extra)
        assert_array_equal(said.rows, NUMBERS)
        assert said.columnar == ("inputs" in fields)

    @pytest.mark.parametrize("shape", [(784,), (28, 28), (28, 28, 1)])
    def test_a_picture_in_each_of_its_forms(self, shape: tuple[int, ...]) -> None:
        pixels = np.arange(784) % 256
        said = read([IMAGE], instances=[pixels.reshape(shape).tolist()])
        assert_array_equal(said.rows, pixels.reshape(1, 28, 28, 1))

    def test_what_is_missing(self) -> None:
        assert np.isnan(read([GAPPY], instances=[[1, None, 3, 4]]).rows[0, 1])

    @pytest.mark.parametrize(
        ("fields", "said"),
        [
            ({}, "body: expected instances or inputs; got neither"),
            ({"instances": [], "inputs": []}, "body: expected instances or inputs; got both"),
            ({"instances": [[1, 2, 3, 4]], "x": 1}, "body: expected no fields but signature_name, instances, inputs; "),
            ({"instances": [[1, 2, 3, 4]], "signature_name": 1}, "signature_name: expected a string; got 1"),
            ({"instances": []}, "instances: expected an array of at least one row; got an array of 0"),
            ({"instances": {}}, "instances: expected an array of at least one row; got an object of 0 fields"),
            ({"instances": None}, "instances: expected an array of at least one row; got null"),
            ({"inputs": []}, "inputs: expected an array of at least one row; got an array of 0"),
            ({"inputs": {}}, "inputs: expected an array of at least one row; got an array of 0"),
            ({"inputs": {"Y": []}}, "inputs: expected none but 'X'; got 'Y'"),
            ({"inputs": {"X": 5}}, "inputs: 'X': expected an array of rows; got 5"),
            ({"instances": [[1, 2, 3]]}, "instances[0]: expected 4 numbers; got 3"),
            ({"inputs": [[1, 2, 3, 4], [1, 2, 3]]}, "inputs[1]: expected 4 numbers; got 3"),
            ({"instances": [{"Y": [1, 2, 3, 4]}]}, "instances[0]: expected 4 numbers; got an object of 1 fields"),
            ({"instances": [[1, 2, 3, True]]}, "instances[0][3]: expected a number that float32 holds; got true"),
            ({"instances": [[1, 2, 3, 1e39]]}, "instances[0][3]: expected a number that float32 holds; got 1e+39"),
        ],
    )
    def test_refused(self, fields: dict[str, Any], said: str) -> None:
        assert refusal([FOUR], **fields).startswith(said)

    @pytest.mark.parametrize("key", ["instances", "inputs"])
    def test_too_many(self, key: str) -> None:
        said = specs.refusal(lambda: read([FOUR], **{key: [[1, 2, 3, 4]] * 5}), TooLarge)
        assert said == f"{key}: expected at most 4 rows; got 5"

    @pytest.mark.parametrize("text", [b"", b"{", b"[]", b"\xff", b'{"instances": [[1,2,3,4]], "instances": []}'])
    def test_what_is_no_object_of_json(self, text: bytes) -> None:
        assert specs.refusal(lambda: read_tf(text, [FOUR], max_rows=4)).startswith("body: ")


class TestTables:
    @pytest.mark.parametrize(
        "fields",
        [
            {"instances": [{"age": 41, "job": "nurse"}, {"job": "cook"}]},
            {"instances": [{"age": [41], "job": ["nurse"]}, {"age": None, "job": ["cook"]}]},
            {"inputs": {"age": [41, None], "job": ["nurse", "cook"]}},
            {"inputs": {"age": [[41], [None]], "job": [["nurse"], ["cook"]]}},
        ],
    )
    def test_every_way_to_write_them(self, fields: dict[str, Any]) -> None:
        rows = read(TABLE, **fields).rows
        assert_array_equal(rows["age"].ravel(), [41, np.nan])
        assert rows["job"].ravel().tolist() == ["nurse", "cook"]

    def test_text_alone(self) -> None:
        for instances in (["a", ""], [["a"], [""]], [{"note": "a"}, {}]):
            assert read([NOTE], instances=instances).rows["note"].ravel().tolist() == ["a", ""]

    def test_a_column_that_may_be_missing_may_be_left_out(self) -> None:
        rows = read(WIDE, inputs={"job": ["cook"], "height": [180]}).rows
        assert np.isnan(rows["age"]).all()
        assert rows["height"].tolist() == [[180]]

    @pytest.mark.parametrize(
        ("fields", "said"),
        [
            ({"instances": [5]}, "instances[0]: expected an object with the keys 'age', 'job'; got 5"),
            ({"instances": [{"age": 41}]}, "instances[0]: expected a value for column 'job'; got none"),
            ({"instances": [{"job": "cook", "x": 1}]}, "instances[0]: expected no columns but 'age', 'job'; got 'x'"),
            ({"instances": [{"job": "baker"}]}, "instances[0]: column 'job': expected one of 'cook', 'nurse', 'pilot'"),
            ({"inputs": {"age": [1, 2], "job": ["cook"]}}, "inputs: expected as many rows of each; got 1, 2"),
            ({"inputs": {"x": [1]}}, "inputs: expected none but 'age', 'job'; got 'x'"),
            ({"inputs": {"age": [1]}}, "inputs[0]: expected a value for column 'job'; got none"),
            ({"instances": [{"age": [1, 2], "job": "cook"}]}, "instances[0]: column 'age': expected a number"),
        ],
    )
    def test_refused(self, fields: dict[str, Any], said: str) -> None:
        assert refusal(TABLE, **fields).startswith(said)

    def test_the_specs_are_of_one_value_a_row(self) -> None:
        assert AGE.shape == JOB.shape == [1]


def test_answers() -> None:
    answers = np.array([[0.25, 0.75]], dtype=np.float32)
    assert json.loads(write_tf(answers, TfBody(NUMBERS, columnar=False))) == {"predictions": [[0.25, 0.75]]}
    assert json.loads(write_tf(answers.T, TfBody(NUMBERS, columnar=True))) == {"outputs": [[0.25], [0.75]]}
