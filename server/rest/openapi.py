"""The OpenAPI document: what FastAPI knows of the routes, and what it cannot know of bodies that it does not parse."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from server.codec.media import CSV, FORM, JPEG, JSON, NPY, PNG, RAW, WEBP
from server.codec.options import DETAILS, LONGEST_MS, MOST_MEMBERS, ON_FAILURE
from server.rest.errors import codes_of
from server.rest.oip_schemas import InferRequest
from server.rest.openapi_examples import fit
from server.rest.schemas import STRATEGY_ENUM, PredictRequest
from server.rest.tf_schemas import TfPredictRequest


def document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document of the app's routes."""
    schema = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    schema["components"]["schemas"].update(request_definitions())
    if app.state.ready:
        fit(schema, app.state.engine)
    guarded = app.state.access.has_keys
    if guarded:
        schema["components"]["securitySchemes"] = _KEYS
    for path, operations in schema["paths"].items():
        for operation in operations.values():
            if guarded and not _OPEN & set(operation["tags"]):
                operation["security"] = [{name: []} for name in _KEYS]
            # FastAPI's own answer to a malformed path, which this server answers with 400.
            operation["responses"].pop("422", None)
            for status, response in operation["responses"].items():
                if codes := codes_of(int(status), path):
                    response["description"] += f" Codes: {', '.join(f'`{code}`' for code in codes)}."
    for name in ("HTTPValidationError", "ValidationError"):
        schema["components"]["schemas"].pop(name, None)
    return schema


_OPEN = {"health", "metrics"}
"""Tags of the routes that ask for no key."""
_KEYS: dict[str, Any] = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key."},
    "header": {
        "type": "apiKey",
        "in": "header",
        "name": "X-Api-Key",
        "description": "The same in a header of its own.",
    },
}


def _parameter(name: str, description: str, example: object = None, **schema: Any) -> dict[str, Any]:
    """A browser fills its form with the examples: those that there are have to fit together."""
    return {
        "name": name,
        "in": "query",
        "required": False,
        "description": description,
        **({} if example is None else {"example": example}),
        "schema": {"type": "string", **schema},
    }


def binary(description: str) -> dict[str, Any]:
    return {"schema": {"type": "string", "format": "binary", "description": description}}


_SHARE: dict[str, Any] = {"type": "number", "minimum": 0, "maximum": 1}
OPTIONS = [
    _parameter("strategy", "The fusion strategy; else the ensemble's own.", "weighted", **STRATEGY_ENUM),
    _parameter("weights", "By member, at any scale; for strategies that take weights.", "cnn:0.7,xgb:0.3"),
    _parameter("members", "Only these take part, or, each after a `-`, all but these; else all.", "cnn,xgb"),
    _parameter("detail", f"What to add to each prediction: {', '.join(DETAILS)}.", "members"),
    _parameter("cascade_threshold", "How sure an answer must be for a cascade to stop: `0.9`.", **_SHARE),
    _parameter(
        "deadline_ms",
        "Milliseconds from when the request came: whoever has not answered by then has no part in it.",
        type="number",
        exclusiveMinimum=0,
        maximum=LONGEST_MS,
    ),
    _parameter(
        "quorum",
        "The least number of members that make an answer; else the ensemble's own, or a majority of those asked.",
        1,
        type="integer",
        minimum=1,
        maximum=MOST_MEMBERS,
    ),
    _parameter(
        "on_failure",
        "Whether a member that fails fails the request, or has no part in its answer.",
        "degrade",
        enum=list(ON_FAILURE),
    ),
    _parameter("abstain_below", "The label is null where the confidence is lower: `0.8`.", **_SHARE),
]
DEADLINE_HEADER: dict[str, Any] = {
    **_parameter("X-Request-Deadline-Ms", "As `deadline_ms`; the nearer of the two counts.", "50"),
    "in": "header",
}

_FORM_SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": "Every part with a file name holds rows: a picture one, an .npy or .csv file any number. The other "
    "parts are options, written as in the query.",
    "properties": {
        "file": {"type": "array", "items": {"type": "string", "format": "binary"}, "minItems": 1},
        **{option["name"]: {**option["schema"], "description": option["description"]} for option in OPTIONS},
    },
    "required": ["file"],
}

_PICTURE = "A picture is one row: upright, of the input's height and width, grey or RGB, values 0 to 255."

PREDICT_REQUEST: dict[str, Any] = {
    "parameters": [*OPTIONS, DEADLINE_HEADER],
    "requestBody": {
        "required": True,
        "content": {
            JSON: {"schema": {"$ref": "#/components/schemas/PredictRequest"}},
            **{type_: binary(_PICTURE) for type_ in (PNG, JPEG, WEBP)},
            FORM: {"schema": _FORM_SCHEMA},
            RAW: binary("Rows of float32, little-endian; with `; dtype=uint8`, of bytes. Or an .npy file."),
            NPY: binary("An .npy file of numbers: rows in any form that JSON has for them, or one row."),
            CSV: {
                "schema": {
                    "type": "string",
                    "description": "Of a table: a first line with the columns' names. Else: numbers, no such line.",
                }
            },
        },
    },
}
"""For the predict routes' `openapi_extra`: FastAPI does not see a body that it does not parse."""

PREDICT_RESPONSE: dict[str, Any] = {
    "description": "One prediction a row. JSON has all that there is to say; the others hold the probabilities.",
    "content": {
        RAW: binary("The fused probabilities `(n, n_classes)` as float32, little-endian."),
        NPY: binary("The same as an .npy file."),
    },
    "headers": {
        name: {"description": f"{meaning} Not with JSON, which says it itself.", "schema": {"type": "string"}}
        for name, meaning in (
            ("Committee-Model", "The ensemble."),
            ("Committee-Version", "Its version."),
            ("Committee-Strategy", "The fusion strategy."),
            ("Committee-Members", "Who took part, with which weight: `cnn:0.7,xgb:0.3`."),
            ("Committee-Degraded", "Whether members are missing that should have taken part."),
            ("Committee-Missing", "If there are any, which and why: `cnn:deadline`."),
            ("Committee-Id", "The request's id, percent-encoded, if it had one."),
        )
    },
}
"""For the predict routes' `responses`."""


def request_definitions() -> dict[str, Any]:
    """The bodies of requests and what they refer to, for the components of the OpenAPI document."""
    definitions: dict[str, Any] = {}
    for model in (PredictRequest, InferRequest, TfPredictRequest):
        schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
        definitions |= {**schema.pop("$defs", {}), model.__name__: schema}
    return definitions
