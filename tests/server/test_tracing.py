"""Traces of a real server, as a collector receives them."""

import http.client
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from pydantic import ValidationError

from server.settings import Settings
from tests.server.processes import BODY, SECONDS, Server, running, until
from tests.tiny import write_ensemble

CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{CALLER[0]}-{CALLER[1]}-01"
ROADS = ["/predict", "/%70redict"]
"""The second one, percent-encoded, is FastAPI's."""


@contextmanager
def collecting() -> Iterator[tuple[str, list[Any]]]:
    """A collector's address, and the spans that it has received."""
    spans: list[Any] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            data = self.rfile.read(int(self.headers["Content-Length"]))
            for resource in ExportTraceServiceRequest.FromString(data).resource_spans:
                assert ("service.name", "committee") in [
                    (a.key, a.value.string_value) for a in resource.resource.attributes
                ]
                spans.extend(span for scope in resource.scope_spans for span in scope.spans)
            self.send_response(200)
            self.end_headers()

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", spans
        server.shutdown()
        thread.join()


def ask(server: Server, path: str, **headers: str) -> tuple[int, str | None]:
    """The status and the traceparent of the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=SECONDS)
    try:
        connection.request("POST", path, BODY, {"Content-Type": "application/json"} | headers)
        response = connection.getresponse()
        response.read()
        return response.status, response.getheader("traceparent")
    finally:
        connection.close()


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, list[Any]]]:
    root = tmp_path_factory.mktemp("traced")
    write_ensemble(root / "models")
    with (
        collecting() as (address, spans),
        running(
            root,
            COMMITTEE_WORKERS="1",
            COMMITTEE_GRPC_PORT="0",
            COMMITTEE_TRACING="otlp",
            OTEL_EXPORTER_OTLP_ENDPOINT=address,
            OTEL_BSP_SCHEDULE_DELAY="50",
        ) as server,
    ):
        yield server, spans


def of_trace(spans: list[Any], traceparent: str | None) -> dict[str, Any]:
    """The spans of a trace by their names, once the request's own is there."""
    assert traceparent is not None
    _, trace, span, _ = traceparent.split("-")
    until(lambda: any(found.span_id.hex() == span for found in list(spans)))
    return {found.name: found for found in list(spans) if found.trace_id.hex() == trace}


@pytest.mark.parametrize("path", ROADS)
def test_the_way_of_a_request(traced: tuple[Server, list[Any]], path: str) -> None:
    server, spans = traced
    status, answered = ask(server, path)
    assert status == 200
    found = of_trace(spans, answered)
    assert set(found) == {"POST /predict", "decode", "queue", "members", "fuse", "encode"}
    request = found.pop("POST /predict")
    assert request.parent_span_id == b""
    for child in found.values():
        assert child.parent_span_id == request.span_id
        assert request.start_time_unix_nano <= child.start_time_unix_nano <= child.end_time_unix_nano
        assert child.end_time_unix_nano <= request.end_time_unix_nano
    attributes = {attribute.key: attribute.value for attribute in request.attributes}
    assert attributes["http.response.status_code"].int_value == 200
    [link] = found["members"].links
    [batch] = [span for span in spans if span.span_id == link.span_id]
    assert (batch.name, [to.span_id for to in batch.links]) == ("batch", [request.span_id])
    assert {attribute.key: attribute.value for attribute in batch.attributes}["committee.rows"].int_value == 1


@pytest.mark.parametrize("path", ROADS)
def test_it_is_part_of_the_callers_trace(traced: tuple[Server, list[Any]], path: str) -> None:
    server, spans = traced
    _, answered = ask(server, path, traceparent=PARENT)
    assert answered is not None
    assert answered.split("-")[1] == CALLER[0]
    until(lambda: any(span.span_id.hex() == answered.split("-")[2] for span in list(spans)))
    [request] = [span for span in spans if span.span_id.hex() == answered.split("-")[2]]
    assert (request.trace_id.hex(), request.parent_span_id.hex()) == CALLER


@pytest.mark.parametrize("path", ROADS)
def test_what_is_no_traceparent_begins_a_trace(traced: tuple[Server, list[Any]], path: str) -> None:
    status, answered = ask(traced[0], path, traceparent="00-zz-1-1")
    assert (status, answered is None) == (200, False)


@pytest.mark.parametrize("path", ROADS)
def test_a_caller_that_does_not_sample_is_heeded(traced: tuple[Server, list[Any]], path: str) -> None:
    server, spans = traced
    _, unsampled = ask(server, path, traceparent=f"00-{'1' * 32}-{CALLER[1]}-00")
    _, sampled = ask(server, path)
    assert unsampled is not None
    assert unsampled.endswith("-00")
    of_trace(spans, sampled)
    assert not [span for span in spans if span.trace_id.hex() == "1" * 32]


def test_errors_are_marked_if_they_are_ours(traced: tuple[Server, list[Any]]) -> None:
    server, spans = traced
    status, refused = ask(server, "/predict?strategy=nope")
    [request] = [span for name, span in of_trace(spans, refused).items() if name.startswith("POST")]
    assert (status, request.status.code) == (400, 0)
    status, late = ask(server, "/predict?deadline_ms=0.001")
    [request] = [span for name, span in of_trace(spans, late).items() if name.startswith("POST")]
    assert (status, request.status.code) == (504, 2)


def test_a_call_over_grpc(traced: tuple[Server, list[Any]]) -> None:
    server, spans = traced
    [said] = server.said("^gRPC on ")
    with grpc.insecure_channel(said["message"].removeprefix("gRPC on ")) as channel:
        metadata = (("traceparent", PARENT),)
        method = channel.unary_unary("/inference.GRPCInferenceService/ServerLive")
        _, done = method.with_call(b"", metadata=metadata, timeout=SECONDS)
    until(lambda: any(span.name == "ServerLive" for span in list(spans)))
    [call] = [span for span in spans if span.name == "ServerLive"]
    assert (call.trace_id.hex(), call.parent_span_id.hex(), call.status.code) == (*CALLER, 0)
    assert dict(done.trailing_metadata())["traceparent"] == f"00-{CALLER[0]}-{call.span_id.hex()}-01"


def test_a_start_that_cannot_trace_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(ValidationError, match=r"committee\[otel\]"):
        Settings(tracing="otlp")


def test_nothing_is_imported_while_traces_are_off(tmp_path: Path) -> None:
    """But for the interface, which FastAPI imports itself."""
    write_ensemble(tmp_path)
    program = f"""
PARTS = ("opentelemetry.sdk", "opentelemetry.exporter", "opentelemetry.proto")
HEADERS = {{"content-type": "application/json", "traceparent": "{PARENT}"}}
import asyncio, json, sys
from pathlib import Path
import httpx
from server.app import create_app
from server.settings import Settings
app = create_app(Settings(models=Path({str(tmp_path)!r}), default="tiny"))
async def go():
    transport = httpx.ASGITransport(app)
    async with app.router.lifespan_context(app):
        async with httpx.AsyncClient(transport=transport, base_url="http://committee.test") as client:
            response = await client.post("/predict", content={BODY!r}, headers=HEADERS)
            return response.status_code, "traceparent" in response.headers
print(json.dumps([*asyncio.run(go()), [name for name in sys.modules if name.startswith(PARTS)]]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=SECONDS, check=True)
    assert json.loads(done.stdout) == [200, False, []]
