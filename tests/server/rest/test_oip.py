"""The Open Inference Protocol over REST: its routes, its headers, its errors."""

import gzip
import json
import zlib
from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema_rs
import numpy as np
import pytest
from numpy.testing import assert_allclose

from server.bounds import Bounds
from tests import faulty, tiny
from tests.server.rest import oip_schema
from tests.server.rest.client import Client
from tests.server.rest.served import refusal, serve

X = tiny.rows(2)
INPUT = {"name": "X", "shape": [2, 4], "datatype": "FP32", "data": X.tolist()}
BEHIND = {"name": "X", "shape": [2, 4], "datatype": "FP32", "parameters": {"binary_data_size": 32}}
LENGTH = "Inference-Header-Content-Length"
INFER = "/v2/models/tiny/infer"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    root = tmp_path_factory.mktemp("models")
    tiny.write_ensemble(root, max_batch_size=8)
    tiny.write_ensemble(root, version=2, max_batch_size=8)
    tiny.write_cascade(root)
    tiny.write_regression(root)
    tiny.write_table_ensemble(root)
    faulty.write(root)
    with serve(root, "tiny", versions="all", breaker_failures=1, breaker_cooldown=3600) as client:
        yield client


def said(response: httpx.Response, schema: dict[str, Any]) -> Any:
    """What an answer says, which is what the protocol says that it says."""
    assert response.status_code == 200, response.text
    length = response.headers.get(LENGTH)
    body = json.loads(response.content if length is None else response.content[: int(length)])
    jsonschema_rs.validate(schema, body)
    return body


def ask(client: Client, path: str = INFER, **fields: Any) -> Any:
    return said(client.post(path, json={"inputs": [INPUT], **fields}), oip_schema.INFER_RESPONSE)


class TestDescriptions:
    @pytest.mark.parametrize("path", ["/v2", "/v2/"])
    def test_the_server(self, client: Client, path: str) -> None:
        body = said(client.get(path), oip_schema.SERVER_METADATA)
        assert body["name"] == "committee"
        assert "binary_tensor_data" in body["extensions"]

    @pytest.mark.parametrize("name", ["tiny", "tiny.m1", "regression", "regression.m2", "people", "cascade"])
    def test_models(self, client: Client, name: str) -> None:
        body = said(client.get(f"/v2/models/{name}"), oip_schema.MODEL_METADATA)
        assert body["name"] == name
        assert said(client.get(f"/v2/models/{name}/ready"), oip_schema.MODEL_READY) == {"name": name, "ready": True}
        version = body["versions"][-1]
        assert said(client.get(f"/v2/models/{name}/versions/{version}"), oip_schema.MODEL_METADATA) == body
        said(client.get(f"/v2/models/{name}/versions/{version}/ready"), oip_schema.MODEL_READY)

    def test_health(self, client: Client) -> None:
        said(client.get("/v2/health/live"), oip_schema.LIVE)
        said(client.get("/v2/health/ready"), oip_schema.READY)

    @pytest.mark.parametrize("rest", ["", "/ready", "/versions/9", "/versions/9/ready"])
    def test_of_none(self, client: Client, rest: str) -> None:
        name = "nope" if "9" not in rest else "tiny"
        response = client.get(f"/v2/models/{name}{rest}")
        jsonschema_rs.validate(oip_schema.ERROR, response.json())
        assert refusal(response)[:2] == (404, "not_found")

    @pytest.mark.parametrize("version", ["0", "x", "1.0", "1000000000"])
    def test_of_what_is_no_version(self, client: Client, version: str) -> None:
        assert refusal(client.get(f"/v2/models/tiny/versions/{version}")) == (
            400, "invalid_input", f"version: expected a number from 1 to 999999999; got {version!r}"
        )  # fmt: skip


