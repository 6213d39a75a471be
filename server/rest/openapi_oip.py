"""What the OpenAPI document says of bodies in the forms of other servers, which FastAPI does not parse."""

from typing import Any

from server.codec.media import JSON, RAW
from server.rest.openapi import DEADLINE_HEADER, OPTIONS, binary

JSON_LENGTH: dict[str, Any] = {
    "schema": {"type": "integer", "minimum": 0},
    "description": "The length of the JSON, if bytes of tensors follow it.",
}

_OPTIONS = [option for option in OPTIONS if option["name"] != "detail"]

INFER_REQUEST: dict[str, Any] = {
    "parameters": [
        *_OPTIONS,
        DEADLINE_HEADER,
        {
            "name": "Inference-Header-Content-Length",
            "in": "header",
            "required": False,
            "description": f"{JSON_LENGTH['description']} 0: the body is nothing but the rows of the one input.",
            "schema": JSON_LENGTH["schema"],
        },
    ],
    "requestBody": {
        "required": True,
        "content": {
            JSON: {"schema": {"$ref": "#/components/schemas/InferRequest"}},
            RAW: binary(
                "The same JSON, and behind it the bytes of those inputs that have a binary_data_size, in order."
            ),
        },
    },
}

TF_REQUEST: dict[str, Any] = {
    "parameters": [*_OPTIONS, DEADLINE_HEADER],
    "requestBody": {
        "required": True,
        "content": {JSON: {"schema": {"$ref": "#/components/schemas/TfPredictRequest"}}},
    },
}

INFER_RESPONSE: dict[str, Any] = {
    "description": "The outputs that were asked for, or all.",
    "content": {RAW: binary("The same JSON, and behind it the bytes of those outputs that were to come as bytes.")},
    "headers": {"Inference-Header-Content-Length": JSON_LENGTH},
}
