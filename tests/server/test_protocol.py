"""What a client may send, and how long it may take, on every route: raw bytes over real sockets."""

import itertools
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from server import protocol
from server.app import create_app
from server.bounds import Bounds
from server.protocol import FastLane
from server.settings import Settings
from tests import tiny
from tests.server.served_http import (
    BODY,
    SECONDS,
    Answer,
    Reader,
    Served,
    SlowRoad,
    get,
    parse,
    post,
    read_all,
    served,
    until,
)
from tests.server.test_telemetry import value

LIVE = "/v2/health/live"


BOUNDS = Bounds()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    tiny.write_ensemble(root)
    return root


@pytest.fixture(scope="module")
def server(models: Path) -> Iterator[Served]:
    with served(create_app(Settings(models=models, default="tiny"))) as server:
        yield server


def hasty_app(models: Path) -> FastAPI:
    return create_app(Settings(models=models, default="tiny", header_timeout=0.4, body_timeout=0.8))


@pytest.fixture(scope="module", params=[FastLane, SlowRoad])
def hasty(models: Path, request: pytest.FixtureRequest) -> Iterator[Served]:
    with served(hasty_app(models), request.param) as server:
        yield server


def refusal(answer: Answer, status: int, code: str) -> str:
    assert answer.status == status
    assert answer.header("connection") == "close"
    body = answer.json()
    assert set(body) == {"error", "code", "request_id"}
    assert body["request_id"] == answer.header("x-request-id")
    assert body["code"] == code
    return str(body["error"])


def refused(server: Served, data: bytes) -> Answer:
    """The one answer, after which the connection is closed."""
    [answer] = parse(server.send(data))
    return answer


LIMITS = [
    pytest.param("/predict", id="fast"),
    pytest.param(LIVE, id="slow"),
]


