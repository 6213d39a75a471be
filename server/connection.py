"""HTTP on a connection: uvicorn's, with bounds on what a client may send and how long it may take, on every route.

Faults of framing, after which nobody can say where the next request begins, are answered in their turn, and close.
"""

import asyncio
from typing import Any, ClassVar, NoReturn

from fastapi import FastAPI
from uvicorn._types import ASGI3Application
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from uvicorn.server import ServerState

from server.bounds import Bounds
from server.budget import Share
from server.crowd import Connections
from server.framing import (
    NO_HTTP,
    Refused,
    Stage,
    chunks_too_small,
    find_fault,
    headers_too_large,
    too_many_connections,
    url_too_long,
)
from server.rest.state import State
from server.slow_reader import SlowReader
from server.timed import Timed
from server.turn import UNMATCHED, Refusal, Turn

HEALTH = b"/v2/health/"
"""What also those are answered who are too many: a server that is busy is not to be taken for dead."""
_BOUNDS = Bounds()


class _Stop(Exception):
    """Ends the parsing; why has been said."""


class Flow(FlowControl):
    """Reads nothing more while requests are queued: uvicorn would take a chunk of new ones for every answer."""

    def __init__(self, transport: asyncio.Transport, queue: object) -> None:
        super().__init__(transport)
        self._queue = queue

    def resume_reading(self) -> None:
        if not self._queue:
            super().resume_reading()


