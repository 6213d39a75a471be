"""What holds memory, or a connection, for longer than it may: raw bytes over real sockets, on both roads."""

import gzip
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from server.app import create_app
from server.budget import FREE, Budget
from server.connection import state_of
from server.protocol import FastLane
from server.settings import Settings
from tests import tiny
from tests.server.served_http import BODY, Answer, Reader, Served, SlowRoad, get, parse, post, read_all, served, until

LIVE = "/v2/health/live"
JSON = ("Content-Type", "application/json")
CHUNKED = ("Transfer-Encoding", "chunked")
ROADS = pytest.mark.parametrize("road", [FastLane, SlowRoad])


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    tiny.write_ensemble(root)
    return root


def app(models: Path, **settings: Any) -> Any:
    return create_app(Settings(models=models, default="tiny", **settings))


def budget_of(server: Served) -> Budget:
    state = state_of(server.server.config.loaded_app)
    assert state is not None
    budget: Budget = state.budget
    return budget


def ask(server: Served, body: bytes, *headers: tuple[str, str]) -> Answer:
    [answer] = parse(server.send(post(body=body, headers=[JSON, *headers], close=True)))
    return answer


@pytest.fixture(scope="module", params=[FastLane, SlowRoad])
def small(models: Path, request: pytest.FixtureRequest) -> Iterator[Served]:
    sizes = {"max_body_bytes": 2000, "max_url_bytes": 100, "max_header_bytes": 400}
    with served(app(models, max_rows=3, max_headers=9, **sizes), request.param) as server:
        yield server


class TestSizes:
    def test_a_body(self, small: Served) -> None:
        answer = ask(small, BODY + b" " * (2001 - len(BODY)))
        assert (answer.status, answer.json()["code"]) == (413, "too_large")
        assert "2000 bytes (max_body_bytes); got 2001" in answer.json()["error"]
        assert ask(small, BODY + b" " * (2000 - len(BODY))).status == 200

    def test_rows(self, small: Served) -> None:
        rows = [[1, 2, 3, 4]] * 4
        assert ask(small, json.dumps({"instances": rows[:3]}).encode()).status == 200
        answer = ask(small, json.dumps({"instances": rows}).encode())
        assert (answer.status, answer.json()["error"]) == (413, "instances: expected at most 3 rows; got 4")

    def test_the_rest(self, small: Served) -> None:
        said = [
            parse(small.send(data))[0].json()["error"]
            for data in (
                get("/" + "x" * 100),
                post(headers=[("X", "x" * 400)]),
                post(headers=[(f"X-{i}", "") for i in range(9)]),
            )
        ]
        assert "100 bytes (max_url_bytes)" in said[0]
        assert "9 (max_headers) of 400 bytes in all (max_header_bytes)" in said[1] == said[2]

    @pytest.mark.parametrize("coding", ["gzip", "GZIP", "x-gzip", " gzip "])
    def test_gzip(self, small: Served, coding: str) -> None:
        assert ask(small, gzip.compress(BODY), ("Content-Encoding", coding)).status == 200

    def test_gzip_that_is_too_much(self, small: Served) -> None:
        answer = ask(small, gzip.compress(BODY + b" " * 100_000), ("Content-Encoding", "gzip"))
        assert (answer.status, answer.json()["error"]) == (
            413,
            "body: expected at most 2000 bytes decompressed (max_body_bytes); got more",
        )

    @pytest.mark.parametrize(("coding", "status"), [("br", 415), ("gzip, gzip", 415), ("gzip", 400), ("deflate", 400)])
    def test_other_codings(self, small: Served, coding: str, status: int) -> None:
        assert ask(small, BODY, ("Content-Encoding", coding)).status == status

    def test_extensions_of_chunks(self, small: Served) -> None:
        """In pieces, or at once; before the chunk, or behind it."""
        head = post(body=b"", headers=[JSON, CHUNKED])
        with small.connect() as connection:
            connection.sendall(head + b"5;")
            for _ in range(50):
                connection.send(b"x=" * 100)
            assert Reader(connection).answer().status == 400
        good = b"%x;a=b\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
        assert parse(small.send(post(body=good, headers=[JSON, CHUNKED], close=True)))[0].status == 200

    def test_chunks_of_a_byte(self, small: Served) -> None:
        head, chunk = post(body=b"", headers=[JSON, CHUNKED]), b"1\r\n \r\n"
        with small.connect() as connection:
            connection.sendall(head)
            for _ in range(40):
                connection.send(chunk * 40)
            answer = Reader(connection).answer()
        assert (answer.status, answer.header("connection")) == (400, "close")
        assert answer.json()["error"].startswith("body: expected chunks, framed by 400 bytes more than they hold")


def test_gzip_that_takes_long(models: Path) -> None:
    """Beside the event loop."""
    with served(app(models)) as server:
        assert ask(server, gzip.compress(BODY + b" " * (1 << 23)), ("Content-Encoding", "gzip")).status == 200
        bomb = gzip.compress(BODY + b" " * (1 << 25))
        assert ask(server, bomb, ("Content-Encoding", "gzip")).status == 413


