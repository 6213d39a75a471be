"""What is said of the server and its models."""

import grpc
import pytest
import tritonclient.grpc as triton
from tritonclient.grpc import model_config_pb2, service_pb2
from tritonclient.utils import InferenceServerException

from tests import tiny
from tests.server.processes import until
from tests.server.rpc.served import RpcServed, infer, refusal

ANSWERED = 'committee_grpc_requests_total{method="ServerLive",status="OK"}'


def test_live_and_ready(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("tiny")
    assert client.is_model_ready("tiny", "1")
    assert client.is_model_ready("tiny.m1")
    assert not client.is_model_ready("nobody")


def test_the_server(client: triton.InferenceServerClient) -> None:
    said = client.get_server_metadata()
    assert (said.name, said.version) == ("committee", "0.1.0")
    assert {"binary_tensor_data", "statistics", "model_configuration"} <= set(said.extensions)


def test_metadata(client: triton.InferenceServerClient) -> None:
    said = client.get_model_metadata("tiny", as_json=True)
    assert (said["name"], said["versions"], said["platform"]) == ("tiny", ["1", "2"], "committee")
    assert said["inputs"] == [{"name": "X", "datatype": "FP32", "shape": ["-1", "4"]}]
    assert said["outputs"][0] == {"name": "probabilities", "datatype": "FP32", "shape": ["-1", "3"]}
    with pytest.raises(InferenceServerException, match="no model"):
        client.get_model_metadata("nobody")


def test_configuration(client: triton.InferenceServerClient) -> None:
    said = client.get_model_config("people").config
    assert (said.name, said.backend, said.platform) == ("people", "committee", "committee")
    assert said.max_batch_size > 0
    assert [(given.name, given.data_type, list(given.dims), given.optional) for given in said.input] == [
        ("age", model_config_pb2.TYPE_FP32, [1], True),
        ("job", model_config_pb2.TYPE_STRING, [1], False),
    ]
    assert (said.output[0].name, list(said.output[0].dims)) == ("probabilities", [3])
    assert said.parameters["classes"].string_value == '["red", "green", "blue"]'
    assert said.HasField("dynamic_batching")
    assert client.get_model_config("people.m1").config.backend == "onnxruntime"


def test_statistics(client: triton.InferenceServerClient, server: RpcServed) -> None:
    before = client.get_inference_statistics("regression").model_stats[0]
    infer(client, tiny.rows(3), of="regression")

    def now() -> service_pb2.ModelStatistics:
        return client.get_inference_statistics("regression").model_stats[0]

    until(lambda: now().inference_count > before.inference_count)
    assert now().inference_count == before.inference_count + 3
    assert now().inference_stats.success.count == before.inference_stats.success.count + 1
    [member] = client.get_inference_statistics("regression.m1", "1").model_stats
    assert member.name == "regression.m1"
    assert member.inference_stats.success.count == now().inference_stats.success.count
    every = client.get_inference_statistics().model_stats
    assert {stats.name for stats in every} == {"tiny", "regression", "people", "pictures", "faulty", "cancelled"}
    assert [stats.version for stats in client.get_inference_statistics("tiny").model_stats] == ["1", "2"]


def test_the_repository_does_not_change(client: triton.InferenceServerClient) -> None:
    index = client.get_model_repository_index().models
    assert [(entry.name, entry.version, entry.state) for entry in index if entry.name == "tiny"] == [
        ("tiny", "1", "READY"),
        ("tiny", "2", "READY"),
    ]
    for change in (client.load_model, client.unload_model):
        with pytest.raises(InferenceServerException, match="model control is off") as caught:
            change("tiny")
        assert caught.value.status() == "StatusCode.UNIMPLEMENTED"


def test_what_there_is_not(channel: grpc.Channel) -> None:
    assert refusal(channel, b"", "ModelStreamInfer")[0] == grpc.StatusCode.UNIMPLEMENTED
    status, details = refusal(channel, b"\xff", "ModelReady")
    assert status == grpc.StatusCode.INVALID_ARGUMENT
    assert details == "message: expected inference.ModelReadyRequest; got other bytes"


def test_calls_are_counted(client: triton.InferenceServerClient, server: RpcServed) -> None:
    before = server.http.metrics().get(ANSWERED, 0)
    client.is_server_live()
    until(lambda: server.http.metrics().get(ANSWERED, 0) == before + 1)
    assert server.http.metrics()['committee_grpc_request_duration_seconds_count{method="ServerLive"}'] >= 1
