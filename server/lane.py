"""The fast lane: from the parser's calls to the transport, for predictions, by the code that FastAPI's routes run."""

import asyncio
import re
import time
from dataclasses import dataclass

from server import telemetry, tracing
from server.errors import CommitteeError
from server.manifest import NAME_PATTERN
from server.rest import exchange
from server.rest.body import too_large
from server.rest.errors import reply_to, reply_to_unforeseen
from server.rest.exchange import Admitted, Asked, Exchange
from server.rest.infer import infer
from server.rest.reply import Headers, Reply, values_of
from server.rest.state import State
from server.rest.tf_predict import tf_predict
from server.turn import Connection, Turn

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_NAME = NAME_PATTERN.removeprefix("^").removesuffix("$")
_VERSION = r"(?:/versions/([1-9][0-9]{0,8}))?"
_QUERY = r"(?:\?([^#]*))?"


@dataclass(frozen=True, slots=True)
class _Road:
    """Routes that one exchange answers."""

    pattern: re.Pattern[bytes]
    """As clients write them. What is written otherwise, percent-encoded or with a scheme, FastAPI reads."""
    route: str
    of_version: str
    exchange: Exchange


_ROADS = (
    _Road(
        re.compile(rf"/v1/ensembles/({_NAME}){_VERSION}/predict{_QUERY}".encode()),
        "/v1/ensembles/{name}/predict",
        "/v1/ensembles/{name}/versions/{version}/predict",
        exchange.predict,
    ),
    _Road(
        re.compile(rf"/v2/models/({_NAME}(?:\.{_NAME})?){_VERSION}/infer{_QUERY}".encode()),
        "/v2/models/{model}/infer",
        "/v2/models/{model}/versions/{version}/infer",
        infer,
    ),
    _Road(
        re.compile(rf"/v1/models/({_NAME}(?:\.{_NAME})?){_VERSION}:predict{_QUERY}".encode()),
        "/v1/models/{model}:predict",
        "/v1/models/{model}/versions/{version}:predict",
        tf_predict,
    ),
)


@dataclass(frozen=True, slots=True)
class Target:
    """Of a request that may take the fast lane."""

    route: str
    name: str | None
    version: int | None
    query: bytes
    exchange: Exchange


def find_target(url: bytes) -> Target | None:
    """The route that a URL means; None if it is none of the fast lane's, or not certainly one."""
    path, _, query = url.partition(b"?")
    if path == b"/predict" and b"#" not in query:
        return Target("/predict", None, None, query, exchange.predict)
    for road in _ROADS:
        if match := road.pattern.fullmatch(url):
            name, version, query = match.groups(b"")
            route = road.of_version if version else road.route
            return Target(route, name.decode(), int(version) if version else None, query, road.exchange)
    return None


@dataclass(slots=True)  # not frozen: what it says is read once
class Head:
    """A request line and headers, of a request that may take the fast lane, and what they say."""

    target: Target
    asked: Asked
    given_id: str | None
    length: int | None = None
    """Bytes of the body; None: nobody has looked yet."""


def read_head(target: Target, headers: Headers) -> Head:
    asked = Asked(headers, target.query, target.name, target.version)
    return Head(target, asked, next(iter(values_of(headers, b"x-request-id")), None))


class PredictTurn(Turn):
    """A predict request. Its body is collected before anything is done, and then answered in a task of its own."""

    def __init__(self, connection: Connection, state: State, head: Head, *, keep_alive: bool, expects: bool) -> None:
        super().__init__(connection, head.asked.headers, keep_alive=keep_alive)
        self.head = head
        self.route = head.target.route
        self._state = state
        self.expects = expects
        """Whether the client waits to be told that it may send the body."""
        self._body: bytes | bytearray = b""
        self._admitted: Admitted | None = None
        self._fault: CommitteeError | None = None
        self._task: asyncio.Task[None] | None = None
        self._clock: float | None = None

    def begin(self) -> None:
        self._clock = time.perf_counter()
        self._began = self._connection.loop.time()
        try:
            self._admitted = exchange.admit(self._state, self.headers, self.head.length)
        except CommitteeError as exc:
            self._fault = exc
        if self._fault is not None or not self.more_body:
            self._start()
        elif self.expects:
            self.transport.write(CONTINUE)

    @property
    def answering(self) -> bool:
        return self._task is not None

    def feed(self, chunk: bytes) -> None:
        if self._fault is not None or self.response_complete:
            return
        if not self._body:
            self._body = chunk
        else:
            if isinstance(self._body, bytes):
                self._body = bytearray(self._body)
            self._body += chunk
        try:
            self._check_size()
        except CommitteeError as exc:
            self._body = b""
            self._fault = exc
            if self._clock is not None:
                self._start()

    def _check_size(self) -> None:
        """Raises TooLarge, Overloaded."""
        size, bounds = len(self._body), self._state.bounds
        if size > bounds.max_body_bytes:
            raise too_large(bounds)
        if self._admitted is not None:
            self._admitted.share.hold(size)

    def finish(self) -> None:
        self.more_body = False
        if self._clock is not None and self._task is None:
            self._start()

    def leave(self) -> None:
        self.disconnected = True
        if self._task is not None:
            self._task.cancel()
            self._connection.server_state.tasks.discard(self._task)  # if it has not begun, it never will
        elif self._clock is not None:
            self._count(499)  # its body never came to an end
            self._give_back()

    def _start(self) -> None:
        if self._fault is None and self._clock is not None:
            telemetry.observe_part("receive", time.perf_counter() - self._clock)
        self._task = self._connection.loop.create_task(self._answer())
        self._connection.server_state.tasks.add(self._task)

    async def _answer(self) -> None:
        request_id = telemetry.choose_request_id(self.head.given_id)
        telemetry.request_id.set(request_id)  # the task's own
        status = 499  # as `server.rest.observer` has it
        trace = tracing.begin(f"POST {self.route}", self._header, self._clock or time.perf_counter())
        try:
            reply = await self._reply()
            status = reply.status
            if self.flow.write_paused and not self.disconnected:
                await self.flow.drain()
            if not self.disconnected:
                if trace is not None:
                    reply.headers = [*reply.headers, (b"traceparent", trace.traceparent.encode())]
                self.write(reply, request_id)
        except asyncio.CancelledError:
            if not self.disconnected:
                self.transport.close()  # the server's patience with the stop is at its end
            raise
        finally:
            self._count(status)
            self._give_back()
            if trace is not None:
                tracing.end(trace, tracing.of_http("POST", self.head.target.route, status), failed=status >= 499)
            self._connection.server_state.tasks.discard(self._task)

    def _header(self, name: str) -> str | None:
        return next(iter(values_of(self.headers, name.encode())), None)

    async def _reply(self) -> Reply:
        body, self._body = bytes(self._body), b""
        try:
            if self._fault is not None:
                raise self._fault
            assert self._admitted is not None
            self._admitted.engine.check_load()
            return await self.head.target.exchange(self.head.asked, body, self._admitted, began=self._began)
        except CommitteeError as exc:
            return reply_to(exc, self.headers, self.head.target.route)
        except Exception as exc:
            return reply_to_unforeseen(exc)

    def _give_back(self) -> None:
        if self._admitted is not None:
            self._admitted.share.give_back()

    def _count(self, status: int) -> None:
        assert self._clock is not None
        seconds = time.perf_counter() - self._clock
        telemetry.count_request(route=self.head.target.route, method="POST", status=status, seconds=seconds)
