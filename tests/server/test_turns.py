"""Answers in their order, clients that go or do not read, and a stop with requests in flight: over real sockets."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from server.app import create_app
from server.engine import Engine
from server.protocol import FastLane
from server.settings import Settings
from tests import tiny
from tests.server.served_http import BODY, RESET, SECONDS, Reader, Served, SlowRoad, get, parse, post, served, until
from tests.server.test_telemetry import value

LIVE = "/v2/health/live"
SLOW = "/v1/ensembles/t%69ny/predict"
"""A predict request that takes the slow road."""
COUNT = 'committee_http_requests_total{method="POST",route="/predict",status="%d"}'
JSON = ("Content-Type", "application/json")


@pytest.fixture
def app(tmp_path: Path) -> FastAPI:
    tiny.write_ensemble(tmp_path, max_batch_size=20_000)
    return create_app(Settings(models=tmp_path, default="tiny", max_rows=20_000))


@pytest.fixture
def server(app: FastAPI) -> Iterator[Served]:
    with served(app) as server:
        yield server


class Gate:
    """Holds requests inside the engine until it is opened."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.inside = 0
        self.cancelled = 0


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    gate = Gate()
    infer = Engine.infer

    async def held(self: Engine, *args: Any, **options: Any) -> Any:
        gate.inside += 1
        try:
            while not gate.open.is_set():
                await asyncio.sleep(0.005)
        except asyncio.CancelledError:
            gate.cancelled += 1
            raise
        return await infer(self, *args, **options)

    monkeypatch.setattr(Engine, "infer", held)
    yield gate
    gate.open.set()


def numbered(i: int, path: str = "/predict") -> bytes:
    body = json.dumps({"instances": [[1, 2, 3, 4]], "id": str(i)}).encode()
    return post(path, body, [JSON, ("X-Request-Id", f"r{i}")])


class TestOrder:
    @pytest.mark.parametrize("n", [1000])
    @pytest.mark.parametrize("paths", [["/predict"], ["/predict", SLOW], ["/predict", SLOW, LIVE, "/predict"]])
    def test_many_at_once(self, server: Served, n: int, paths: list[str]) -> None:
        requests = []
        for i in range(n):
            path = paths[i % len(paths)]
            requests.append(get(path) if path == LIVE else numbered(i, path))
        with server.connect() as connection:
            sender = threading.Thread(target=connection.sendall, args=(b"".join(requests),))
            sender.start()
            reader = Reader(connection)
            for i in range(n):
                answer = reader.answer()
                assert answer.status == 200
                if paths[i % len(paths)] != LIVE:
                    assert (answer.header("x-request-id"), answer.json()["id"]) == (f"r{i}", str(i))
            sender.join()
        until(lambda: not server.tasks and not server.connections)

    def test_one_after_the_other(self, server: Served, gate: Gate) -> None:
        with server.connect() as connection:
            connection.sendall(numbered(1) + get(LIVE) + numbered(2, SLOW) + numbered(3))
            until(lambda: gate.inside == 1)
            time.sleep(0.05)
            assert gate.inside == 1
            assert len(server.tasks) == 1
            gate.open.set()
            reader = Reader(connection)
            answers = [reader.answer() for _ in range(4)]
        assert [answer.header("x-request-id") for answer in answers if answer.body[:6] != b'{"live'] == [
            "r1",
            "r2",
            "r3",
        ]
        assert answers[1].json() == {"live": True}

    def test_errors_and_answers_without_a_body(self, server: Served) -> None:
        with server.connect() as connection:
            connection.sendall(
                post(body=b"x") + get("/predict", method="HEAD") + post() + get("/nope") + post(close=True)
            )
            reader = Reader(connection)
            assert [reader.answer(head=i == 1).status for i in range(5)] == [400, 405, 200, 404, 200]
            reader.end()

    def test_nothing_after_the_last(self, server: Served) -> None:
        assert len(parse(server.send(post() + post(close=True) + post() * 3))) == 2
        assert len(parse(server.send(post() + post(version="1.0") + post() * 3))) == 2

    def test_queued_requests_are_not_read_without_end(self, server: Served, gate: Gate) -> None:
        with server.connect() as connection:
            connection.settimeout(0.5)
            with pytest.raises(TimeoutError):
                connection.sendall(post() * 300_000)
            [protocol] = server.connections
            n = len(protocol.pipeline)
            assert n < 20_000
            gate.open.set()