class TestAnswers:
    def test_of_json(self, client: Client) -> None:
        body = ask(client, id="42")
        assert (body["model_name"], body["model_version"], body["id"]) == ("tiny", "2", "42")
        by_name = {output["name"]: output for output in body["outputs"]}
        mean = tiny.answers(X, 3).mean(axis=0)
        assert_allclose(by_name["probabilities"]["data"], mean.ravel(), rtol=1e-5)
        assert by_name["label"]["data"] == [tiny.CLASSES[k] for k in mean.argmax(axis=1)]
        assert body["parameters"]["strategy"] == "average"

    @pytest.mark.parametrize("name", ["tiny", "tiny.m1", "cascade", "cascade.m2", "regression", "regression.m1"])
    def test_of_every_kind(self, client: Client, name: str) -> None:
        body = ask(client, f"/v2/models/{name}/infer")
        described = client.get(f"/v2/models/{name}").json()["outputs"]
        assert [output["name"] for output in body["outputs"]] == [output["name"] for output in described]
        binary = client.post(
            f"/v2/models/{name}/infer", json={"inputs": [INPUT], "parameters": {"binary_data_output": True}}
        )
        head = said(binary, oip_schema.INFER_RESPONSE)
        sizes = [output["parameters"]["binary_data_size"] for output in head["outputs"]]
        assert sum(sizes) == len(binary.content) - int(binary.headers[LENGTH])

    def test_of_a_table(self, client: Client) -> None:
        inputs = [
            {"name": "age", "shape": [2, 1], "datatype": "INT32", "data": [41, 25]},
            {"name": "job", "shape": [2], "datatype": "BYTES", "data": ["nurse", "cook"]},
        ]
        body = said(client.post("/v2/models/people/infer", json={"inputs": inputs}), oip_schema.INFER_RESPONSE)
        assert body["outputs"][0]["shape"] == [2, 3]

    def test_of_bytes_and_of_nothing_but_bytes(self, client: Client) -> None:
        text = json.dumps({"inputs": [BEHIND]}).encode()
        data = X.astype("<f4").tobytes()
        first = client.post(INFER, content=text + data, headers={LENGTH: str(len(text))})
        assert first.headers["content-type"] == "application/json"
        assert said(first, oip_schema.INFER_RESPONSE)["outputs"] == ask(client)["outputs"]
        raw = client.post(INFER, content=data, headers={LENGTH: "0"})
        assert raw.headers["content-type"] == "application/octet-stream"
        assert all("data" not in output for output in said(raw, oip_schema.INFER_RESPONSE)["outputs"])
        length = int(raw.headers[LENGTH])
        answer = np.frombuffer(raw.content[length : length + 24], "<f4").reshape(2, 3)
        assert_allclose(answer, tiny.answers(X, 3).mean(axis=0), rtol=1e-5)

    @pytest.mark.parametrize(("encoding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
    def test_of_a_compressed_body(self, client: Client, encoding: str, compress: Any) -> None:
        text = json.dumps({"inputs": [INPUT]}).encode()
        headers = {"Content-Encoding": encoding}
        response = client.post(INFER, content=compress(text), headers=headers)
        assert said(response, oip_schema.INFER_RESPONSE) == ask(client)
        for broken in (compress(text)[:-1], text, b""):
            assert refusal(client.post(INFER, content=broken, headers=headers))[:2] == (400, "invalid_input")
        bomb = compress(bytes(Bounds().max_body_bytes + 1))
        assert refusal(client.post(INFER, content=bomb, headers=headers))[:2] == (400, "too_large")

    def test_options_in_query_parameters_and_headers(self, client: Client) -> None:
        by_query = client.post(f"{INFER}?strategy=vote", json={"inputs": [INPUT]}).json()
        assert by_query == ask(client, parameters={"strategy": "vote"})
        assert by_query["parameters"]["strategy"] == "vote"
        ask(client, f"{INFER}?strategy=vote", parameters={"strategy": "vote"})
        clash = client.post(f"{INFER}?strategy=max", json={"inputs": [INPUT], "parameters": {"strategy": "vote"}})
        assert refusal(clash) == (400, "invalid_input", "strategy: given twice, and differently")


class TestErrors:
    @pytest.mark.parametrize(
        ("body", "headers", "status", "said"),
        [
            (b"", {}, 400, "body: "),
            (b"{}", {LENGTH: "-1"}, 400, f"{LENGTH}: expected a number of bytes, once; got '-1'"),
            (b"{}", {LENGTH: "1" * 19}, 400, f"{LENGTH}: expected a number of bytes, once; got '1111"),
            (b"{}", {LENGTH: "3"}, 400, f"{LENGTH}: expected at most the body's 2 bytes; got 3"),
            (b"{}", {"Content-Encoding": "br"}, 400, "Content-Encoding: expected gzip"),
            (b"{}", {"X-Request-Deadline-Ms": "x"}, 400, "X-Request-Deadline-Ms: expected milliseconds"),
            (
                json.dumps({"inputs": [INPUT], "outputs": [{"name": "x"}]}).encode(),
                {},
                400,
                "outputs: expected some of",
            ),
        ],
    )
    def test_refused(self, client: Client, body: bytes, headers: dict[str, str], status: int, said: str) -> None:
        response = client.post(INFER, content=body, headers=headers)
        jsonschema_rs.validate(oip_schema.ERROR, response.json())
        came = refusal(response)
        assert came[0] == status
        assert came[2].startswith(said)

    def test_too_many_rows(self, client: Client) -> None:
        many = {**INPUT, "shape": [9, 4], "data": [0] * 36}
        assert refusal(client.post(INFER, json={"inputs": [many]})) == (
            400, "too_large", "input 'X': expected at most 8 rows; got 9"
        )  # fmt: skip

    def test_shared_memory(self, client: Client) -> None:
        shared = {**BEHIND, "parameters": {"shared_memory_region": "r", "shared_memory_byte_size": 32}}
        assert refusal(client.post(INFER, json={"inputs": [shared]}))[:2] == (400, "unsupported")

    def test_a_deadline_that_is_over(self, client: Client) -> None:
        hanging = {**INPUT, "shape": [1, 4], "data": [0, 0, 0, faulty.HANG]}
        body = {"inputs": [hanging], "parameters": {"timeout": 30_000, "on_failure": "fail"}}
        assert refusal(client.post("/v2/models/faulty/infer", json=body))[0] == 503

    def test_a_member_that_is_left_alone(self, client: Client) -> None:
        failing = {**INPUT, "shape": [1, 4], "data": [0, 0, 0, faulty.RAISE]}
        faulty.blame_members(client.app.state.engine)
        client.post("/v2/models/faulty/infer", json={"inputs": [failing]})
        ready = client.get("/v2/models/faulty.m3/ready")
        assert refusal(ready) == (503, "not_ready", "model 'faulty.m3': too few members work")
        assert client.get("/v2/models/faulty/ready").status_code == 200
