"""ModelInfer over real sockets, by Triton's clients and by bare messages."""

import asyncio
import re
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.utils import InferenceServerException

from tests import faulty, tiny
from tests.server.processes import children, until
from tests.server.rpc.served import SECONDS, RpcServed, ask, call, entry, infer, message, refusal, tensor
from tests.server.test_workers import seconds_of_processor

INVALID = grpc.StatusCode.INVALID_ARGUMENT
ROWS = tiny.rows(4)
CANCELLED = 'committee_grpc_requests_total{method="ModelInfer",status="CANCELLED"}'


def mean(rows: Any = ROWS) -> Any:
    return tiny.answers(rows, 3).mean(axis=0)


class TestByTritonsClients:
    def test_an_answer(self, client: triton.InferenceServerClient) -> None:
        result = infer(client, ROWS, request_id="seven", parameters={"strategy": "average"})
        np.testing.assert_allclose(result.as_numpy("probabilities"), mean(), rtol=1e-5)
        names = np.array(tiny.CLASSES, dtype=object)[mean().argmax(axis=1)]
        assert [label.decode() for label in result.as_numpy("label")] == names.tolist()
        assert result.as_numpy("degraded").tolist() == [False] * 4
        answer = result.get_response()
        assert (answer.id, answer.model_name, answer.model_version) == ("seven", "tiny", "2")
        assert answer.parameters["strategy"].string_param == "average"
        assert answer.parameters["degraded"].bool_param is False
        assert answer.parameters["members"].string_param.startswith("m1:0.3333")

    def test_options_are_parameters(self, client: triton.InferenceServerClient) -> None:
        said = {"strategy": "weighted", "weights": "m1:3,m2:1", "members": "m1,m2", "abstain_below": "0.999"}
        result = infer(client, ROWS, parameters=said)
        answers = tiny.answers(ROWS, 3)
        np.testing.assert_allclose(result.as_numpy("probabilities"), (3 * answers[0] + answers[1]) / 4, rtol=1e-5)
        assert b"" in result.as_numpy("label").tolist()

    def test_only_the_outputs_asked_for(self, client: triton.InferenceServerClient) -> None:
        wanted = [triton.InferRequestedOutput("uncertainty"), triton.InferRequestedOutput("probabilities", 2)]
        result = infer(client, ROWS, outputs=wanted)
        assert [output.name for output in result.get_response().outputs] == ["uncertainty", "probabilities"]
        assert result.as_numpy("uncertainty").shape == (4, 5)
        assert re.fullmatch(rb"0\.\d+:\d:(red|green|blue)", result.as_numpy("probabilities")[0, 0])

    def test_a_version_and_a_member(self, client: triton.InferenceServerClient) -> None:
        assert infer(client, ROWS, model_version="1").get_response().model_version == "1"
        result = infer(client, ROWS, of="tiny.m2")
        np.testing.assert_allclose(result.as_numpy("probabilities"), tiny.answers(ROWS, 3)[1], rtol=1e-5)

    def test_a_table(self, client: triton.InferenceServerClient) -> None:
        people = tiny.people(6)
        given = [tensor("age", people["age"]), tensor("job", people["job"], "BYTES")]
        result = client.infer("people", given, parameters={"strategy": "average"})
        np.testing.assert_allclose(
            result.as_numpy("probabilities"), tiny.table_answers(people, 2).mean(axis=0), rtol=1e-5
        )

    def test_a_regression(self, client: triton.InferenceServerClient) -> None:
        result = infer(client, ROWS, of="regression", parameters={"strategy": "mean"})
        np.testing.assert_allclose(result.as_numpy("values"), tiny.values(ROWS, 3).mean(axis=0), rtol=1e-4)

    def test_compressed(self, client: triton.InferenceServerClient) -> None:
        plain = infer(client, ROWS).as_numpy("probabilities")
        for algorithm in ("gzip", "deflate"):
            packed = infer(client, ROWS, compression_algorithm=algorithm).as_numpy("probabilities")
            np.testing.assert_array_equal(packed, plain)

    def test_what_is_read_beside_the_event_loop(self, client: triton.InferenceServerClient) -> None:
        """A message of some 300 KB."""
        rows = tiny.rows(4000)
        with pytest.raises(InferenceServerException, match=r"expected at most 4096 rows; got 20000"):
            infer(client, np.tile(rows, (5, 1)))

    def test_a_model_that_there_is_not(self, client: triton.InferenceServerClient) -> None:
        with pytest.raises(InferenceServerException) as caught:
            infer(client, ROWS, of="nobody")
        assert caught.value.status() == "StatusCode.NOT_FOUND"
        assert caught.value.message().startswith("no model 'nobody'; there are: ")

    def test_asynchronously(self, server: RpcServed) -> None:
        async def ask_often() -> list[Any]:
            async with triton_aio.InferenceServerClient(server.address) as client:
                given = [tensor("X", ROWS)]
                return list(await asyncio.gather(*(client.infer("tiny", given) for _ in range(20))))

        answers = [result.as_numpy("probabilities") for result in asyncio.run(ask_often())]
        assert len(answers) == 20
        for answer in answers:
            np.testing.assert_allclose(answer, answers[0], rtol=1e-5)