class TestContinue:
    HEAD = post(headers=[JSON, ("Expect", "100-continue")])[: -len(BODY)]

    @pytest.mark.parametrize("path", ["/predict", SLOW])
    def test_is_said(self, server: Served, path: str) -> None:
        with server.connect() as connection:
            connection.sendall(self.HEAD.replace(b"/predict", path.encode()))
            assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
            connection.sendall(BODY + post())
            reader = Reader(connection)
            assert [reader.answer().status for _ in range(2)] == [200, 200]

    def test_waits_for_its_turn(self, server: Served, gate: Gate) -> None:
        with server.connect() as connection:
            connection.sendall(post() + self.HEAD)
            until(lambda: gate.inside)
            gate.open.set()
            reader = Reader(connection)
            assert reader.answer().status == 200
            assert reader.answer().status == 100
            connection.sendall(BODY)
            assert reader.answer().status == 200

    def test_is_not_said_of_what_is_refused(self, server: Served) -> None:
        with server.connect() as connection:
            connection.sendall(self.HEAD.replace(b"Content-Length: ", b"Content-Length: 99999999"))
            assert Reader(connection).answer().status == 413


class TestClients:
    @pytest.mark.parametrize("reset", [False, True])
    def test_one_that_goes(self, server: Served, gate: Gate, reset: bool) -> None:
        """Its request is cancelled, those behind it never begin, and others go on."""
        before = value(COUNT % 499)
        with server.connect() as connection, server.connect() as other:
            other.sendall(post())
            connection.sendall(post() * 3)
            until(lambda: gate.inside == 2)
            if reset:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            else:
                # While requests are queued nothing is read, and so no end is seen either; a lone one is watched.
                gate.open.set()
                reader = Reader(connection)
                assert [reader.answer().status for _ in range(3)] == [200] * 3
                gate.open.clear()
                connection.sendall(post())
                until(lambda: gate.inside == 5)
            connection.close()
            if not reset:
                until(lambda: gate.cancelled == 1)
                assert value(COUNT % 499) == before + 1
            gate.open.set()
            assert Reader(other).answer().status == 200
        until(lambda: not server.connections and not server.tasks)

    def test_many_that_go(self, server: Served) -> None:
        for i in range(300):
            with server.connect() as connection:
                connection.sendall(post() * (i % 3 + 1))
                if i % 2:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        until(lambda: not server.connections and not server.tasks)
        assert parse(server.send(post(close=True)))[0].status == 200

    def test_one_that_goes_within_its_body(self, server: Served) -> None:
        before = value(COUNT % 499)
        with server.connect() as connection:
            connection.sendall(post()[:-1])
            until(lambda: server.connections)
            time.sleep(0.05)
        until(lambda: value(COUNT % 499) == before + 1)
        until(lambda: not server.connections)

    def test_one_that_does_not_read(self, server: Served) -> None:
        """Its answers wait for it, and no more of its requests are answered meanwhile."""
        n = 40
        body = json.dumps({"instances": [[1, 2, 3, 4]] * 3000}).encode()
        before = value(COUNT % 200)
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.settimeout(SECONDS)
            connection.connect(("127.0.0.1", server.port))
            sender = threading.Thread(target=connection.sendall, args=(post(body=body) * n,))
            sender.start()
            until(lambda: value(COUNT % 200) > before)
            time.sleep(1)
            assert value(COUNT % 200) < before + n
            assert parse(server.send(post(close=True)))[0].status == 200
            reader = Reader(connection)
            answers = {reader.answer().body for _ in range(n)}
            assert len(answers) == 1
            sender.join()

    def test_one_that_reads_nothing_and_goes(self, server: Served) -> None:
        body = json.dumps({"instances": [[1, 2, 3, 4]] * 20_000}).encode()
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(("127.0.0.1", server.port))
            connection.sendall(post(body=body) * 2)
            until(lambda: any(protocol.flow.write_paused for protocol in set(server.connections)))
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        until(lambda: not server.connections and not server.tasks)


