import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.codec.bodies import decode_json
from server.codec.tables import TEXT_LIMIT, decode_objects
from server.manifest import InputSpec
from server.rows import Rows, row_dtype
from tests.server.codec.specs import AGE, JOB, NOTE, TABLE, WIDE, refusal
from tests.tiny import JOBS


def decode(*instances: Any, inputs: list[InputSpec] = TABLE) -> Rows:
    return decode_json(json.dumps({"instances": instances}).encode(), inputs, max_rows=8).rows


def said_of(*instances: Any, inputs: list[InputSpec] = TABLE) -> str:
    return refusal(lambda: decode(*instances, inputs=inputs))


def test_rows_of_objects() -> None:
    rows = decode({"age": 41, "job": "nurse"}, {"job": "cook", "age": 18.5})
    assert rows.dtype == row_dtype(TABLE)
    assert rows["age"].tolist() == [[41.0], [18.5]]
    assert rows["job"].tolist() == [["nurse"], ["cook"]]


def test_missing_is_null_or_absent() -> None:
    rows = decode(
        {"age": None, "job": "nurse", "note": None, "height": 1},
        {"job": "cook", "height": 2},
        {"age": 1, "job": "cook", "note": "", "height": 3},
        {"age": 1, "job": "cook", "note": "fine", "height": 4},
        inputs=WIDE,
    )
    assert np.isnan(rows["age"]).ravel().tolist() == [True, True, False, False]
    assert rows["note"].ravel().tolist() == ["", "", "", "fine"]
    assert rows["height"].ravel().tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ([41, "nurse"], "instances[1]: expected an object with the keys 'age', 'job'; got an array of 2"),
        (None, "instances[1]: expected an object with the keys 'age', 'job'; got null"),
        ({"age": 41}, "instances[1]: expected a value for column 'job'; got none"),
        ({"age": 41, "jbo": "cook"}, "instances[1]: expected no columns but 'age', 'job'; got 'jbo'"),
        ({"age": 41, "job": "cook", "Age": 1}, "instances[1]: expected no columns but 'age', 'job'; got 'Age'"),
        (
            {"age": "41", "job": "cook"},
            "instances[1]: column 'age': expected a number that float32 holds; got the string '41'",
        ),
        ({"age": True, "job": "cook"}, "instances[1]: column 'age': expected a number that float32 holds; got true"),
        (
            {"age": [41], "job": "cook"},
            "instances[1]: column 'age': expected a number that float32 holds; got an array of 1",
        ),
        ({"age": 1e39, "job": "cook"}, "instances[1]: column 'age': expected a number that float32 holds; got 1e+39"),
        ({"age": 130, "job": "cook"}, "instances[1]: column 'age': expected a number from 0 to 120; got 130"),
        ({"age": -1, "job": "cook"}, "instances[1]: column 'age': expected a number from 0 to 120; got -1"),
        ({"age": 41, "job": 5}, "instances[1]: column 'job': expected text of 1 to 1024 characters; got 5"),
        ({"age": 41, "job": None}, "instances[1]: column 'job': expected text of 1 to 1024 characters; got null"),
        (
            {"age": 41, "job": ""},
            "instances[1]: column 'job': expected text of 1 to 1024 characters; got the string ''",
        ),
        (
            {"age": 41, "job": "nures"},
            "instances[1]: column 'job': expected one of 'cook', 'nurse', 'pilot'; got the string 'nures'",
        ),
        (
            {"age": 41, "job": "x" * 1025},
            "instances[1]: column 'job': expected text of 1 to 1024 characters; got a string of 1025 characters",
        ),
    ],
)
def test_refused(row: Any, said: str) -> None:
    assert said_of({"age": 41, "job": "nurse"}, row) == said


def test_the_first_row_is_looked_at_too() -> None:
    assert (
        said_of({"age": 41}, {"age": 41, "job": "cook"}) == "instances[0]: expected a value for column 'job'; got none"
    )


def test_a_number_where_none_may_be_missing() -> None:
    spec = InputSpec(name="n", shape=[1])
    assert said_of({"n": None, "job": "cook"}, inputs=[spec, JOB]).endswith(
        "expected a number that float32 holds; got null"
    )


def test_unknown_text_may_be_accepted() -> None:
    easy = JOB.model_copy(update={"unknown": "accept"})
    assert decode({"age": 1, "job": "baker"}, inputs=[AGE, easy])["job"].tolist() == [["baker"]]
    for odd in ("", "x" * (TEXT_LIMIT + 1), 5, None):
        assert "expected text of 1 to 1024 characters" in said_of({"age": 1, "job": odd}, inputs=[AGE, easy])


def test_empty_text_may_be_a_category() -> None:
    spec = InputSpec(name="job", datatype="BYTES", shape=[1], categories=["", "cook"])
    assert decode({"age": 1, "job": ""}, inputs=[AGE, spec])["job"].tolist() == [[""]]


def test_text_alone_is_a_table() -> None:
    assert decode({"note": "a\0b é"}, {}, inputs=[NOTE])["note"].tolist() == [["a\0b é"], [""]]


def test_a_column_may_hold_several_numbers() -> None:
    spec = InputSpec(name="v", shape=[2, 1], low=0.0, missing=True)
    inputs = [spec, JOB]
    rows = decode({"v": [1, 2], "job": "cook"}, {"job": "cook"}, {"v": [[3], [None]], "job": "cook"}, inputs=inputs)
    expected = np.array([[[1], [2]], [[np.nan], [np.nan]], [[3], [np.nan]]], dtype=np.float32)
    np.testing.assert_array_equal(rows["v"], expected)
    assert np.isnan(decode({"job": "cook"}, inputs=inputs)["v"]).all()
    said = said_of({"job": "cook"}, {"v": [1, -2], "job": "cook"}, inputs=inputs)
    assert said == "instances[1]: column 'v': expected numbers from 0 to inf; number 1 is -2"
    said = said_of({"job": "cook"}, {"v": 1, "job": "cook"}, inputs=inputs)
    assert said == "instances[1]: column 'v': expected 2 numbers, or [2, 1]; got 1"


def test_messages_are_short_however_many_columns() -> None:
    inputs = [InputSpec(name=f"column {i}" * 10, shape=[1]) for i in range(4000)]
    assert len(said_of({"column 5": 1}, inputs=inputs)) < 900
    assert len(said_of([1], inputs=inputs)) < 900


ages = st.one_of(st.none(), st.integers(0, 120), st.floats(0, 120))


@settings(deadline=None)
@given(st.lists(st.tuples(ages, st.sampled_from(JOBS), st.text(max_size=5), st.floats(width=32)), min_size=1))
def test_what_is_right_comes_through(cells: list[tuple[float | None, str, str, float]]) -> None:
    cells = [(age, job, note, height if math.isfinite(height) else 0.0) for age, job, note, height in cells]
    instances = [dict(zip(("age", "job", "note", "height"), row, strict=True)) for row in cells]
    rows = decode_objects(instances, WIDE, "row {}".format)
    np.testing.assert_array_equal(rows["age"].ravel(), np.array([row[0] for row in cells], dtype=np.float32))
    assert rows["job"].ravel().tolist() == [row[1] for row in cells]
    assert rows["note"].ravel().tolist() == [row[2] for row in cells]
    assert rows["height"].ravel().tolist() == [row[3] for row in cells]
