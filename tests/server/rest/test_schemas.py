"""The codec and the documented models agree on which requests are right, and on what answers look like."""

import json
import math
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from server.codec.bodies import decode_json
from server.codec.media import TYPES
from server.codec.numbers import FLOAT32_LIMIT
from server.codec.options import OPTIONS
from server.codec.tables import TEXT_LIMIT
from server.errors import InvalidInput
from server.fusion import STRATEGIES
from server.manifest import InputSpec
from server.rest.answer import FORMS
from server.rest.errors import STATUSES
from server.rest.schemas import EnsembleDescription, EnsembleList, ErrorBody, Number, PredictRequest, PredictResponse
from tests.server.codec.specs import WIDE
from tests.server.rest.client import Client

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
good_rows = st.lists(st.lists(st.floats(-9, 9), min_size=2, max_size=2), min_size=1, max_size=MAX_ROWS)
fields = {
    "id": st.one_of(st.text(max_size=3), st.integers(127, 130).map(lambda n: "é" * n), oddities, numbers),
    "strategy": st.one_of(st.sampled_from(list(STRATEGIES)), oddities, numbers),
    "weights": st.one_of(st.dictionaries(st.text(max_size=2), values, max_size=2), oddities),
    "members": st.one_of(st.lists(st.text(max_size=2), max_size=2), st.lists(oddities, max_size=2), oddities),
    "detail": st.one_of(
        st.lists(st.sampled_from(["members", "uncertainty", "x"]), max_size=3), st.lists(oddities, max_size=2), oddities
    ),
}
bodies = st.fixed_dictionaries(
    {"instances": st.one_of(good_rows, st.lists(row, max_size=4), oddities)},
    optional={**fields, "extra": numbers},
)
tables = st.fixed_dictionaries(
    {
        "instances": st.one_of(
            st.lists(good_cells, min_size=1, max_size=MAX_ROWS), st.lists(st.one_of(good_cells, cells, row), max_size=4)
        )
    },
    optional={"id": st.text(max_size=3)},
)


@settings(max_examples=400, deadline=None)
@given(bodies, st.sampled_from(["plain", "missing"]))
@example({"instances": [[1, 2]], "id": "x", "strategy": "vote", "weights": {"a": 0}, "detail": ["members"]}, "plain")
@example({"instances": [[1, 10**400]]}, "plain")
@example({"instances": [[1, 2]], "weights": {"a": 10**400}}, "plain")
@example({"instances": [[1, 2]], "strategy": None}, "plain")
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


@pytest.mark.parametrize("nested", [[1, 2], [[1], [2]], [[[1.5]], [[2]]]])
def test_the_model_takes_rows_of_any_depth(nested: list[Any]) -> None:
    PredictRequest.model_validate_json(json.dumps({"instances": [nested]}))
    with pytest.raises(ValidationError):
        PredictRequest.model_validate_json(json.dumps({"instances": [[nested, True]]}))


@pytest.mark.parametrize("detail", ["", "&detail=members", "&detail=uncertainty", "&detail=members,uncertainty"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_answers_are_as_documented(client: Client, strategy: str, detail: str) -> None:
    path = f"/predict?strategy={strategy}{detail}"
    response = client.post(path, json={"instances": [[1, 2, 3, 4], [0, 0, 0, 0]], "id": "i"})
    answer = PredictResponse.model_validate_json(response.content, strict=True)
    assert len(answer.predictions) == 2
    for prediction in answer.predictions:
        assert (prediction.members is not None) == ("members" in detail)
        assert (prediction.uncertainty is not None) == ("uncertainty" in detail)
        assert sum(prediction.probabilities) == pytest.approx(1, abs=1e-6)


def test_other_answers_are_as_documented(client: Client) -> None:
    EnsembleList.model_validate_json(client.get("/v1/ensembles").content, strict=True)
    EnsembleDescription.model_validate_json(client.get("/v1/ensembles/tiny").content, strict=True)
    for response in (client.get("/nope"), client.get("/v1/ensembles/nope"), client.post("/predict")):
        ErrorBody.model_validate_json(response.content, strict=True)


@pytest.fixture(scope="module")
def document(client: Client) -> dict[str, Any]:
    document: dict[str, Any] = client.get("/openapi.json").json()
    return document


class TestDocument:
    def test_predict(self, document: dict[str, Any]) -> None:
        paths = [path for path in document["paths"] if path.endswith("/predict")]
        assert len(paths) == 3
        for path in paths:
            operation = document["paths"][path]["post"]
            assert set(operation["responses"]) == {"200", "400", "404", "406", "413", "415", "500", "503"}
            assert {int(status) for status in operation["responses"]} - {200, 406} <= set(STATUSES.values())
            assert set(operation["responses"]["200"]["content"]) == set(FORMS)
            query = {p["name"]: p for p in operation["parameters"] if p["in"] == "query"}
            assert set(query) == {"strategy", "weights", "members", "detail"}
            assert query["strategy"]["schema"]["enum"] == list(STRATEGIES)
            content = operation["requestBody"]["content"]
            assert set(content) == set(TYPES)
            assert content["application/json"]["schema"] == {"$ref": "#/components/schemas/PredictRequest"}
            assert set(content["multipart/form-data"]["schema"]["properties"]) == {"file", *OPTIONS}
        parameters = {p["name"]: p["schema"] for p in document["paths"][paths[-1]]["post"]["parameters"]}
        assert parameters["version"] == {
            "type": "integer",
            "minimum": 1,
            "maximum": 999_999_999,
            "description": "its version",
            "title": "Version",
        }

    def test_every_reference_leads_somewhere(self, document: dict[str, Any]) -> None:
        references = set(find_references(document))
        assert "#/components/schemas/Row" in references
        for reference in references:
            assert reference.removeprefix("#/components/schemas/") in document["components"]["schemas"]

    def test_examples_are_right(self, document: dict[str, Any]) -> None:
        schemas = document["components"]["schemas"]
        for request in schemas["PredictRequest"]["examples"]:
            PredictRequest.model_validate_json(json.dumps(request))
        ErrorBody.model_validate(schemas["ErrorBody"]["example"])

    def test_absent_is_not_null(self, document: dict[str, Any]) -> None:
        properties = document["components"]["schemas"]["PredictRequest"]["properties"]
        for name in ("id", "strategy", "weights", "members", "detail"):
            assert "default" not in properties[name]
            assert "anyOf" not in properties[name]
        assert properties["strategy"]["enum"] == list(STRATEGIES)
        assert document["components"]["schemas"]["PredictRequest"]["additionalProperties"] is False


def find_references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "$ref":
                yield value
            else:
                yield from find_references(value)
    elif isinstance(node, list):
        for item in node:
            yield from find_references(item)
