"""KServe's own clients, over real sockets, against a server that is started as people start it."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from numpy.testing import assert_allclose

from tests import environments, tiny
from tests.server.processes import SECONDS
from tests.server.rpc.served import serving

X = tiny.rows(3)
MEMBERS = tiny.answers(X, 3)
MEAN = MEMBERS.mean(axis=0)
LABELS = [tiny.CLASSES[k] for k in MEAN.argmax(axis=1)]
ROWS = {"X": ("FP32", X.tolist())}

by_both = pytest.mark.parametrize("by", ["rest", "grpc"])
in_both_forms = pytest.mark.parametrize("binary", [True, False], ids=["binary", "json"])


class KServe:
    """The clients, in a process with an environment of their own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def say(self, by: str, do: str, **said: Any) -> dict[str, Any]:
        """Whatever came of it: an `answer`, or a `status` and an `error`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps({"by": by, "do": do, **said}), file=self._process.stdin, flush=True)
        came: dict[str, Any] = json.loads(self._process.stdout.readline())
        return came

    def ask(self, by: str, do: str, **said: Any) -> Any:
        came = self.say(by, do, **said)
        assert "answer" in came, came
        return came["answer"]

    def infer(self, by: str, model_name: str = "tiny", inputs: Any = ROWS, *, binary: bool = True, **said: Any) -> Any:
        return self.ask(by, "infer", model_name=model_name, inputs=inputs, binary=binary, **said)


@pytest.fixture(scope="module")
def kserve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KServe]:
    root = tmp_path_factory.mktemp("kserve")
    for version in (1, 2):
        tiny.write_ensemble(root / "models", version=version)
    tiny.write_table_ensemble(root / "models")
    with serving(root, "--workers", "1", "--versions", "all") as server:
        yield from clients(f"127.0.0.1:{server.http.port}", server.address)


def clients(http: str, rpc: str) -> Iterator[KServe]:
    program = [environments.kserve(), "-m", "tests.server.kserve_client", http, rpc]
    pipe = subprocess.PIPE
    with subprocess.Popen(program, cwd=Path(__file__).parents[2], stdin=pipe, stdout=pipe, text=True) as process:
        try:
            yield KServe(process)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            assert process.wait(SECONDS) == 0


@by_both
def test_health(kserve: KServe, by: str) -> None:
    assert kserve.ask(by, "live") is True
    assert kserve.ask(by, "ready") is True
    for model, ready in {"tiny": True, "people": True, "tiny.m1": True, "nope": False}.items():
        assert kserve.ask(by, "model_ready", model_name=model) is ready


def test_metadata(kserve: KServe) -> None:
    """By KServe's own messages: its clients have no words for it."""
    assert kserve.ask("grpc", "metadata")["name"] == "committee"
    said = kserve.ask("grpc", "model_metadata", name="tiny")
    assert said["versions"] == ["1", "2"]
    assert said["inputs"] == [{"name": "X", "datatype": "FP32", "shape": ["-1", "4"]}]
    assert {"probabilities", "label"} <= {output["name"] for output in said["outputs"]}


@by_both
@in_both_forms
def test_all_outputs(kserve: KServe, by: str, binary: bool) -> None:
    answer = kserve.infer(by, binary=binary, request_id="7")
    assert (answer["id"], answer["model_name"]) == ("7", "tiny")
    outputs = answer["outputs"]
    assert_allclose(outputs["probabilities"], MEAN, rtol=1e-5)
    assert outputs["label"] == LABELS
    assert_allclose(outputs["member_probabilities"], MEMBERS.transpose(1, 0, 2), rtol=1e-5)
    assert outputs["degraded"] == [False] * 3


@pytest.mark.parametrize("as_bytes", [True, False])
@in_both_forms
def test_outputs_that_are_wanted(kserve: KServe, binary: bool, as_bytes: bool) -> None:
    wanted = {"label": {"binary_data": as_bytes}, "probabilities": {"binary_data": not as_bytes}}
    outputs = kserve.infer("rest", binary=binary, outputs=wanted)["outputs"]
    assert list(outputs) == ["label", "probabilities"]
    assert outputs["label"] == LABELS
    assert_allclose(outputs["probabilities"], MEAN, rtol=1e-5)
    assert list(kserve.infer("grpc", binary=binary, outputs={"label": {}})["outputs"]) == ["label"]


