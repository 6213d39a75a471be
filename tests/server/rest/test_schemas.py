"""The codec and the documented models agree on which requests are right."""

import json
import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from server.codec.bodies import FIELDS, decode_json
from server.codec.numbers import FLOAT32_LIMIT
from server.codec.options import DETAILS, LONGEST_MS, MOST_MEMBERS, ON_FAILURE
from server.codec.tables import TEXT_LIMIT
from server.errors import InvalidInput
from server.fusion import STRATEGIES
from server.manifest import InputSpec
from server.rest.schemas import Number, PredictRequest
from tests.server.codec.specs import WIDE

MAX_ROWS = 3
Spec = Sequence[InputSpec]


def narrowed(row: Any) -> type[PredictRequest]:
    """The documented model, with the rows of one ensemble."""
    rows = Annotated[list[row], Field(min_length=1, max_length=MAX_ROWS)]
    model: type[PredictRequest] = create_model("Request", __base__=PredictRequest, instances=(rows, ...))
    return model


def pair(value: Any) -> Any:
    return Annotated[list[value], Field(min_length=2, max_length=2)]


class Person(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    age: Annotated[float, Field(ge=0, le=120, allow_inf_nan=False)] | None = None
    job: Literal["cook", "nurse", "pilot"]
    note: Annotated[str, Field(max_length=TEXT_LIMIT)] | None = None
    height: Number


PLAIN = [InputSpec(name="X", shape=[2])]
MISSING = [InputSpec(name="X", shape=[2], missing=True)]
MODELS: dict[str, tuple[Spec, type[PredictRequest]]] = {
    "plain": (PLAIN, narrowed(pair(Number))),
    "missing": (MISSING, narrowed(pair(Number | None))),
    "table": (WIDE, narrowed(Person)),
}
"""By kind of ensemble: its inputs, and the model of its requests."""


def codec_takes(body: bytes, kind: str = "plain") -> bool:
    try:
        decode_json(body, MODELS[kind][0], max_rows=MAX_ROWS)
    except InvalidInput:
        return False
    return True


def model_takes(body: bytes, kind: str = "plain") -> bool:
    """The narrowed model; what it takes, the documented one takes too."""
    try:
        MODELS[kind][1].model_validate_json(body)
    except ValidationError:
        return False
    PredictRequest.model_validate_json(body)
    return True


numbers = st.one_of(
    st.integers(-5, 5),
    st.floats(allow_nan=False),
    st.sampled_from([3.4028234663852886e38, FLOAT32_LIMIT, -FLOAT32_LIMIT, 1e39, 2**63, 2**128, 10**400, 1e308]),
)
oddities = st.one_of(
    st.none(), st.booleans(), st.text(max_size=3), st.just(math.nan), st.just([]), st.just({}), st.just([1, 2])
)
values = st.one_of(numbers, numbers, numbers, oddities)
row = st.one_of(st.lists(values, min_size=2, max_size=2), st.lists(values, max_size=3), oddities)
cells = st.fixed_dictionaries(
    {},
    optional={
        "age": st.one_of(st.integers(-1, 121), values),
        "job": st.one_of(st.sampled_from(["cook", "nurse", "baker"]), values),
        "note": st.one_of(st.text(max_size=3), st.integers(1023, 1025).map(lambda n: "é" * n), values),
        "height": values,
        "x": values,
    },
)
good_cells = st.fixed_dictionaries(
    {"job": st.sampled_from(["cook", "nurse"]), "height": st.floats(-9, 9)},
    optional={"age": st.one_of(st.none(), st.floats(0, 120)), "note": st.one_of(st.none(), st.text(max_size=3))},
)
shares = st.one_of(st.floats(-0.1, 1.1), st.sampled_from([-0.0, 0, 1, 1.0000001]))
good_rows = st.lists(st.lists(st.floats(-9, 9), min_size=2, max_size=2), min_size=1, max_size=MAX_ROWS)
fields = {
    "id": st.one_of(st.text(max_size=3), st.integers(127, 130).map(lambda n: "é" * n), oddities, numbers),
    "strategy": st.one_of(st.sampled_from(list(STRATEGIES)), oddities, numbers),
    "weights": st.one_of(st.dictionaries(st.text(max_size=2), values, max_size=2), oddities),
    "members": st.one_of(st.lists(st.text(max_size=2), max_size=2), st.lists(oddities, max_size=2), oddities),
    "detail": st.one_of(
        st.lists(st.sampled_from([*DETAILS, "x"]), max_size=3), st.lists(oddities, max_size=2), oddities
    ),
    "cascade_threshold": st.one_of(shares, values),
    "deadline_ms": st.one_of(st.sampled_from([1, 0.5, 5e-324, LONGEST_MS, LONGEST_MS + 0.1]), values),
    "quorum": st.one_of(st.integers(-1, 3), st.sampled_from([MOST_MEMBERS, MOST_MEMBERS + 1, 1.0]), values),
    "on_failure": st.one_of(st.sampled_from([*ON_FAILURE, "Fail"]), oddities, numbers),
    "abstain_below": st.one_of(shares, values),
}
bodies = st.fixed_dictionaries(
    {"instances": st.one_of(good_rows, st.lists(row, max_size=4), oddities)},
    optional={**fields, "extra": numbers},
)
good_bodies = st.fixed_dictionaries({"instances": good_rows}, optional=fields)
"""Whose options decide."""
tables = st.fixed_dictionaries(
    {
        "instances": st.one_of(
            st.lists(good_cells, min_size=1, max_size=MAX_ROWS), st.lists(st.one_of(good_cells, cells, row), max_size=4)
        )
    },
    optional={"id": st.text(max_size=3)},
)


@settings(max_examples=400, deadline=None)
@given(st.one_of(bodies, good_bodies), st.sampled_from(["plain", "missing"]))
@example({"instances": [[1, 2]], "id": "x", "strategy": "vote", "weights": {"a": 0}, "detail": ["members"]}, "plain")
@example({"instances": [[1, 10**400]]}, "plain")
@example({"instances": [[1, 2]], "weights": {"a": 10**400}}, "plain")
@example({"instances": [[1, 2]], "strategy": None}, "plain")
@example({"instances": [[1, 2]], "cascade_threshold": 1, "abstain_below": 0}, "plain")
@example({"instances": [[1, 2]], "quorum": 10**400}, "plain")
@example({"instances": [[1, 2]], "deadline_ms": 10**400}, "plain")
@example({"instances": [[1, 2]], "on_failure": ["fail"]}, "plain")
@example({"instances": [[1, None]]}, "missing")
@example({}, "plain")
def test_codec_and_model_take_the_same_requests(body: dict[str, Any], kind: str) -> None:
    data = json.dumps(body).encode()
    assert codec_takes(data, kind) == model_takes(data, kind), data


@settings(max_examples=300, deadline=None)
@given(tables)
@example({"instances": [{"job": "cook", "height": 1}, {"age": None, "job": "cook", "note": "", "height": 10**30}]})
@example({"instances": [{"job": "cook", "height": 10**400}]})
@example({"instances": [{"job": "cook", "height": True}]})
@example({"instances": [{"age": 120.5, "job": "cook", "height": 1}]})
def test_they_take_the_same_tables(body: dict[str, Any]) -> None:
    data = json.dumps(body).encode()
    assert codec_takes(data, "table") == model_takes(data, "table"), data


@pytest.mark.parametrize(
    ("body", "taken"),
    [
        (b'{"instances": [[1, 2]]}', True),
        (b' {"instances": [[1, 2], [3.5, -4e0]], "id": ""}\n', True),
        (b'{"\\u0069nstances": [[1, 2]]}', True),
        (b'{"instances": [[1, 2]], "id": "true false null"}', True),
        (b'{"instances": [[1, tru]]}', False),
        (b'{"instances": [[1, 2]]', False),
        (b'{"instances": [[1, 2],]}', False),
        (b'{"instances": [[1, 1e999]]}', False),
        (b'{"instances": [[1, Infinity]]}', False),
        (b'{"instances": [[1, 2]], "id": "\xff"}', False),
        (b'[{"instances": [[1, 2]]}]', False),
        (b'{"instances": [["1", "2"]]}', False),
        (b'{"instances": [[true, 2]]}', False),
        (b'{"instances": [[1, 2]], "timeout": 1}', False),
        (b"", False),
    ],
)
def test_by_hand(body: bytes, taken: bool) -> None:
    assert codec_takes(body) == model_takes(body) == taken


def test_the_codec_and_the_model_know_the_same_fields() -> None:
    assert list(PredictRequest.model_fields) == list(FIELDS)
    assert list(fields) == list(FIELDS[1:])


@pytest.mark.parametrize("nested", [[1, 2], [[1], [2]], [[[1.5]], [[2]]]])
def test_the_model_takes_rows_of_any_depth(nested: list[Any]) -> None:
    PredictRequest.model_validate_json(json.dumps({"instances": [nested]}))
    with pytest.raises(ValidationError):
        PredictRequest.model_validate_json(json.dumps({"instances": [[nested, True]]}))
