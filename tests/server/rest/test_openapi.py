"""The OpenAPI document says what the routes take and answer, in every place alike."""

import json
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import pytest

from server.codec.media import TYPES
from server.codec.options import DETAILS, OPTIONS, RequestOptions, parse_deadline, parse_options
from server.fusion import CASCADE, REGRESSION, STRATEGIES
from server.rest.answer import FORMS
from server.rest.errors import STATUSES
from server.rest.schemas import ErrorBody, PredictRequest
from tests.server.rest.client import Client

EVERY_STRATEGY = [*STRATEGIES, "mean", CASCADE]


@pytest.fixture(scope="module")
def document(client: Client) -> dict[str, Any]:
    document: dict[str, Any] = client.get("/openapi.json").json()
    return document


@pytest.fixture(scope="module")
def predict(document: dict[str, Any]) -> dict[str, Any]:
    """The operation of `POST /predict`."""
    operation: dict[str, Any] = document["paths"]["/predict"]["post"]
    return operation


def query_of(operation: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {parameter["name"]: parameter for parameter in operation["parameters"] if parameter["in"] == "query"}


def test_predict(document: dict[str, Any]) -> None:
    paths = [path for path in document["paths"] if path.endswith("/predict")]
    assert len(paths) == 3
    for path in paths:
        operation = document["paths"][path]["post"]
        assert set(operation["responses"]) == {
            "200",
            "400",
            "401",
            "403",
            "404",
            "406",
            "413",
            "415",
            "500",
            "503",
            "504",
        }
        assert {int(status) for status in operation["responses"]} - {200, 406} <= set(STATUSES.values())
        assert set(operation["responses"]["200"]["content"]) == set(FORMS)
        assert set(query_of(operation)) == set(OPTIONS)
        content = operation["requestBody"]["content"]
        assert set(content) == set(TYPES)
        assert content["application/json"]["schema"] == {"$ref": "#/components/schemas/PredictRequest"}
    parameters = {p["name"]: p["schema"] for p in document["paths"][paths[-1]]["post"]["parameters"]}
    assert parameters["version"] == {
        "type": "integer",
        "minimum": 1,
        "maximum": 999_999_999,
        "description": "its version",
        "title": "Version",
    }


def test_an_option_stands_in_every_place_that_has_options(document: dict[str, Any], predict: dict[str, Any]) -> None:
    names = [field.name for field in fields(RequestOptions)]
    assert list(OPTIONS) == names
    assert list(query_of(predict)) == names
    assert [*PredictRequest.model_fields] == ["instances", "id", *names]
    assert list(document["components"]["schemas"]["PredictRequest"]["properties"]) == ["instances", "id", *names]
    form = predict["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"]
    assert list(form) == ["file", *names]
    for name, parameter in query_of(predict).items():
        assert form[name] == {**parameter["schema"], "description": parameter["description"]}
        assert parameter["required"] is False


@pytest.mark.parametrize(
    "name", ["strategy", "cascade_threshold", "deadline_ms", "quorum", "on_failure", "abstain_below"]
)
def test_an_option_has_the_same_limits_in_the_query_and_in_json(
    document: dict[str, Any], predict: dict[str, Any], name: str
) -> None:
    said = dict(document["components"]["schemas"]["PredictRequest"]["properties"][name])
    expected = {key: said[key] for key in said if key not in ("title", "description", "minLength")}
    assert query_of(predict)[name]["schema"] == expected


@pytest.mark.parametrize(
    ("name", "limits"),
    [
        ("strategy", {"type": "string", "enum": EVERY_STRATEGY}),
        ("weights", {"type": "string"}),
        ("members", {"type": "string"}),
        ("detail", {"type": "string"}),
        ("cascade_threshold", {"type": "number", "minimum": 0, "maximum": 1}),
        ("deadline_ms", {"type": "number", "exclusiveMinimum": 0, "maximum": 3_600_000}),
        ("quorum", {"type": "integer", "minimum": 1, "maximum": 256}),
        ("on_failure", {"type": "string", "enum": ["fail", "degrade"]}),
        ("abstain_below", {"type": "number", "minimum": 0, "maximum": 1}),
    ],
)
def test_the_limits_of_an_option(predict: dict[str, Any], name: str, limits: dict[str, Any]) -> None:
    assert query_of(predict)[name]["schema"] == limits


def test_the_strategies_are_those_of_every_task() -> None:
    assert {*STRATEGIES, *REGRESSION, CASCADE} == set(EVERY_STRATEGY)


def test_the_details(document: dict[str, Any], predict: dict[str, Any]) -> None:
    detail = document["components"]["schemas"]["PredictRequest"]["properties"]["detail"]
    assert detail["items"]["enum"] == list(DETAILS)
    assert query_of(predict)["detail"]["description"] == f"What to add to each prediction: {', '.join(DETAILS)}."


def test_the_header_of_the_deadline(predict: dict[str, Any]) -> None:
    [header] = [parameter for parameter in predict["parameters"] if parameter["in"] == "header"]
    assert (header["name"], header["required"]) == ("X-Request-Deadline-Ms", False)
    assert parse_deadline([header["example"]]) == 50


def test_the_headers_of_an_answer_that_is_not_json(predict: dict[str, Any]) -> None:
    assert set(predict["responses"]["200"]["headers"]) == {
        "Committee-Model",
        "Committee-Version",
        "Committee-Strategy",
        "Committee-Members",
        "Committee-Degraded",
        "Committee-Missing",
        "Committee-Id",
    }


def test_readiness(document: dict[str, Any]) -> None:
    operation = document["paths"]["/v2/health/ready"]["get"]
    assert set(operation["responses"]) == {"200", "503"}
    assert set(document["components"]["schemas"]["Ready"]["properties"]) == {"ready", "degraded"}


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    references = set(find_references(document))
    assert {"#/components/schemas/Row", "#/components/schemas/RowEstimate"} <= references
    for reference in references:
        assert reference.removeprefix("#/components/schemas/") in document["components"]["schemas"]


def test_examples_are_right(document: dict[str, Any], predict: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    for request in schemas["PredictRequest"]["examples"]:
        PredictRequest.model_validate_json(json.dumps(request))
    ErrorBody.model_validate(schemas["ErrorBody"]["example"])
    given = {name: str(option["example"]) for name, option in query_of(predict).items() if "example" in option}
    assert set(OPTIONS) - set(given) == {"cascade_threshold", "deadline_ms", "abstain_below"}
    parse_options(list(given.items()), where="query")


def test_absent_is_not_null(document: dict[str, Any]) -> None:
    properties = document["components"]["schemas"]["PredictRequest"]["properties"]
    for name in ("id", *OPTIONS):
        assert "default" not in properties[name]
        assert "anyOf" not in properties[name]
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