class TestBudget:
    LIMIT = 1 << 20

    @ROADS
    def test_bodies_in_flight(self, models: Path, road: type[FastLane]) -> None:
        """A large one that comes slowly keeps other large ones out, and no small one."""
        large = BODY + b" " * (self.LIMIT + FREE)
        with served(app(models, max_inflight_bytes=self.LIMIT), road) as server:
            budget = budget_of(server)
            with server.connect() as slow:
                slow.sendall(post(body=large)[:-1])
                until(lambda: budget.taken > self.LIMIT - 1000)
                with server.connect() as other:
                    other.sendall(post(body=large) + post())
                    reader = Reader(other)
                    answer = reader.answer()
                    assert reader.answer().status == 200
                assert (answer.status, answer.json()["code"]) == (503, "overloaded")
                assert answer.header("retry-after") == "1"
                assert "(max_inflight_bytes)" in answer.json()["error"]
                chunked = b"%x\r\n%b\r\n" % (len(large), large)
                with server.connect() as other:
                    other.sendall(post(body=chunked, headers=[JSON, CHUNKED]))
                    refused = Reader(other).answer()
                    assert (refused.status, refused.header("connection")) == (503, "close")
                assert ask(server, BODY).status == 200
                slow.sendall(b" ")
                assert Reader(slow).answer().status == 200
            until(lambda: budget.taken == 0)
            assert ask(server, large).status == 200

    @ROADS
    def test_who_goes_gives_back(self, models: Path, road: type[FastLane]) -> None:
        with served(app(models, max_inflight_bytes=self.LIMIT), road) as server:
            budget = budget_of(server)
            with server.connect() as gone:
                gone.sendall(post(body=BODY + b" " * self.LIMIT)[:-1])
                until(lambda: budget.taken)
            until(lambda: budget.taken == 0)

    def test_what_is_decompressed_counts(self, models: Path) -> None:
        with served(app(models, max_inflight_bytes=self.LIMIT)) as server:
            budget = budget_of(server)
            with server.connect() as slow:
                slow.sendall(post(body=BODY + b" " * self.LIMIT)[:-1])
                until(lambda: budget.taken > self.LIMIT - FREE)
                packed = gzip.compress(BODY + b" " * self.LIMIT)
                assert ask(server, packed, ("Content-Encoding", "gzip")).status == 503


class TestSlowReaders:
    """Those who ask for much and take nothing."""

    MANY = json.dumps({"instances": [[1, 2, 3, 4]] * 20_000}).encode()

    @pytest.fixture(params=[FastLane, SlowRoad])
    def server(self, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Served]:
        tiny.write_ensemble(tmp_path, max_batch_size=20_000)
        with served(app(tmp_path, max_rows=20_000, write_timeout=0.3), request.param, timeout_keep_alive=1) as server:
            yield server

    def connect(self, server: Served) -> socket.socket:
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", server.port))
        return connection

    @pytest.mark.parametrize("times", [1, 4])
    @pytest.mark.parametrize("close", [False, True])
    def test_is_cut_off(self, server: Served, times: int, close: bool) -> None:
        budget = budget_of(server)
        with self.connect(server) as connection:
            connection.sendall(post(body=self.MANY) * (times - 1) + post(body=self.MANY, close=close))
            until(lambda: budget.taken)
            until(lambda: not server.connections)
            until(lambda: not server.tasks)
        assert budget.taken == 0

    def test_who_reads_slowly_is_served(self, server: Served) -> None:
        with self.connect(server) as connection:
            connection.sendall(post(body=self.MANY, close=True))
            connection.settimeout(30)
            [answer] = parse(read_all(connection))
        assert len(answer.json()["predictions"]) == 20_000


class TestConnections:
    @pytest.fixture(params=[FastLane, SlowRoad])
    def server(self, models: Path, request: pytest.FixtureRequest) -> Iterator[Served]:
        with served(app(models, max_connections=2), request.param) as server:
            yield server

    def test_more_are_told(self, server: Served) -> None:
        with server.connect() as one, server.connect() as other:
            for connection in (one, other):
                connection.sendall(post())
                assert Reader(connection).answer().status == 200
            for data in (post(), get("/")):
                [answer] = parse(server.send(data))
                assert (answer.status, answer.json()["code"]) == (503, "overloaded")
                assert (answer.header("connection"), answer.header("retry-after")) == ("close", "1")
                assert "at most 2 of a worker (max_connections)" in answer.json()["error"]
            one.sendall(post())
            assert Reader(one).answer().status == 200
        until(lambda: not server.connections)
        assert parse(server.send(post(close=True)))[0].status == 200

    def test_health_is_answered_all_the_same(self, server: Served) -> None:
        with server.connect(), server.connect():
            until(lambda: len(server.connections) == 2)
            assert [answer.status for answer in parse(server.send(get(LIVE)))] == [200]

    def test_those_who_say_nothing_are_soon_closed(self, server: Served) -> None:
        with server.connect(), server.connect():
            until(lambda: len(server.connections) == 2)
            assert server.send(b"") == b""
            assert [answer.status for answer in parse(server.send(b"GET /"))] == [408]

    def test_far_too_many_are_not_even_told(self, server: Served) -> None:
        many = [server.connect() for _ in range(18)]
        until(lambda: len(server.connections) == 18)
        with server.connect() as connection:
            assert connection.recv(1) == b""
        for connection in many:
            connection.close()
        until(lambda: not server.connections)
        assert parse(server.send(post(close=True)))[0].status == 200


def test_hosts(models: Path) -> None:
    with served(app(models)) as server:
        for host, status in (("127.0.0.1", 200), ("localhost:80", 200), ("", 400), ("a/b", 400), ("a@b", 400)):
            [answer] = parse(server.send(post(headers=[("Host", host), JSON], close=True)))
            assert answer.status == status
        url = "http://b.example/predict"
        assert parse(server.send(post(url, headers=[("Host", "a.example"), JSON])))[0].status == 400
        assert parse(server.send(post(url, headers=[("Host", "b.example"), JSON], close=True)))[0].status == 200
