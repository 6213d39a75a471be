"""What the OpenAPI document says of the forms of other servers: its examples are requests that are answered."""

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from server.codec.media import JSON, RAW
from server.codec.options import OPTIONS
from server.rest import oip_schemas, tf_schemas
from server.rest.errors import OIP_STATUSES, STATUSES
from tests import tiny
from tests.server.rest.client import Client
from tests.server.rest.served import answer, serve

INFER = ("/v2/models/{model}/infer", "/v2/models/{model}/versions/{version}/infer")
PREDICT = ("/v1/models/{model}:predict", "/v1/models/{model}/versions/{version}:predict")
DESCRIBED: dict[str, type[BaseModel]] = {
    "/v2": oip_schemas.ServerMetadata,
    "/v2/models/{model}": oip_schemas.ModelMetadata,
    "/v2/models/{model}/versions/{version}": oip_schemas.ModelMetadata,
    "/v2/models/{model}/config": oip_schemas.ModelConfiguration,
    "/v2/models/{model}/versions/{version}/config": oip_schemas.ModelConfiguration,
    "/v2/models/{model}/ready": oip_schemas.ModelReady,
    "/v2/models/{model}/versions/{version}/ready": oip_schemas.ModelReady,
    "/v2/models/stats": oip_schemas.Statistics,
    "/v2/models/{model}/stats": oip_schemas.Statistics,
    "/v2/models/{model}/versions/{version}/stats": oip_schemas.Statistics,
    "/v1/models/{model}": tf_schemas.ModelStatus,
    "/v1/models/{model}/versions/{version}": tf_schemas.ModelStatus,
    "/v1/models/{model}/metadata": tf_schemas.SignatureMetadata,
    "/v1/models/{model}/versions/{version}/metadata": tf_schemas.SignatureMetadata,
}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """Of the ensemble that the paths' examples name."""
    root = tmp_path_factory.mktemp("models")
    tiny.write_ensemble(root, name="fashion", version=3)
    with serve(root, "fashion") as client:
        yield client


@pytest.fixture(scope="module")
def document(client: Client) -> dict[str, Any]:
    document: dict[str, Any] = client.get("/openapi.json").json()
    return document


def path_of(document: dict[str, Any], path: str, method: str) -> str:
    """With the examples of its parameters."""
    for parameter in document["paths"][path][method].get("parameters", ()):
        if parameter["in"] == "path":
            examples = parameter.get("examples") or parameter["schema"]["examples"]
            path = path.replace(f"{{{parameter['name']}}}", examples[0])
    return path


def test_every_route_of_theirs_is_here(document: dict[str, Any]) -> None:
    found = {path for path in document["paths"] if path.startswith(("/v2", "/v1/models")) and "health" not in path}
    assert found == {*INFER, *PREDICT, *DESCRIBED}


@pytest.mark.parametrize("path", INFER)
def test_the_examples_of_infer_requests_are_answered(client: Client, document: dict[str, Any], path: str) -> None:
    examples = document["components"]["schemas"]["InferRequest"]["examples"]
    for example in examples:
        oip_schemas.InferRequest.model_validate(example)
        body = answer(client.post(path_of(document, path, "post"), json=example))
        said = oip_schemas.InferResponse.model_validate(body)
        names = [output["name"] for output in example.get("outputs", [])]
        assert [output.name for output in said.outputs][: len(names)] == names
    assert len(examples) == 2


@pytest.mark.parametrize("path", PREDICT)
def test_the_examples_of_tensorflow_s_requests_are_answered(
    client: Client, document: dict[str, Any], path: str
) -> None:
    examples = document["components"]["schemas"]["TfPredictRequest"]["examples"]
    for example in examples:
        tf_schemas.TfPredictRequest.model_validate(example)
        tf_schemas.TfPredictResponse.model_validate(answer(client.post(path_of(document, path, "post"), json=example)))
    assert len(examples) == 2


@pytest.mark.parametrize("path", DESCRIBED)
def test_what_is_described(client: Client, document: dict[str, Any], path: str) -> None:
    asked = path if "{" not in path else path_of(document, path, "get")
    DESCRIBED[path].model_validate(answer(client.get(asked)), strict=True)


@pytest.mark.parametrize("path", [*INFER, *PREDICT])
def test_options_and_statuses(document: dict[str, Any], path: str) -> None:
    operation = document["paths"][path]["post"]
    query = [parameter["name"] for parameter in operation["parameters"] if parameter["in"] == "query"]
    assert query == [name for name in OPTIONS if name != "detail"]
    statuses = {int(status) for status in operation["responses"]} - {200}
    assert statuses <= set((OIP_STATUSES if path in INFER else STATUSES).values())
    content = operation["requestBody"]["content"]
    assert set(content) == ({JSON, RAW} if path in INFER else {JSON})


def test_parameters_are_the_options(document: dict[str, Any]) -> None:
    said = document["components"]["schemas"]["InferParameters"]["properties"]
    assert set(said) == {*OPTIONS, "timeout", "binary_data_output"} - {"detail"}