class Bounded(Timed):
    """uvicorn's protocol, on which a request may be answered by a turn in place of a cycle."""

    LINGER_SECONDS: ClassVar[float] = 2.0
    """How long what a client still sends is read and dropped, so that it can read why it was refused."""
    LINGER_BYTES: ClassVar[int] = 1 << 20
    """How much of it at most."""
    LAST_SECONDS: ClassVar[float] = 0.5
    """How long an idle connection is kept once the stop has begun: a request may be on its way."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._state = state_of(self.app)
        self._bounds = getattr(self._state, "bounds", _BOUNDS)
        self.unheard = asyncio.Event()
        self._current: RequestResponseCycle | None = None
        """What is being answered; uvicorn's `cycle` is what has come last."""
        self._head_bytes = 0
        self._n_headers = 0
        self._header_bytes = 0
        self._body_bytes = 0
        self._framing_bytes = 0
        """Of what came of a body, what is none of it: the sizes of chunks, their extensions, trailers."""
        self._given_up = False
        """Whether what comes is no longer read as requests."""
        self._n_dropped = 0
        self._stopping = False
        """Whether the next answer is the last."""
        self._crowd = self.connections if isinstance(self.connections, Connections) else None

    # ---- The transport's calls --------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = Flow(transport, self.pipeline)
        share = None if self._state is None else Share(self._state.budget)
        self._reader = SlowReader(transport, self.loop, seconds=self._bounds.write_timeout, share=share)
        most = self._bounds.max_connections
        self._surplus = len(self.connections) > most
        if len(self.connections) > most + most // 8 + 16:
            transport.abort()
            return
        self._set_timer(self._seconds())

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timers()
        self._reader.end()
        for cycle in (self._current, *(cycle for cycle, _ in self.pipeline)):
            if isinstance(cycle, Turn):
                cycle.leave()
            elif cycle is not None and not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()
        self.pipeline.clear()
        super().connection_lost(exc)

    def _is_between(self) -> bool:
        """Whether nothing of a request has come that is not answered."""
        last = self.cycle
        return self._stage is Stage.BETWEEN and not self._given_up and (last is None or last.response_complete)

    def data_received(self, data: bytes) -> None:
        if self._given_up:
            self._drop(data)
            return
        n_begun, stage, n_body = self._n_begun, self._stage, self._body_bytes
        super().data_received(data)
        if self._given_up or self.transport.is_closing():
            return
        if self._stage is stage is Stage.BODY and self._n_begun == n_begun:
            # Of an extension the parser says nothing either.
            self._framing_bytes += len(data) - (self._body_bytes - n_body)
            if self._framing_bytes > self._bounds.max_header_bytes + self._body_bytes:
                self._give_up(chunks_too_small(self._bounds))
                return
        if self._stage is Stage.HEAD and self._n_begun - n_begun == (stage is Stage.BETWEEN):
            # Of a header that has not ended the parser says nothing, however long it is.
            self._head_bytes += len(data)
            if self._head_bytes > self._bounds.max_url_bytes + self._bounds.max_header_bytes:
                self._give_up(headers_too_large(self._bounds))
                return
        self._watch()

    # ---- The parser's calls -----------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._stage = Stage.HEAD
        self._n_begun += 1
        self._head_bytes = self._n_headers = self._header_bytes = 0

    def on_url(self, url: bytes) -> None:
        self.url += url
        if len(self.url) > self._bounds.max_url_bytes:
            self._stop(url_too_long(self._bounds))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._n_headers += 1
        self._header_bytes += len(name) + len(value) + 4  # a colon, a space, the end of the line
        if self._header_bytes > self._bounds.max_header_bytes or self._n_headers > self._bounds.max_headers:
            self._stop(headers_too_large(self._bounds))
        if self._stage is Stage.HEAD:  # a trailer is no header of the request
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        version = self.parser.get_http_version()
        if self.parser.get_method() == b"CONNECT":
            self._stop(NO_HTTP)
        if self.upgrading:
            return
        if (fault := find_fault(self.headers, version, self.url)) is not None:
            self._stop(fault)
        if self._surplus and not self.url.startswith(HEALTH):
            self._stop(too_many_connections(self._bounds))
        turn = self._make_turn(version)
        if turn is None:
            super().on_headers_complete()
        else:
            self._queue_up(turn)
        self._stage = Stage.BODY
        self._header_bytes = self._n_headers = self._body_bytes = self._framing_bytes = 0

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if isinstance(self.cycle, Turn):
            self.cycle.feed(body)
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self.upgrading:
            return
        self._stage = Stage.BETWEEN
        if isinstance(self.cycle, Turn):
            self.cycle.finish()
        else:
            super().on_message_complete()

    # ---- Turns ------------------------------------------------------------------------------------------------------

    def _make_turn(self, version: str) -> Turn | None:
        """What answers the request whose headers have come; None: the application does."""
        return None

    def _queue_up(self, turn: Turn) -> None:
        last = self.cycle
        self.cycle = turn
        if last is None or last.response_complete:
            self._start_asgi_task(turn, self.app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((turn, self.app))

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        """What uvicorn calls when it is a request's turn."""
        self._current = cycle
        if not self.pipeline and (self._stopping or (self._crowd is not None and self._crowd.let_one_go())):
            cycle.keep_alive = False
        if self._timer is not None:
            self._set_timer(self._seconds())  # nothing was read while it waited
        self.flow.resume_reading()
        if isinstance(cycle, Turn):
            cycle.begin()
        else:
            super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        """uvicorn's would set a timer anew for every request."""
        self.server_state.total_requests += 1
        if self._surplus and not self._given_up:
            self.transport.close()
        if self.transport.is_closing():
            self._reader.watch()
        if self.transport.is_closing() or (self._given_up and not self.pipeline):
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        else:
            self._wait_for_next()

    # ---- The stop ---------------------------------------------------------------------------------------------------

    def shutdown(self) -> None:
        """What uvicorn calls when the stop begins; it would close what is idle at once, and lose what is on its way."""
        self._stopping = True
        last = self.cycle
        if last is not None and not last.response_complete:
            last.keep_alive = False
        self.loop.call_later(self.LAST_SECONDS, self._close_if_idle)

    def _close_if_idle(self) -> None:
        if self._is_between():
            self.transport.close()

    # ---- Refusals ---------------------------------------------------------------------------------------------------

    def send_400_response(self, msg: str) -> None:
        """What uvicorn calls when the parser has stopped."""
        if not self._given_up:
            self._give_up(NO_HTTP)

    def _stop(self, why: Refused) -> NoReturn:
        """Of the parser's calls: give up, and parse no more."""
        self._give_up(why)
        raise _Stop

    def _give_up(self, why: Refused) -> None:
        """Answer, once what came before is answered, and close."""
        self._given_up = True
        self._stop_timer()
        if self._stage is not Stage.BODY:
            headers = self.headers if self._stage is Stage.HEAD else []
            refusal = Refusal(self, why, headers, route=UNMATCHED)
            last = self.cycle
            self.cycle = refusal
            if last is None or last.response_complete:
                self._start_asgi_task(refusal, self.app)
            else:
                self.pipeline.appendleft((refusal, self.app))
            return
        cycle = self.cycle
        if cycle.response_started:
            self.transport.close()
            return
        if isinstance(cycle, Turn) and cycle.answering:
            cycle.keep_alive = False
            return
        # The fault is in the body of a request that nobody has answered yet.
        route = cycle.route if isinstance(cycle, Turn) else None  # the application counts its own
        refusal = Refusal(self, why, self.headers, route=route)
        self.cycle = refusal
        if self.pipeline:
            self.pipeline[0] = (refusal, self.app)
            return
        cycle.disconnected = True
        cycle.message_event.set()
        self._start_asgi_task(refusal, self.app)

    def linger(self) -> None:
        self._given_up = True
        if self.transport.is_closing():
            return
        if not self.transport.can_write_eof():
            self.transport.close()
            return
        self.transport.write_eof()
        self.flow.resume_reading()
        self._stop_timer()
        self._timer = self.loop.call_later(self.LINGER_SECONDS, self.transport.abort)

    def _drop(self, data: bytes) -> None:
        self._n_dropped += len(data)
        if self._n_dropped > self.LINGER_BYTES:
            if self.cycle.response_complete:
                self.transport.abort()
            else:
                self.flow.pause_reading()  # until it lingers

    # ---- Slow readers -----------------------------------------------------------------------------------------------

    def pause_writing(self) -> None:
        super().pause_writing()
        self._reader.watch()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._reader.end()

    def timeout_keep_alive_handler(self) -> None:
        if self.transport.get_write_buffer_size():
            self.transport.abort()  # what it asked for last it has never taken
        else:
            super().timeout_keep_alive_handler()


def state_of(app: Any) -> State | None:
    """Of the FastAPI application inside uvicorn's middleware; None if that is no application of ours."""
    while app is not None and not isinstance(app, FastAPI):
        app = getattr(app, "app", None)
    state: object = None if app is None else app.state
    return state if isinstance(state, State) else None