class TestTyped:
    def test_floats_come_back_typed(self, channel: grpc.Channel) -> None:
        answer = ask(channel, message(inputs=[entry("FP32", [4, 4], fp32_contents=ROWS.ravel())]))
        assert not answer.raw_output_contents
        probabilities, label, _, _, degraded = answer.outputs
        assert (probabilities.datatype, list(probabilities.shape)) == ("FP32", [4, 3])
        assert len(probabilities.contents.fp32_contents) == 12
        assert {value.decode() for value in label.contents.bytes_contents} <= set(tiny.CLASSES)
        assert list(degraded.contents.bool_contents) == [False] * 4

    @pytest.mark.parametrize(
        ("datatype", "field"),
        [
            *((f"INT{bits}", "int_contents") for bits in (8, 16, 32)),
            *((f"UINT{bits}", "uint_contents") for bits in (8, 16, 32)),
            ("INT64", "int64_contents"),
            ("UINT64", "uint64_contents"),
            ("FP32", "fp32_contents"),
            ("FP64", "fp64_contents"),
        ],
    )
    def test_every_number(self, channel: grpc.Channel, datatype: str, field: str) -> None:
        """Typed or as bytes, whatever their datatype, the same numbers have the same answer."""
        rows = np.array([[1, 2, 3, 4], [0, 5, 1, 127]])
        typed = ask(
            channel, message(inputs=[entry(datatype, [2, 4], **dict[str, Any]({field: rows.ravel().tolist()}))])
        )
        element = {"I": "<i", "U": "<u", "F": "<f"}[datatype[0]] + str(int(datatype.lstrip("UINTFP")) // 8)
        raw = ask(
            channel, message(inputs=[entry(datatype, [2, 4])], raw_input_contents=[rows.astype(element).tobytes()])
        )
        answered = np.frombuffer(raw.raw_output_contents[0], "<f4")
        np.testing.assert_array_equal(answered, np.float32(typed.outputs[0].contents.fp32_contents))

    def test_half_floats_are_bytes(self, channel: grpc.Channel) -> None:
        data = ROWS.astype("<f2").tobytes()
        assert ask(channel, message(inputs=[entry("FP16", [4, 4])], raw_input_contents=[data])).raw_output_contents
        assert refusal(channel, message(inputs=[entry("FP16", [1, 4])])) == (
            INVALID,
            "input 'X': FP16: expected raw_input_contents; got none",
        )

    def test_a_table_with_a_missing_number(self, channel: grpc.Channel) -> None:
        people = tiny.people(3)
        assert np.isnan(people["age"][0])
        answer = ask(
            channel,
            message(
                "people",
                inputs=[
                    entry("FP32", [3, 1], "age", fp32_contents=people["age"].ravel()),
                    entry("BYTES", [3, 1], "job", bytes_contents=[job.encode() for job in people["job"].ravel()]),
                ],
                parameters={"strategy": {"string_param": "average"}},
            ),
        )
        expected = tiny.table_answers(people, 2).mean(axis=0).ravel()
        np.testing.assert_allclose(answer.outputs[0].contents.fp32_contents, expected, rtol=1e-5)

    def test_the_other_way_if_it_is_asked_for(self, channel: grpc.Channel) -> None:
        typed = entry("FP32", [4, 4], fp32_contents=ROWS.ravel())
        answer = ask(channel, message(inputs=[typed], parameters={"binary_data_output": {"bool_param": True}}))
        assert len(answer.raw_output_contents) == 5
        answer = ask(
            channel,
            message(
                inputs=[entry("FP32", [4, 4])],
                raw_input_contents=[ROWS.tobytes()],
                parameters={"binary_data_output": {"bool_param": False}},
            ),
        )
        assert not answer.raw_output_contents
        assert len(answer.outputs[0].contents.fp32_contents) == 12


TYPED = entry("FP32", [1, 4], fp32_contents=[1, 2, 3, 4])
RAW = entry("FP32", [1, 4])
REFUSED = {
    "nothing": (message(), "inputs: expected 'X'; got none"),
    "another datatype": (message(inputs=[entry("BF16", [1, 4])]), "input 'X': datatype: expected one of BOOL, "),
    "text": (message(inputs=[entry("BYTES", [1, 4], bytes_contents=[b"a"] * 4)]), "input 'X': datatype: expected FP32"),
    "a wrong field": (
        message(inputs=[entry("FP32", [1, 4], fp64_contents=[1, 2, 3, 4])]),
        "input 'X': FP32: expected fp32_contents; got 4 fp64_contents",
    ),
    "too few floats": (
        message(inputs=[entry("FP32", [1, 4], fp32_contents=[1])]),
        "input 'X': fp32_contents: expected 4 values, as [1, 4]; got 1",
    ),
    "too few integers": (
        message(inputs=[entry("INT32", [1, 4], int_contents=[1])]),
        "input 'X': data: expected 4 values, flat or nested as [1, 4]; got 1 where 4 were due",
    ),
    "an integer beyond": (
        message(inputs=[entry("INT8", [1, 4], int_contents=[1, 2, 3, 128])]),
        "input 'X': data[3]: expected -128 to 127 for INT8; got 128",
    ),
    "a negative shape": (message(inputs=[entry("FP32", [-1, 4])]), "input 'X': shape: expected integers that are not "),
    "a huge shape": (
        message(inputs=[entry("FP32", [1 << 40, 4], fp32_contents=[1])]),
        f"input 'X': fp32_contents: expected {1 << 42} values",
    ),
    "an infinity": (
        message(inputs=[entry("FP32", [1, 4], fp32_contents=[1, 2, 3, float("inf")])]),
        "input 'X': row 0: expected numbers that float32 holds; number 3 is inf",
    ),
    "bytes for another": (
        message(inputs=[RAW], raw_input_contents=[b"abc"]),
        "input 'X': expected 16 bytes of FP32 of shape [1, 4]; got 3",
    ),
    "bytes for none": (
        message(inputs=[RAW], raw_input_contents=[b"", b""]),
        "raw_input_contents: expected one for each of 1 inputs; got 2",
    ),
    "bytes and lists": (
        message(inputs=[TYPED], raw_input_contents=[bytes(16)]),
        "input 'X': contents: expected none beside raw_input_contents",
    ),
    "a version": (message(model_version="x", inputs=[TYPED]), "version: expected a number from 1 to 999999999"),
    "a long id": (message(id="x" * 129, inputs=[TYPED]), "id: expected at most 128 characters; got 129"),
    "an unknown parameter": (
        message(inputs=[TYPED], parameters={"strateg": {"string_param": "vote"}}),
        "parameters: expected no others than ",
    ),
    "a parameter without a value": (
        message(inputs=[TYPED], parameters={"strategy": {}}),
        "parameters: 'strategy': expected a value; got none",
    ),
    "a strategy that there is not": (
        message(inputs=[TYPED], parameters={"strategy": {"string_param": "guess"}}),
        "strategy: expected one of ",
    ),
    "not whether as bytes": (
        message(inputs=[TYPED], parameters={"binary_data_output": {"int64_param": 1}}),
        "parameters: binary_data_output: expected true or false; got 1",
    ),
    "another output": (message(inputs=[TYPED], outputs=[{"name": "y"}]), "outputs: expected some of "),
    "no message": (b"\xff\xff", "message: expected inference.ModelInferRequest; got other bytes"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_served(channel: grpc.Channel, case: str) -> None:
    request, said = REFUSED[case]
    status, details = refusal(channel, request)
    assert status == INVALID
    assert details.startswith(said)


def test_no_shared_memory(channel: grpc.Channel) -> None:
    shared = entry("FP32", [1, 4])
    shared.parameters["shared_memory_region"].string_param = "here"
    status, details = refusal(channel, message(inputs=[shared]))
    assert status == grpc.StatusCode.UNIMPLEMENTED
    assert details.endswith("there is no shared memory with this server")


def test_too_large_a_message(channel: grpc.Channel) -> None:
    huge = message(inputs=[RAW], raw_input_contents=[bytes(16 << 20)])
    status, details = refusal(channel, huge)
    assert status == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "larger than max" in details
    with pytest.raises(grpc.RpcError) as caught:  # nor does it help to pack it
        channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")(
            huge.SerializeToString(), compression=grpc.Compression.Gzip, timeout=SECONDS
        )
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_what_is_refused_is_kept_no_longer(server: RpcServed, channel: grpc.Channel) -> None:
    [worker] = children(server.http)
    before = peak_of(worker)
    for _ in range(20):
        with pytest.raises(grpc.RpcError, match=r"expected inference\.ModelInferRequest; got other bytes"):
            call(channel, "ModelInfer", bytes(16 << 20))
    assert peak_of(worker) - before < 160 << 20  # of 320 that have come


def test_however_many_are_refused_the_next_is_answered(server: RpcServed) -> None:
    """On the same connection, of which gRPC refuses streams while it holds too many."""
    with grpc.insecure_channel(server.address) as channel:
        for _ in range(300):
            assert refusal(channel, message(inputs=[TYPED], outputs=[{"name": "y"}]))[0] == INVALID
        assert ask(channel, message(inputs=[TYPED])).model_name == "tiny"


def peak_of(pid: int) -> int:
    """Bytes that a process has held at most."""
    [line] = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) << 10


class TestTime:
    def test_the_deadline_of_the_call_is_that_of_the_request(self, client: triton.InferenceServerClient) -> None:
        """A member that would be late is left out of an answer that comes in time."""

        def missing() -> str:
            with suppress(InferenceServerException):  # the machine has much else to do
                result = infer(client, faulty.rows(1, faulty.HANG), of="faulty", client_timeout=1.0)
                return str(result.get_response().parameters["missing"].string_param)
            return ""

        until(lambda: missing().startswith("m3:"))

    def test_all_or_nothing(self, client: triton.InferenceServerClient) -> None:
        said = {"on_failure": "fail", "deadline_ms": 150}

        def status() -> str:
            """UNAVAILABLE as long as the member hangs in another test's call."""
            with pytest.raises(InferenceServerException) as caught:
                infer(client, faulty.rows(1, faulty.HANG), of="faulty", parameters=said)
            assert caught.value.message().startswith("expected answers of at least 3 of 3 members; got 2 (m3: ")
            return str(caught.value.status())

        until(lambda: status() == "StatusCode.DEADLINE_EXCEEDED")

    def test_a_member_that_fails(self, client: triton.InferenceServerClient) -> None:
        rows = faulty.rows(1, faulty.RAISE)
        assert infer(client, rows, of="faulty").as_numpy("degraded").tolist() == [True]
        with pytest.raises(InferenceServerException) as caught:
            infer(client, rows, of="faulty", parameters={"on_failure": "fail"})
        assert caught.value.status() == "StatusCode.UNAVAILABLE"

    def test_a_call_that_is_cancelled_stops(self, server: RpcServed, client: triton.InferenceServerClient) -> None:
        [worker] = children(server.http)
        before = server.http.metrics().get(CANCELLED, 0)
        ended = threading.Event()
        running = client.async_infer(
            "cancelled", [tensor("X", faulty.rows(1, faulty.HANG))], lambda result, error: ended.set()
        )
        burnt = seconds_of_processor(worker)
        until(lambda: seconds_of_processor(worker) > burnt + 0.05)
        running.cancel()
        assert ended.wait(SECONDS)
        until(lambda: server.http.metrics().get(CANCELLED, 0) > before)
        until(lambda: is_idle(worker))


def is_idle(pid: int) -> bool:
    """Whether it has nothing to do for a fifth of a second."""
    before = seconds_of_processor(pid)
    threading.Event().wait(0.2)
    return seconds_of_processor(pid) - before < 0.05


def test_a_request_id_comes_back(channel: grpc.Channel) -> None:
    request = message(inputs=[TYPED])
    _, done = call(channel, "ModelInfer", request, metadata=[("x-request-id", "mine-1")])
    assert ("x-request-id", "mine-1") in done.trailing_metadata()
    _, done = call(channel, "ModelInfer", request, metadata=[("x-request-id", "not this: ü".encode().hex() + "!")])
    assert re.fullmatch("[0-9a-f]{32}", dict(done.trailing_metadata())["x-request-id"])
    with pytest.raises(grpc.RpcError) as caught:
        call(channel, "ModelInfer", message("nobody"), metadata=[("x-request-id", "mine-2")])
    assert ("x-request-id", "mine-2") in caught.value.trailing_metadata()


UNREAD = """
import asyncio
from server.bounds import Bounds
from server.budget import Budget
from server.errors import Overloaded
from server.rpc.infer import Inferring, infer

class Busy:
    def check_load(self):
        raise Overloaded("the server is busy")

budget = Budget(1 << 20)
try:
    asyncio.run(infer(b"no message", Busy(), Inferring(None, Bounds(), budget), seconds=None))
except Overloaded:
    assert budget.taken == 0
    print("refused")
"""


def test_during_an_overload_messages_are_refused_unread() -> None:
    """In a process of its own: Triton's client and the server have messages of the same names."""
    done = subprocess.run([sys.executable, "-c", UNREAD], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("refused\n", "")
