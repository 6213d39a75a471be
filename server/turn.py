"""A turn is one request of a connection that is answered without ASGI, in place of uvicorn's cycle.

uvicorn's protocol starts turns and cycles alike, one after the other, and reads of both whether they are complete, so
that requests of either road may follow each other on a connection.
"""

import asyncio
from abc import ABC, abstractmethod
from typing import Protocol

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle
from uvicorn.server import ServerState

from server import telemetry
from server.framing import Refused
from server.rest.errors import error_reply
from server.rest.reply import Headers, Reply, values_of

UNMATCHED = "unmatched"
"""The route of what is refused before it has one."""


class Connection(Protocol):
    """What a turn needs of the protocol whose it is."""

    transport: asyncio.Transport
    flow: FlowControl
    server_state: ServerState
    loop: asyncio.AbstractEventLoop
    unheard: asyncio.Event
    """What uvicorn sets of cycles, and no turn waits for."""

    def on_response_complete(self) -> None: ...

    def linger(self) -> None:
        """Close once the client has had time to read, though it may still send."""


class Turn(RequestResponseCycle, ABC):
    """A request whose answer is written here. uvicorn's constructor, for ASGI, is not called."""

    route: str | None = None
    """The template by which it is counted, if it is."""

    def __init__(self, connection: Connection, headers: Headers, *, keep_alive: bool) -> None:
        self._connection = connection
        self.headers = headers
        self.transport = connection.transport
        self.flow = connection.flow
        self.keep_alive = keep_alive
        self.message_event = connection.unheard
        self.disconnected = False
        self.more_body = True
        self.response_started = False
        self.response_complete = False

    @property
    def answering(self) -> bool:
        """Whether the answer is on its way."""
        return self.response_started

    @abstractmethod
    def begin(self) -> None:
        """All that came before is answered."""

    def feed(self, chunk: bytes) -> None:
        """A part of the body, whether or not the turn has begun."""

    def finish(self) -> None:
        """The body has ended."""
        self.more_body = False

    def leave(self) -> None:
        """Nobody waits for the answer any more."""
        self.disconnected = True

    def write(self, reply: Reply, request_id: str) -> None:
        """The whole answer at once, as uvicorn would write it; then it is the next one's turn."""
        self.response_started = True
        parts = [STATUS_LINE[reply.status]]
        for name, value in (*self._connection.server_state.default_headers, *reply.headers):
            parts += (name, b": ", value, b"\r\n")
        parts += (b"x-request-id: ", request_id.encode(), b"\r\n")
        if (b"connection", b"close") in reply.headers:
            self.keep_alive = False
        elif not self.keep_alive:
            parts.append(b"connection: close\r\n")
        parts += (b"\r\n", reply.body)
        self.transport.write(b"".join(parts))
        self.response_complete = True
        if not self.keep_alive:
            if self.more_body:
                self._connection.linger()
            else:
                self.transport.close()
        self._connection.on_response_complete()


class Refusal(Turn):
    """The last answer of a connection, to what is no request that can be told from the next one."""

    def __init__(self, connection: Connection, why: Refused, headers: Headers, *, route: str | None) -> None:
        """`route` is that of a predict request; None: of one that is counted elsewhere."""
        super().__init__(connection, headers, keep_alive=False)
        self._why = why
        self.route = route

    def begin(self) -> None:
        why, route = self._why, self.route
        request_id = choose_id(self.headers)
        token = telemetry.request_id.set(request_id)
        try:
            retry = {"Retry-After": "1"} if why.retry else None
            reply = error_reply(why.status, why.code, why.message, headers=retry)
        finally:
            telemetry.request_id.reset(token)
        self.write(reply, request_id)
        if route is not None:
            method = "OTHER" if route == UNMATCHED else "POST"
            telemetry.count_request(route=route, method=method, status=why.status, seconds=0.0)


def choose_id(headers: Headers) -> str:
    """The id of a request with these headers."""
    return telemetry.choose_request_id(next(iter(values_of(headers, b"x-request-id")), None))