@by_both
def test_all_outputs_as_bytes(kserve: KServe, by: str) -> None:
    answer = kserve.infer(by, binary=False, parameters={"binary_data_output": True})
    assert answer["outputs"]["label"] == LABELS
    assert_allclose(answer["outputs"]["probabilities"], MEAN, rtol=1e-5)


@by_both
@in_both_forms
def test_a_strategy(kserve: KServe, by: str, binary: bool) -> None:
    said = {"strategy": "weighted", "weights": "m1:3,m3:1", "members": "m1,m3"}
    answer = kserve.infer(by, binary=binary, parameters=said)
    assert_allclose(answer["outputs"]["probabilities"], 0.75 * MEMBERS[0] + 0.25 * MEMBERS[2], rtol=1e-5)
    assert answer["parameters"]["strategy"] == "weighted"
    assert answer["parameters"]["members"] == "m1:0.75,m3:0.25"


@by_both
def test_a_member(kserve: KServe, by: str) -> None:
    assert_allclose(kserve.infer(by, "tiny.m2")["outputs"]["probabilities"], MEMBERS[1], rtol=1e-5)


@by_both
@in_both_forms
def test_a_table(kserve: KServe, by: str, binary: bool) -> None:
    """Its text is BYTES."""
    people = tiny.people(2, seed=1)
    people["age"][:] = [[41], [25]]
    inputs = {"age": ("FP32", people["age"].tolist()), "job": ("BYTES", people["job"].tolist())}
    answer = kserve.infer(by, "people", inputs, binary=binary)
    assert_allclose(answer["outputs"]["probabilities"], tiny.table_answers(people, 2).mean(axis=0), rtol=1e-4)


@by_both
@pytest.mark.parametrize("datatype", ["FP16", "FP64", "INT64", "UINT8"])
def test_other_numbers(kserve: KServe, by: str, datatype: str) -> None:
    small = [[0, 1, 2, 3]]
    expected = tiny.answers(X[:1] * 0 + small, 3).mean(axis=0)
    answer = kserve.infer(by, inputs={"X": (datatype, small)})
    assert_allclose(answer["outputs"]["probabilities"], expected, rtol=1e-5)


def test_a_version(kserve: KServe) -> None:
    """Only over gRPC: of its REST client's URLs none has a version."""
    assert kserve.infer("grpc", model_version="1")["outputs"]["label"] == LABELS
    assert kserve.say("grpc", "infer", model_name="tiny", inputs=ROWS, binary=True, model_version="9")["status"] == (
        "NOT_FOUND"
    )


@pytest.mark.parametrize(
    ("said", "statuses", "error"),
    [
        ({"model_name": "nope"}, (404, "NOT_FOUND"), "no model 'nope'; there are: people, tiny"),
        ({"model_name": "people"}, (400, "INVALID_ARGUMENT"), "inputs: expected none but 'age', 'job'; got 'X'"),
        ({"model_name": "tiny", "parameters": {"stratgy": "vote"}}, (400, "INVALID_ARGUMENT"), "parameters: expected"),
    ],
)
def test_errors(kserve: KServe, said: dict[str, Any], statuses: tuple[int, str], error: str) -> None:
    for by, status in zip(("rest", "grpc"), statuses, strict=True):
        came = kserve.say(by, "infer", inputs=ROWS, binary=True, **said)
        assert came["status"] == status
        assert came["error"].startswith(error)


def test_the_first_version_of_the_protocol(kserve: KServe) -> None:
    assert kserve.ask("v1", "model_ready", model_name="tiny") is True
    assert kserve.say("v1", "model_ready", model_name="nope")["status"] == 404
    answer = kserve.ask("v1", "infer", model_name="tiny", data={"instances": X.tolist()})
    assert_allclose(answer["predictions"], MEAN, rtol=1e-5)
