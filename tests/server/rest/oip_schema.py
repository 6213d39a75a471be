"""JSON schemas of the Open Inference Protocol's answers, as its specification has them.

Where its own OpenAPI file differs from its text, the text counts: `data` is not there for a tensor whose bytes follow
the JSON, null stands in `data` for NaN, and parameters are scalars. The health of server and model is said in JSON too,
which KServe's client reads.
"""

from typing import Any

DATATYPES = [
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64", "BYTES"
]  # fmt: skip
TEXT = {"type": "string"}
PARAMETERS = {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}}


def _object(required: dict[str, Any], **optional: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {**required, **optional}, "required": list(required)}


def _array(items: Any) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _tensor(least: int, **optional: Any) -> dict[str, Any]:
    shape = _array({"type": "integer", "minimum": least})
    return _object({"name": TEXT, "datatype": {"enum": DATATYPES}, "shape": shape}, **optional)


SERVER_METADATA = _object({"name": TEXT, "version": TEXT, "extensions": _array(TEXT)})
MODEL_METADATA = _object(
    {"name": TEXT, "platform": TEXT, "inputs": _array(_tensor(-1)), "outputs": _array(_tensor(-1))},
    versions=_array(TEXT),
)
LIVE = _object({"live": {"const": True}})
READY = _object({"ready": {"const": True}})
MODEL_READY = _object({"name": TEXT, "ready": {"const": True}})
ERROR = _object({"error": TEXT})
INFER_RESPONSE = _object(
    {
        "model_name": TEXT,
        "outputs": _array(
            {
                **_tensor(0, parameters=PARAMETERS, data=_array({"type": ["number", "string", "boolean", "null"]})),
                "oneOf": [
                    {"required": ["data"]},
                    {
                        "required": ["parameters"],
                        "properties": {"parameters": _object({"binary_data_size": {"type": "integer"}})},
                    },
                ],
            }
        ),
    },
    model_version=TEXT,
    id=TEXT,
    parameters=PARAMETERS,
)