class TestLimits:
    @pytest.mark.parametrize("path", LIMITS)
    def test_a_url(self, server: Served, path: str) -> None:
        room = BOUNDS.max_url_bytes - len(path) - 1
        assert parse(server.send(post(f"{path}?{'x' * room}", close=True)))[0].status in (400, 405)
        answer = refused(server, post(f"{path}?{'x' * (room + 1)}"))
        assert refusal(answer, 414, "uri_too_long") == "URL: expected at most 8192 bytes (max_url_bytes); got more"
        refusal(refused(server, b"GET /" + b"x" * 1_000_000), 414, "uri_too_long")

    @pytest.mark.parametrize("path", LIMITS)
    def test_many_headers(self, server: Served, path: str) -> None:
        headers = [("Content-Type", "application/json"), *((f"X-{i}", "") for i in range(96))]
        assert parse(server.send(post(path, headers=headers, close=True)))[0].status in (200, 405)
        answer = refused(server, post(path, headers=[*headers, ("X-More", "")], close=True))
        said = "headers: expected at most 100 (max_headers) of 16384 bytes in all (max_header_bytes); got more"
        assert refusal(answer, 431, "headers_too_large") == said

    @pytest.mark.parametrize("path", LIMITS)
    @pytest.mark.parametrize("n", [1, 3])
    def test_long_headers(self, server: Served, path: str, n: int) -> None:
        long = [(f"X-{i}", "x" * (16_200 // n)) for i in range(n)]
        assert parse(server.send(post(path, headers=[("Content-Type", "application/json"), *long], close=True)))[
            0
        ].status in (200, 405)
        refusal(refused(server, post(path, headers=[*long, ("Y", "x" * 300)])), 431, "headers_too_large")

    def test_a_header_without_an_end(self, server: Served) -> None:
        with server.connect() as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: ")
            sent = connection.send(b"x" * 10_000_000)
            refusal(Reader(connection).answer(), 431, "headers_too_large")
            assert sent < 10_000_000

    @pytest.mark.parametrize("path", LIMITS)
    def test_trailers(self, server: Served, path: str) -> None:
        chunked = [("Content-Type", "application/json"), ("Transfer-Encoding", "chunked")]
        body = b"%x\r\n%b\r\n0\r\n" % (len(BODY), BODY)
        assert parse(server.send(post(path, body + b"X-A: b\r\n\r\n", chunked, close=True)))[0].status in (200, 405)
        if path == "/predict":
            trailers = b"".join(b"X-%d: \r\n" % i for i in range(101))
            refusal(refused(server, post(path, body + trailers + b"\r\n", chunked)), 431, "headers_too_large")

    def test_are_counted(self, server: Served) -> None:
        name = 'committee_http_requests_total{method="OTHER",route="unmatched",status="431"}'
        before = value(name)
        refused(server, get("/").replace(b"Host", b"X: " + b"x" * 20_000 + b"\r\nHost"))
        until(lambda: value(name) == before + 1)


@pytest.mark.parametrize("path", ["/predict", LIVE])
@pytest.mark.parametrize(
    ("headers", "said"),
    [
        (["Host: a", "Host: b"], "Host: expected one; got several"),
        (["Host: a", "Host: a"], "Host: expected one; got several"),
        ([], "Host: expected one; got none"),
        (["Host: a", "Content-Length: 0", "Content-Length: 0"], "expected HTTP/1.1; got something else"),
        (["Host: a", "Content-Length: 3", "Transfer-Encoding: chunked"], "expected HTTP/1.1; got something else"),
        (["Host: a", "Transfer-Encoding: chunked", "Content-Length: 3"], "expected HTTP/1.1; got something else"),
        (["Host: a", "Content-Length: -1"], "expected HTTP/1.1; got something else"),
        (["Host: a", "Content-Length: +1"], "expected HTTP/1.1; got something else"),
        (["Host: a", "Content-Length: 1, 1"], "expected HTTP/1.1; got something else"),
        (["Host: a", "Transfer-Encoding: chunked, gzip"], "expected HTTP/1.1; got something else"),
        (["Host: a", "X : b"], "expected HTTP/1.1; got something else"),
        (["Host: a", " folded"], "expected HTTP/1.1; got something else"),
    ],
)
def test_framing(server: Served, path: str, headers: list[str], said: str) -> None:
    """What comes behind is never read as a request."""
    head = "\r\n".join([f"POST {path} HTTP/1.1", *headers, "", ""]).encode()
    answer = refused(server, head + post(close=True))
    assert refusal(answer, 400, "invalid_input") == said


@pytest.mark.parametrize(
    "data", [b"\x16\x03\x01\x02\x00", b"GET / HTTP/9.9\r\n\r\n", b"hello\r\n\r\n", b"GET  / HTTP/1.1\r\n\r\n"]
)
def test_no_http(server: Served, data: bytes) -> None:
    refusal(refused(server, data), 400, "invalid_input")


def test_http_1_0_needs_no_host(server: Served) -> None:
    request = post(version="1.0").replace(b"Host: x\r\n", b"")
    [answer] = parse(server.send(request))
    assert (answer.status, answer.header("connection")) == (200, "close")


@pytest.mark.parametrize("before", [post(), get(LIVE)])
def test_a_refusal_waits_its_turn(server: Served, before: bytes) -> None:
    answers = parse(server.send(before * 3 + b"GET / HTTP/1.1\r\nX-Request-Id: mine\r\n\r\n" + before))
    assert [answer.status for answer in answers] == [200, 200, 200, 400]
    assert answers[-1].header("x-request-id") == "mine"


@pytest.mark.parametrize("before", [post(), get(LIVE)])
@pytest.mark.parametrize("chunked", ["/predict", "/v1/ensembles/t%69ny/predict"])
def test_a_fault_in_a_body(server: Served, before: bytes, chunked: str) -> None:
    """Of a request on either road, alone or behind others."""
    bad = post(
        chunked, b'5\r\n{"ins\r\nzz\r\n', [("Content-Type", "application/json"), ("Transfer-Encoding", "chunked")]
    )
    for data, statuses in ((bad, [400]), (before * 2 + bad, [200, 200, 400])):
        answers = parse(server.send(data))
        assert [answer.status for answer in answers] == statuses
        assert refusal(answers[-1], 400, "invalid_input") == "expected HTTP/1.1; got something else"


WISHES = [("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", "h2c"), ("HTTP2-Settings", "AAMAAABk")]


@pytest.mark.parametrize("path", ["/predict", "/v1/ensembles/t%69ny/predict"])
@pytest.mark.parametrize("chunked", [False, True])
def test_whoever_wishes_another_protocol_is_answered_in_this_one(server: Served, path: str, chunked: bool) -> None:
    """In full, and so is what comes behind, however it comes."""
    headers = [*WISHES, ("Content-Type", "application/json")]
    if chunked:
        request = post(path, b"19\r\n" + BODY + b"\r\n0\r\n\r\n", [*headers, ("Transfer-Encoding", "chunked")])
    else:
        request = post(path, headers=headers)
    plain = parse(server.send(post(path, close=True)))[0].json()
    data = request * 2 + get(LIVE, close=True)
    for cuts in ([], [len(request) - 5], range(1, len(data))):
        places = [0, *cuts, len(data)]
        with server.connect() as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
            for begin, end in itertools.pairwise(places):
                connection.sendall(data[begin:end])
            answers = parse(read_all(connection))
        assert [answer.status for answer in answers] == [200, 200, 200]
        assert [answer.json()["predictions"] for answer in answers[:2]] == [plain["predictions"]] * 2


@pytest.mark.parametrize("wish", [get("/", method="CONNECT"), get("x:80", method="CONNECT")])
def test_there_are_no_tunnels(server: Served, wish: bytes) -> None:
    [answer] = parse(server.send(wish + get(LIVE)))
    assert refusal(answer, 400, "invalid_input") == "expected HTTP/1.1; got something else"


class TestTime:
    def test_what_came_while_the_loop_was_held_up_is_read(self, hasty: Served) -> None:
        with ExitStack() as stack:
            connections = [stack.enter_context(hasty.connect()) for _ in range(20)]
            until(lambda: len(hasty.connections) == 20)
            loop = next(iter(hasty.connections)).loop
            held = threading.Event()
            ours, theirs = (stack.enter_context(end) for end in socket.socketpair())

            def hold_up() -> None:
                """As a long request does: in the turn of those that read."""
                loop.remove_reader(theirs)
                held.set()
                time.sleep(0.6)  # longer than the headers may take

            loop.call_soon_threadsafe(loop.add_reader, theirs, hold_up)
            ours.sendall(b"now")
            held.wait(SECONDS)
            for connection in connections:
                connection.sendall(post(close=True))
            for connection in connections:
                assert [answer.status for answer in parse(read_all(connection))] == [200]

    @pytest.mark.parametrize(
        "data", [b"P", b"POST /predict HTTP/1.1\r\nHost: x\r\nX", b"GET / HTTP/1.1\r\nHost: x\r\n"]
    )
    def test_slow_headers(self, hasty: Served, data: bytes) -> None:
        began = time.monotonic()
        answer = refused(hasty, data)
        assert (
            refusal(answer, 408, "request_timeout")
            == "headers: expected all of it within 0.4 seconds (header_timeout); got less"
        )
        assert 0.3 < time.monotonic() - began < 5

    def test_headers_that_trickle(self, hasty: Served) -> None:
        with hasty.connect() as connection:
            began = time.monotonic()
            connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n")
            while time.monotonic() - began < 0.2:
                connection.sendall(b"X: y\r\n")
                time.sleep(0.02)
            refusal(Reader(connection).answer(), 408, "request_timeout")
            assert time.monotonic() - began < 5

    @pytest.mark.parametrize("path", ["/predict", "/v1/ensembles/t%69ny/predict"])
    def test_a_slow_body(self, hasty: Served, path: str) -> None:
        [answer] = parse(hasty.send(post(path)[:-1]))
        assert (
            refusal(answer, 408, "request_timeout")
            == "body: expected all of it within 0.8 seconds (body_timeout); got less"
        )
        answers = parse(hasty.send(post() + get(LIVE) + post(path)[:-1]))
        assert [answer.status for answer in answers] == [200, 200, 408]

    def test_a_body_in_time(self, hasty: Served) -> None:
        with hasty.connect() as connection:
            for _ in range(3):
                reader = Reader(connection)
                for part in (post()[:40], post()[40:-1], post()[-1:]):
                    connection.sendall(part)
                    time.sleep(0.1)
                assert reader.answer().status == 200

    def test_a_body_that_nobody_waits_for(self, hasty: Served) -> None:
        """It was refused unread; then the connection only closes."""
        with hasty.connect() as connection:
            connection.sendall(post(headers=[("Content-Type", "application/json"), ("Content-Length", "99999999")]))
            reader = Reader(connection)
            assert reader.answer().status == 413
            reader.end()

    def test_a_silent_connection(self, hasty: Served) -> None:
        for data in (b"", b"\r\n"):
            began = time.monotonic()
            assert hasty.send(data) == b""
            assert time.monotonic() - began < 5

    def test_a_slow_body_is_counted_with_its_route(self, models: Path) -> None:
        name = 'committee_http_requests_total{method="POST",route="/predict",status="408"}'
        before = value(name)
        with served(hasty_app(models)) as server:
            server.send(post()[:-1])
        assert value(name) == before + 1

    @pytest.mark.parametrize("data", [b"", post(), get(LIVE), b"\r\n"])
    def test_idle_connections_close(self, models: Path, data: bytes) -> None:
        app = create_app(Settings(models=models, default="tiny"))
        with served(app, timeout_keep_alive=0.2) as server, server.connect() as connection:
            connection.sendall(post())
            reader = Reader(connection)
            assert reader.answer().status == 200
            connection.sendall(data)
            if len(data) > 2:
                assert reader.answer().status == 200
            reader.end()
            until(lambda: not server.connections)


JSON = ("Content-Type", "application/json")
OTHER = BODY.replace(b"1,2", b"3,1")


class Knowing(FastLane):
    """Counts the requests whose heads it knew."""

    taken = 0

    def _take(self, *given: Any) -> None:
        Knowing.taken += 1
        super()._take(*given)


@pytest.fixture
def knowing(models: Path) -> Iterator[Served]:
    Knowing.taken = 0
    with served(create_app(Settings(models=models, default="tiny")), Knowing) as server:
        yield server


def heads(server: Served) -> dict[bytes, Any]:
    app = server.server.config.app
    assert isinstance(app, FastAPI)
    known: dict[bytes, Any] = app.state.heads
    return known


def tagged(*headers: tuple[str, str], path: str = "/predict", body: bytes = BODY, **how: Any) -> bytes:
    return post(path, body, [JSON, ("X-Request-Id", "mine"), *headers], **how)


def exchange(server: Served, *pieces: bytes, n: int = 1) -> list[Answer]:
    """On one connection, piece by piece; each is read by itself."""
    with server.connect() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for number, piece in enumerate(pieces):
            if number:
                time.sleep(0.05)
            connection.sendall(piece)
        reader = Reader(connection)
        return [reader.answer() for _ in range(n)]


class TestKnownHeads:
    @pytest.mark.parametrize(
        "request_",
        [
            tagged(),
            tagged(path="/predict?strategy=vote&detail=members"),
            tagged(path="/v1/ensembles/tiny/versions/1/predict"),
            tagged(path="/v1/ensembles/nobody/predict"),
            tagged(("Accept", "application/x-npy")),
            tagged(("X-Request-Deadline-Ms", "none")),
            tagged(body=b"{"),
            tagged(body=b""),
            post("/predict", bytes(16), [("Content-Type", "application/octet-stream"), ("X-Request-Id", "raw")]),
        ],
    )
    def test_are_answered_as_others(self, knowing: Served, request_: bytes) -> None:
        [parsed] = exchange(knowing, request_)
        assert len(heads(knowing)) == 1
        [again] = exchange(knowing, request_)
        assert Knowing.taken == 1
        assert again == parsed
        with knowing.connect() as connection:  # and many on one connection
            reader = Reader(connection)
            for _ in range(5):
                connection.sendall(request_)
                assert reader.answer() == parsed
        assert Knowing.taken == 6
        until(lambda: not knowing.tasks)

    def test_bodies_are_each_requests_own(self, knowing: Served) -> None:
        """Those of the length that the head says are taken with it, whatever is in them."""
        expected = [exchange(knowing, tagged(("X", "y"), body=body))[0].json() for body in (BODY, OTHER)]
        assert expected[0] != expected[1]
        exchange(knowing, tagged())
        for body, answer in ((OTHER, expected[1]), (BODY, expected[0])):
            assert exchange(knowing, tagged(body=body))[0].json() == answer
        assert Knowing.taken == 3
        longer = BODY.replace(b"1,2", b"1,22")
        assert exchange(knowing, tagged(body=longer))[0].status == 200
        assert Knowing.taken == 3

    @pytest.mark.parametrize(
        ("pieces", "n"),
        [
            pytest.param([tagged() * 3], 3, id="pipelined"),
            pytest.param([tagged() + tagged(("X", "y")), tagged()], 3, id="after others"),
            pytest.param([tagged() + b"\r\n", tagged()], 2, id="with an empty line behind"),
            pytest.param([b"\r\n" + tagged(), tagged()], 2, id="with an empty line before"),
            pytest.param([tagged()[:-1], tagged()[-1:]], 1, id="a body in two pieces"),
            pytest.param([tagged()[:30], tagged()[30:]], 1, id="a head in two pieces"),
            pytest.param([tagged()[: -len(BODY)], BODY], 1, id="the body by itself"),
            pytest.param([tagged() + tagged()[:40], tagged()[40:]], 2, id="one and a half"),
            pytest.param([tagged() + get(LIVE) + tagged(), tagged()], 4, id="both roads"),
            pytest.param([tagged(), get(LIVE), tagged()], 3, id="both roads apart"),
        ],
    )
    def test_in_whatever_pieces_they_come(self, knowing: Served, pieces: list[bytes], n: int) -> None:
        [expected] = exchange(knowing, tagged())
        answers = exchange(knowing, *pieces, n=n)
        assert [answer for answer in answers if answer.header("x-request-id") == "mine"] == [expected] * (
            n - (get(LIVE) in b"".join(pieces))
        )

    def test_a_request_that_ends_in_known_bytes_is_none(self, knowing: Served) -> None:
        """A body that looks like a request is a body."""
        exchange(knowing, tagged())
        inner = tagged()
        [answer] = exchange(knowing, post("/predict", inner, [JSON]))
        assert answer.status == 400
        [answer] = exchange(knowing, post("/predict", inner, [JSON])[: -len(inner)], inner)
        assert answer.status == 400
        assert Knowing.taken == 0

    @pytest.mark.parametrize(
        "request_",
        [
            pytest.param(tagged(close=True), id="Connection: close"),
            pytest.param(tagged(version="1.0"), id="HTTP/1.0"),
            pytest.param(tagged(("Connection", "keep-alive"), version="1.0"), id="HTTP/1.0 that would stay"),
            pytest.param(
                tagged(("Transfer-Encoding", "chunked"), body=b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)),
                id="chunked",
            ),
            pytest.param(tagged(("X-Long", "x" * 2048)), id="a long head"),
            pytest.param(tagged(path="/v1/ensembles/t%69ny/predict"), id="the other road"),
            pytest.param(get(LIVE), id="no predict request"),
        ],
    )
    def test_others_are_not_remembered(self, knowing: Served, request_: bytes) -> None:
        for _ in range(2):
            [answer] = exchange(knowing, request_)
            assert answer.status == 200
        assert heads(knowing) == {}
        assert Knowing.taken == 0

    def test_who_expects_to_be_told_to_go_on_is(self, knowing: Served) -> None:
        request = tagged(("Expect", "100-continue"))
        for _ in range(2):
            with knowing.connect() as connection:
                connection.sendall(request[: -len(BODY)])
                assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
                connection.sendall(BODY)
                assert Reader(connection).answer().status == 200
        exchange(knowing, request)
        assert heads(knowing) == {}

    @pytest.mark.parametrize("spare", [0, 1])
    def test_the_longest(self, knowing: Served, spare: int) -> None:
        """2048 bytes are known, one more are not."""
        head = len(tagged(("X", ""))) - len(BODY)
        request = tagged(("X", "x" * (2048 - head + spare)))
        for _ in range(2):
            assert exchange(knowing, request)[0].status == 200
        assert Knowing.taken == 1 - spare

    def test_no_more_than_so_many(self, knowing: Served) -> None:
        with knowing.connect() as connection:
            reader = Reader(connection)
            for number in [*range(protocol.HEADS + 10), *range(protocol.HEADS + 10)]:
                connection.sendall(post("/predict", BODY, [JSON, ("X-Request-Id", f"r{number}")]))
                answer = reader.answer()
                assert (answer.status, answer.header("x-request-id")) == (200, f"r{number}")
                assert len(heads(knowing)) <= protocol.HEADS

    def test_nothing_is_taken_from_another_request(self, knowing: Served) -> None:
        """What is known is known by all its bytes."""
        said = [("X-Request-Id", "one"), ("X-Request-Id", "two"), ("Authorization", "Bearer a"), ("X-Rest", "")]
        for header in said * 2:
            [answer] = exchange(knowing, post("/predict", BODY, [JSON, header]))
            given = header[1] if header[0] == "X-Request-Id" else None
            assert (answer.header("x-request-id") == given) == (given is not None)
        assert Knowing.taken == len(said) == len(heads(knowing))
        by_headers = {dict(head.asked.headers).get(b"authorization") for head in heads(knowing).values()}
        assert by_headers == {None, b"Bearer a"}
        made = [exchange(knowing, post("/predict", BODY, [JSON]))[0].header("x-request-id") for _ in range(3)]
        assert len(set(made)) == 3  # an id that was made is not remembered

    def test_a_limit_of_connections_counts_all(self, models: Path) -> None:
        app = create_app(Settings(models=models, default="tiny"))
        with served(app, limit_concurrency=50) as server:
            for _ in range(2):
                assert exchange(server, tagged())[0].status == 200
            assert heads(server) == {}

    def test_a_server_that_stops_takes_no_more(self, knowing: Served) -> None:
        exchange(knowing, tagged())
        app = knowing.server.config.app
        assert isinstance(app, FastAPI)
        app.state.ready = False
        try:
            assert exchange(knowing, tagged())[0].status == 503
        finally:
            app.state.ready = True

    def test_are_counted_and_timed_as_others(self, knowing: Served) -> None:
        name = 'committee_http_requests_total{method="POST",route="/predict",status="200"}'
        before = value(name)
        for _ in range(4):
            exchange(knowing, tagged())
        until(lambda: value(name) == before + 4)
        assert knowing.server.server_state.total_requests == 4

    def test_garbage_behind_one_is_refused(self, knowing: Served) -> None:
        exchange(knowing, tagged())
        with knowing.connect() as connection:
            reader = Reader(connection)
            connection.sendall(tagged())
            assert reader.answer().status == 200
            connection.sendall(b"\x16\x03\x01")
            refusal(reader.answer(), 400, "invalid_input")


class Patient(FastLane):
    LAST_SECONDS = 60.0


class PatientSlowRoad(SlowRoad):
    LAST_SECONDS = 60.0


class TestTheStop:
    @pytest.mark.parametrize("http", [Patient, PatientSlowRoad])
    def test_a_request_that_is_on_its_way_is_answered(self, models: Path, http: type[FastLane]) -> None:
        """On a connection that was idle, and on one that has had none."""
        with (
            served(create_app(Settings(models=models, default="tiny")), http) as server,
            server.connect() as used,
            server.connect() as fresh,
        ):
            used.sendall(post())
            assert Reader(used).answer().header("connection") is None
            until(lambda: len(server.connections) == 2)
            server.server.should_exit = True
            until(lambda: all(connection._stopping for connection in server.connections))
            for connection in (used, fresh):
                connection.sendall(post())
                reader = Reader(connection)
                answer = reader.answer()
                assert (answer.status, answer.header("connection")) == (200, "close")
                reader.end()

    def test_what_stays_idle_is_closed(self, models: Path) -> None:
        with served(create_app(Settings(models=models, default="tiny"))) as server, server.connect() as idle:
            until(lambda: len(server.connections) == 1)
            server.server.should_exit = True
            assert read_all(idle) == b""
