"""Statistics as Triton's clients ask for them, of a real server with several workers."""

from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from tests.server.processes import BODY, Server, running
from tests.tiny import write_ensemble

COUNT: Any = {"type": "integer", "minimum": 0}
DURATION: Any = {
    "type": "object",
    "properties": {"count": COUNT, "ns": COUNT},
    "required": ["count", "ns"],
    "additionalProperties": False,
}
STATISTICS: Any = {
    "type": "object",
    "required": ["model_stats"],
    "properties": {
        "model_stats": {
            "type": "array",
            "items": {
                "type": "object",
                "required": [
                    *("name", "version", "last_inference", "inference_count", "execution_count"),
                    *("inference_stats", "batch_stats"),
                ],
                "properties": {
                    **dict.fromkeys(("last_inference", "inference_count", "execution_count"), COUNT),
                    "inference_stats": {
                        "type": "object",
                        "required": ["success", "fail", "queue", "compute_input", "compute_infer", "compute_output"],
                        "additionalProperties": DURATION,
                    },
                    "batch_stats": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "required": ["batch_size", "compute_infer"],
                            "properties": {"batch_size": COUNT, "compute_infer": DURATION},
                        },
                    },
                },
            },
        }
    },
}
"""As Triton's extension for statistics has it."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Two workers, each asked over connections of its own."""
    root = tmp_path_factory.mktemp("asked")
    write_ensemble(root / "models")
    write_ensemble(root / "models", version=2)
    with running(root, COMMITTEE_WORKERS="2", COMMITTEE_VERSIONS="all", COMMITTEE_GRPC_PORT="0") as server:
        for _ in range(20):
            assert server.request("POST", "/predict", BODY)[0] == 200
        assert server.request("POST", "/predict?strategy=nope", BODY)[0] == 400
        assert server.request("POST", "/v1/ensembles/tiny/versions/1/predict?members=m1", BODY)[0] == 200
        yield server


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[triton.InferenceServerClient]:
    client = triton.InferenceServerClient(f"127.0.0.1:{server.port}")
    yield client
    client.close()


def told(client: triton.InferenceServerClient, *of: str) -> dict[tuple[str, str], Any]:
    body = client.get_inference_statistics(*of)
    jsonschema_rs.validate(STATISTICS, body)
    return {(model["name"], model["version"]): model for model in body["model_stats"]}


def test_models_and_versions(client: triton.InferenceServerClient) -> None:
    assert set(told(client)) == set(told(client, "tiny")) == {("tiny", "1"), ("tiny", "2")}
    assert set(told(client, "tiny.m1", "1")) == {("tiny.m1", "1")}
    with pytest.raises(InferenceServerException, match="no model 'nope'"):
        told(client, "nope")
    with pytest.raises(InferenceServerException, match="version: expected a number"):
        told(client, "tiny", "x")
    assert "statistics" in client.get_server_metadata()["extensions"]


def test_they_are_of_all_workers_and_agree_with_the_metrics(
    server: Server, client: triton.InferenceServerClient
) -> None:
    metrics, found = server.metrics(), told(client)
    model = found["tiny", "2"]
    stats = model["inference_stats"]
    assert (model["inference_count"], model["execution_count"]) == (20, 20)
    assert [batch["batch_size"] for batch in model["batch_stats"]] == [1]
    assert (stats["success"]["count"], stats["fail"]["count"]) == (20, 1)
    assert found["tiny", "1"]["inference_count"] == 1
    labels = '{model="tiny",version="2"}'
    assert metrics[f"nv_inference_request_success{labels}"] == 20
    assert metrics['nv_inference_request_failure{model="tiny",reason="OTHER",version="2"}'] == 1
    assert metrics[f"nv_inference_count{labels}"] == 20
    assert metrics[f"nv_inference_exec_count{labels}"] == 20
    for part, name in (
        ("success", "request"),
        ("queue", "queue"),
        ("compute_input", "compute_input"),
        ("compute_infer", "compute_infer"),
        ("compute_output", "compute_output"),
    ):
        assert stats[part]["count"] > 0
        shown = metrics[f"nv_inference_{name}_duration_us{labels}"]
        assert shown == pytest.approx(stats[part]["ns"] / 1000)
    assert metrics['committee_batch_rows_count{ensemble="tiny",version="2"}'] == 20


def test_of_a_member(client: triton.InferenceServerClient) -> None:
    alone = told(client, "tiny.m1", "1")["tiny.m1", "1"]
    assert (alone["inference_count"], alone["execution_count"]) == (1, 1)
    assert alone["inference_stats"]["compute_infer"]["count"] == 1
    together = told(client, "tiny.m1", "2")["tiny.m1", "2"]
    assert (together["inference_count"], together["inference_stats"]["compute_infer"]["count"]) == (20, 0)