class TestStop:
    @pytest.mark.parametrize("path", ["/predict", SLOW])
    def test_what_is_in_flight_is_answered(self, app: FastAPI, gate: Gate, path: str) -> None:
        with served(app) as server:
            idle, busy, queued, half = (server.connect() for _ in range(4))
            idle.sendall(get(LIVE))
            assert Reader(idle).answer().status == 200
            busy.sendall(post(path))
            queued.sendall(post(path) * 3)
            half.sendall(post(path)[:-1])
            until(lambda: gate.inside == 2 and len(server.connections) == 4)
            time.sleep(0.05)
            server.server.should_exit = True
            assert idle.recv(100) == b""
            idle.close()
            time.sleep(0.2)
            assert server.thread.is_alive()
            gate.open.set()
            half.sendall(post(path)[-1:])
            for connection, n in ((busy, 1), (queued, 3), (half, 1)):
                reader = Reader(connection)
                answers = [reader.answer() for _ in range(n)]
                assert [answer.status for answer in answers] == [200] * n
                assert answers[-1].header("connection") == "close"
                reader.end()
                connection.close()
            server.thread.join(SECONDS)
            assert not server.thread.is_alive()

    def test_patience_ends(self, app: FastAPI, gate: Gate) -> None:
        with served(app, timeout_graceful_shutdown=1) as server, server.connect() as connection:
            connection.sendall(post())
            until(lambda: gate.inside)
            server.server.should_exit = True
            until(lambda: gate.cancelled)
            assert connection.recv(100) == b""

    def test_not_ready(self, app: FastAPI) -> None:
        with served(app) as server:
            app.state.ready = False
            [answer] = parse(server.send(post(close=True)))
            assert (answer.status, answer.json()["code"], answer.header("retry-after")) == (503, "not_ready", "1")


class TestUvicorn:
    def test_its_limit_of_connections(self, app: FastAPI) -> None:
        with served(app, limit_concurrency=2) as server, server.connect():
            until(lambda: server.connections)
            with server.connect() as connection:
                connection.sendall(post())
                answer = Reader(connection).answer()
                assert (answer.status, answer.body) == (503, b"Service Unavailable")

    @pytest.mark.parametrize("http", [FastLane, SlowRoad])
    def test_counts_requests(self, app: FastAPI, http: type[FastLane]) -> None:
        with served(app, http) as server:
            server.send(post() * 4 + get(LIVE) + get("/", close=True))
            assert server.server.server_state.total_requests == 6

    def test_an_access_log_takes_the_slow_road(self, app: FastAPI, caplog: pytest.LogCaptureFixture) -> None:
        with served(app, access_log=True) as server, caplog.at_level("INFO", "uvicorn.access"):
            caplog.handler.setLevel(0)
            [protocol] = [connect_and_see(server)]
            assert not protocol._fast

    def test_other_applications_have_no_fast_lane(self) -> None:
        with served(FastAPI()) as server:
            assert connect_and_see(server)._fast is False
            assert parse(server.send(post(close=True)))[0].status == 404

    def test_an_unforeseen_error(self, server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
        async def fail(*_: Any, **__: Any) -> None:
            raise KeyError("secret")

        monkeypatch.setattr(Engine, "infer", fail)
        answers = parse(server.send(post() + post(SLOW) + post(close=True)))
        assert [(answer.status, answer.json()["code"]) for answer in answers] == [(500, "internal_error")] * 3


def connect_and_see(server: Served) -> Any:
    """The server's end of a new connection."""
    with server.connect():
        until(lambda: server.connections)
        [protocol] = server.connections
    return protocol


class TestIdle:
    """The time that a connection may be idle counts from the last answer, by a timer that is seldom set anew."""

    @pytest.fixture
    def hasty(self, app: FastAPI) -> Iterator[Served]:
        with served(app, timeout_keep_alive=0.8) as server:
            yield server

    @pytest.mark.parametrize("path", ["/predict", SLOW])
    def test_an_answer_that_takes_longer(self, hasty: Served, gate: Gate, path: str) -> None:
        with hasty.connect() as connection:
            reader = Reader(connection)
            for _ in range(2):
                connection.sendall(post(path))
                until(lambda: gate.inside)
                time.sleep(1.0)
                gate.open.set()
                assert reader.answer().status == 200
                gate.open.clear()
                gate.inside = 0
            reader.end()

    def test_one_who_comes_again_in_time_may_stay(self, hasty: Served) -> None:
        with hasty.connect() as connection:
            reader = Reader(connection)
            began = time.monotonic()
            while time.monotonic() - began < 1.6:
                connection.sendall(post())
                assert reader.answer().status == 200
                time.sleep(0.05)
            reader.end()
        until(lambda: not hasty.connections)

    def test_many_requests_set_one_timer(self, server: Served) -> None:
        with server.connect() as connection:
            reader = Reader(connection)
            timers = set()
            for path in ("/predict", SLOW, LIVE) * 20:
                connection.sendall(get(path) if path == LIVE else post(path))
                assert reader.answer().status == 200
                [protocol] = server.connections
                until(lambda protocol=protocol: protocol.timeout_keep_alive_task is not None)  # type: ignore[misc]
                timers.add(id(protocol.timeout_keep_alive_task))
            assert len(timers) == 1
