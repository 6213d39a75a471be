"""Every example of the OpenAPI document is a request that the server answers which handed it out."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from server.keys import make_key
from server.rest import openapi_examples
from tests import tiny
from tests.server.rest.client import Client
from tests.server.rest.served import answer, refusal, serve

ADMIN, ADMIN_LINE = make_key("ops", ["admin", "predict"])
KEY = {"X-Api-Key": ADMIN}
WRITERS: dict[str, Callable[[Path], Any]] = {
    "tiny": tiny.write_ensemble,
    "regression": tiny.write_regression,
    "people": tiny.write_table_ensemble,
    "pictures": tiny.write_picture_ensemble,
    "alone": lambda root: tiny.write_ensemble(root, name="alone", n_members=1, version=7),
}


@pytest.fixture(scope="module", params=WRITERS)
def client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """Under control, so that there are all the routes that there can be."""
    root = tmp_path_factory.mktemp("examples")
    WRITERS[request.param](root / "models")
    (root / "keys").write_text(ADMIN_LINE)
    controlled = {"model_control": "explicit", "keys_file": root / "keys"}
    with serve(root / "models", request.param, **controlled) as client:
        yield client


@pytest.fixture(scope="module")
def document(client: Client) -> dict[str, Any]:
    document: dict[str, Any] = client.get("/openapi.json").json()
    return document


def asked(document: dict[str, Any], *, prefilled: bool) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Method, path and body of every operation, unloads last; with the options that a browser fills in, or none."""
    for path, operations in sorted(document["paths"].items(), key=lambda item: "unload" in item[0]):
        for method, operation in operations.items():
            given = [one for one in operation.get("parameters", ()) if "example" in one]
            filled = path
            for one in given:
                if one["in"] == "path":
                    filled = filled.replace(f"{{{one['name']}}}", str(one["example"]))
            query = {one["name"]: one["example"] for one in given if one["in"] == "query" and prefilled}
            for body in bodies(document, operation):
                yield method, filled, {"params": query, **({} if body is None else {"json": body})}


def bodies(document: dict[str, Any], operation: dict[str, Any]) -> list[Any]:
    media = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if media is None:
        return [None]
    if "example" in media:
        return [media["example"]]
    name = media["schema"]["$ref"].rpartition("/")[2]
    return list(document["components"]["schemas"][name]["examples"])


@pytest.mark.parametrize("prefilled", [False, True])
def test_they_are_answered(client: Client, document: dict[str, Any], prefilled: bool) -> None:
    count = 0
    for method, path, request in asked(document, prefilled=prefilled):
        if request["params"] and {"strategy", "parameters"} & set(request.get("json", {})):
            continue  # an option stands in one place
        response = client.request(method, path, headers=KEY, **request)
        assert response.status_code == 200, (method, path, request, response.text)
        count += 1
    assert count >= len(document["paths"]) == 30
    [load] = [path for _, path, _ in asked(document, prefilled=False) if path.endswith("/load")]
    answer(client.post(load, headers=KEY))


def test_errors_by_code(client: Client, document: dict[str, Any]) -> None:
    """An error answer has a status and a code that stand in the document."""
    refused = [
        ("/predict", {"instances": []}),
        ("/predict", {"instances": [0], "strategy": "nope"}),
        ("/v1/ensembles/{name}/predict", {}),
        ("/v2/models/{model}/infer", {}),
        ("/v1/models/{model}:predict", {}),
    ]
    for path, body in refused:
        status, code, _ = refusal(
            client.post(path.replace("{name}", "x").replace("{model}", "x"), json=body, headers=KEY)
        )
        assert f"`{code}`" in document["paths"][path]["post"]["responses"][str(status)]["description"]
    status, code, _ = refusal(client.post("/predict", json={}))
    assert (status, code) == (401, "unauthorized")
    said = document["paths"]["/predict"]["post"]["responses"]
    assert "`unauthorized`" in said["401"]["description"]
    assert all(f"`{name}`" in said["503"]["description"] for name in ("overloaded", "not_ready", "quorum_missed"))
    assert "`deadline_exceeded`" in said["504"]["description"]
    infer = document["paths"]["/v2/models/{model}/infer"]["post"]["responses"]
    assert "`deadline_exceeded`" in infer["503"]["description"]
    assert "`too_large`" in infer["400"]["description"]


def test_a_long_row_is_not_written_out(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openapi_examples, "MOST_VALUES", 0)
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    for name in ("PredictRequest", "InferRequest", "TfPredictRequest"):
        assert "examples" not in schemas[name]
