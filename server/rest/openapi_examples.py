"""The examples of the OpenAPI document, made for what is served: each is a request that this server answers."""

from collections.abc import Mapping
from typing import Any

from server.engine import Engine
from server.manifest import Manifest
from server.oip.models import describe, find_model
from server.rest.sample import row_of, size_of, value_of
from server.rest.tf_schemas import SIGNATURE

MOST_VALUES = 4096
"""Of a row that is written out; of a longer one there are no examples in JSON."""


def fit(document: dict[str, Any], engine: Engine) -> None:
    """Put in the place of its examples those for the ensemble that is asked by default."""
    if engine.default not in engine.repository.names():
        return
    manifest = engine.ensemble().manifest
    output = describe(engine, find_model(engine, engine.default, None)).outputs[0].name
    members = [member.name for member in manifest.members][:2]
    weights = dict(zip(members, (0.7, 0.3), strict=False))
    said = {"weights": ",".join(f"{name}:{weight}" for name, weight in weights.items()), "members": ",".join(members)}
    bodies = {
        "PredictRequest": _predict(manifest, weights),
        "InferRequest": _infer(manifest, {"strategy": "weighted", **said}, output),
        "TfPredictRequest": _tensorflow(manifest),
    }
    for name, examples in bodies.items():
        document["components"]["schemas"][name].pop("examples")
        if size_of(manifest.inputs) <= MOST_VALUES:
            document["components"]["schemas"][name]["examples"] = examples
    paths: dict[str, list[Any]] = {
        "name": [manifest.name],
        "model": [manifest.name, f"{manifest.name}.{members[0]}"],
        "version": [manifest.version],
    }
    for operations in document["paths"].values():
        for operation in operations.values():
            operation["parameters"] = [_parameter(one, said, paths) for one in operation.get("parameters", ())]


def _parameter(parameter: Mapping[str, Any], said: Mapping[str, str], paths: Mapping[str, list[Any]]) -> dict[str, Any]:
    name, schema = parameter["name"], parameter["schema"]
    if parameter["in"] != "path":
        return {**parameter, "example": said[name]} if name in said else dict(parameter)
    examples = [str(one) if schema["type"] == "string" else one for one in paths[name]]
    if "examples" in schema:
        schema = {**schema, "examples": examples}
    return {**parameter, "schema": schema, "example": examples[0]}


def _predict(manifest: Manifest, weights: Mapping[str, float]) -> list[dict[str, Any]]:
    row = row_of(manifest.inputs)
    options = {"strategy": "weighted", "weights": weights, "members": list(weights)}
    detail = ["members", "uncertainty"]
    return [{"instances": [row]}, {"instances": [row, row], "id": "batch-7", **options, "detail": detail}]


def _infer(manifest: Manifest, parameters: Mapping[str, str], output: str) -> list[dict[str, Any]]:
    tensors = [
        {"name": spec.name, "shape": [1, *spec.shape], "datatype": spec.datatype, "data": _flat(value_of(spec))}
        for spec in manifest.inputs
    ]
    wanted = [{"name": output}, {"name": "member_" + output}]
    return [{"inputs": tensors}, {"id": "42", "parameters": parameters, "inputs": tensors, "outputs": wanted}]


def _tensorflow(manifest: Manifest) -> list[dict[str, Any]]:
    columns = {spec.name: [value_of(spec)] * 2 for spec in manifest.inputs}
    return [{"instances": [row_of(manifest.inputs)]}, {"signature_name": SIGNATURE, "inputs": columns}]


def _flat(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
