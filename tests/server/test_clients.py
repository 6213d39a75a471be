"""The clients that people have, over real sockets, against a server that is started as people start it."""

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import tritonclient.http as http
import tritonclient.http.aio as aio
from numpy.testing import assert_allclose, assert_array_equal
from tritonclient.utils import InferenceServerException

from tests import tiny
from tests.server.processes import Server, running

X = tiny.rows(3)
MEMBERS = tiny.answers(X, 3)
MEAN = MEMBERS.mean(axis=0)
LABELS = [tiny.CLASSES[k].encode() for k in MEAN.argmax(axis=1)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("clients")
    for version in (1, 2):
        tiny.write_ensemble(root / "models", version=version)
    tiny.write_table_ensemble(root / "models")
    with running(root, "--workers", "1", "--versions", "all") as server:
        yield server


@pytest.fixture(scope="module")
def triton(server: Server) -> Iterator[Any]:
    with http.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
        yield client


def numbers(values: Any = X, name: str = "X", *, binary: bool = True, datatype: str = "FP32") -> Any:
    return http.InferInput(name, list(values.shape), datatype).set_data_from_numpy(values, binary_data=binary)


def wanted(name: str, *, binary: bool = True, count: int = 0) -> Any:
    return http.InferRequestedOutput(name, binary_data=binary, class_count=count)


class TestTriton:
    def test_health(self, triton: Any) -> None:
        assert triton.is_server_live()
        assert triton.is_server_ready()
        assert triton.is_model_ready("tiny")
        assert triton.is_model_ready("tiny.m1", "1")
        assert not triton.is_model_ready("nope")

    def test_metadata(self, triton: Any) -> None:
        assert "binary_tensor_data" in triton.get_server_metadata()["extensions"]
        said = triton.get_model_metadata("tiny")
        assert said["versions"] == ["1", "2"]
        assert said["inputs"] == [{"name": "X", "datatype": "FP32", "shape": [-1, 4]}]
        assert triton.get_model_metadata("tiny.m1", "1")["platform"] == "onnxruntime_onnx"

    def test_configuration(self, triton: Any) -> None:
        said = triton.get_model_config("people")
        assert (said["name"], said["platform"], said["backend"]) == ("people", "committee", "committee")
        assert said["input"] == [
            {"name": "age", "data_type": "TYPE_FP32", "dims": [1], "optional": True},
            {"name": "job", "data_type": "TYPE_STRING", "dims": [1], "optional": False},
        ]
        assert said["max_batch_size"] > 0
        assert said["parameters"]["classes"] == {"string_value": '["red", "green", "blue"]'}
        assert triton.get_model_config("tiny.m1", "1")["backend"] == "onnxruntime"

    @pytest.mark.parametrize("binary", [True, False])
    def test_all_outputs(self, triton: Any, binary: bool) -> None:
        """Without any that is asked for, tritonclient asks for all as bytes."""
        answer = triton.infer("tiny", [numbers(binary=binary)], request_id="7")
        assert_allclose(answer.as_numpy("probabilities"), MEAN, rtol=1e-5)
        assert answer.as_numpy("label").tolist() == LABELS
        assert_allclose(answer.as_numpy("member_probabilities"), MEMBERS.transpose(1, 0, 2), rtol=1e-5)
        assert answer.as_numpy("degraded").tolist() == [False] * 3
        assert answer.get_response()["id"] == "7"

    @pytest.mark.parametrize("binary", [True, False])
    def test_requested_outputs(self, triton: Any, binary: bool) -> None:
        outputs = [wanted("label", binary=binary), wanted("uncertainty", binary=not binary)]
        answer = triton.infer("tiny", [numbers()], outputs=outputs)
        assert [output["name"] for output in answer.get_response()["outputs"]] == ["label", "uncertainty"]
        assert [text if binary else text.encode() for text in answer.as_numpy("label").tolist()] == LABELS
        assert answer.as_numpy("uncertainty").shape[0] == 3

    def test_the_best_classes(self, triton: Any) -> None:
        answer = triton.infer("tiny", [numbers()], outputs=[wanted("probabilities", count=1)])
        assert [text.split(b":")[2] for [text] in answer.as_numpy("probabilities").tolist()] == LABELS

    def test_a_strategy(self, triton: Any) -> None:
        said = {"strategy": "weighted", "weights": "m1:3,m3:1", "members": "m1,m3"}
        expected = 0.75 * MEMBERS[0] + 0.25 * MEMBERS[2]
        for options in ({"parameters": said}, {"query_params": said}):
            answer = triton.infer("tiny", [numbers()], **options)
            assert_allclose(answer.as_numpy("probabilities"), expected, rtol=1e-5)
            assert answer.get_response()["parameters"]["members"] == "m1:0.75,m3:0.25"

    @pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
    def test_what_else_it_sends(self, triton: Any, algorithm: str) -> None:
        answer = triton.infer(
            "tiny.m2",
            [numbers()],
            model_version="1",
            priority=1,
            timeout=5_000_000,
            sequence_id=3,
            request_compression_algorithm=algorithm,
            response_compression_algorithm=algorithm,
        )
        assert_allclose(answer.as_numpy("probabilities"), MEMBERS[1], rtol=1e-5)

    @pytest.mark.parametrize("binary", [True, False])
    def test_a_table(self, triton: Any, binary: bool) -> None:
        people = tiny.people(2, seed=1)
        people["age"][:] = [[41], [25]]
        inputs = [
            numbers(people["age"], "age", binary=binary),
            numbers(people["job"], "job", binary=binary, datatype="BYTES"),
        ]
        answer = triton.infer("people", inputs)
        assert_allclose(answer.as_numpy("probabilities"), tiny.table_answers(people, 2).mean(axis=0), rtol=1e-4)

    @pytest.mark.parametrize(
        ("name", "options", "status", "said"),
        [
            ("nope", {}, "404", "no model 'nope'; there are: people, tiny"),
            ("tiny", {"model_version": "9"}, "404", ""),
            ("tiny", {"parameters": {"stratgy": "vote"}}, "400", "parameters: expected no others than "),
            ("tiny", {"outputs": [wanted("nope")]}, "400", "outputs: expected some of "),
            ("people", {}, "400", "inputs: expected none but 'age', 'job'; got 'X'"),
        ],
    )
    def test_errors(self, triton: Any, name: str, options: dict[str, Any], status: str, said: str) -> None:
        with pytest.raises(InferenceServerException) as caught:
            triton.infer(name, [numbers()], **options)
        assert caught.value.status() == status
        assert caught.value.message().startswith(said)

    def test_asynchronous(self, server: Server) -> None:
        async def go() -> list[Any]:
            async with aio.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
                assert await client.is_server_ready()
                assert await client.is_model_ready("tiny")
                calls = [
                    client.infer("tiny", [numbers(binary=binary)], parameters={"strategy": strategy})
                    for binary in (True, False)
                    for strategy in ("average", "vote")
                ]
                with pytest.raises(InferenceServerException):
                    await client.infer("nope", [numbers()])
                return list(await asyncio.gather(*calls))

        answers = [answer.as_numpy("probabilities") for answer in asyncio.run(go())]
        assert_allclose(answers[0], MEAN, rtol=1e-5)
        assert_array_equal(answers[0], answers[2])
        assert_array_equal(answers[1], answers[3])


def test_as_tensorflow_serving_is_asked(server: Server) -> None:
    with httpx.Client(base_url=f"http://127.0.0.1:{server.port}/v1/models") as client:
        [state, *_] = client.get("/tiny").json()["model_version_status"]
        assert (state["version"], state["state"]) == ("2", "AVAILABLE")
        signatures = client.get("/tiny/metadata").json()["metadata"]["signature_def"]["signature_def"]
        [name] = signatures["serving_default"]["inputs"]
        rows = client.post("/tiny:predict", json={"signature_name": "serving_default", "instances": X.tolist()})
        assert_allclose(rows.json()["predictions"], MEAN, rtol=1e-5)
        columns = client.post("/tiny/versions/1:predict", json={"inputs": {name: X.tolist()}})
        assert columns.json() == {"outputs": rows.json()["predictions"]}
        assert client.post("/nope:predict", json={"instances": [[0] * 4]}).status_code == 404
