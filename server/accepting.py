"""Spreads connections evenly over the workers, also when there are few of them.

All workers wait at one listening socket, and whoever wakes first would take whatever waits there: with eight
connections, one worker may hold them all while the others idle. Here a worker takes its part of those that wait, at
once, and one that has more connections than another lets that one go first. Nobody has to tell anybody: each worker's
number stands in a file that all of them map.
"""

import asyncio
import itertools
import logging
import math
import socket
import ssl
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from uvicorn.config import Config
from uvicorn.server import Server

from server.crowd import Connections
from server.shares import Shares

BEAT_SECONDS = 0.1
"""How often a worker says that it stirs, from when it serves until it ends."""
COMPARE_BEATS = 10
"""How many of them pass until it looks again whether it has too many connections: until those let go have come back."""
DEFERRED_SECONDS = 0.005
"""How long a worker that has more connections leaves a new one to the others."""
EXHAUSTED_SECONDS = 1.0
"""How long to wait when there are no more file descriptors, or no memory for another connection."""
OPENING_SECONDS = 2.0
"""How long the stop waits for connections that are being opened: by TLS, clients take part in that."""
_BACKLOG, _BACKLOG_AT = struct.Struct("=I"), 24
"""Where Linux's `tcp_info` says of a listening socket how many connections wait."""

logger = logging.getLogger(__name__)


class Acceptor:
    """In place of asyncio's own server at a listening socket; `count` tells how many connections there are."""

    def __init__(
        self,
        listener: socket.socket,
        make_protocol: Callable[[], asyncio.Protocol],
        *,
        context: ssl.SSLContext | None,
        shares: Shares,
        count: Callable[[], int],
    ) -> None:
        self._listener, self._make_protocol, self._context = listener, make_protocol, context
        self._shares, self._count = shares, count
        self._loop = asyncio.get_running_loop()
        self._opening: set[asyncio.Task[object]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._may_defer = True
        self._closed = False
        listener.setblocking(False)
        self._loop.add_reader(listener.fileno(), self._on_connection)

    def tell(self) -> None:
        """The others how many connections there are."""
        self._shares.tell(self._count() + len(self._opening))

    def close(self) -> None:
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._loop.remove_reader(self._listener.fileno())

    async def wait_closed(self) -> None:
        """Until what has been accepted is a connection, or will not be one soon."""
        if self._opening:
            _, late = await asyncio.wait(self._opening, timeout=OPENING_SECONDS)
            for opening in late:
                opening.cancel()

    def _on_connection(self) -> None:
        own, others = self._count() + len(self._opening), self._shares.of_others()
        if self._may_defer and own > min(others, default=own):
            self._pause(DEFERRED_SECONDS)
            return
        self._may_defer = True
        part = math.ceil((own + sum(others) + waiting(self._listener)) / (1 + len(others)))
        for _ in range(max(part - own, 1)):
            if not self._accept():
                break
        self.tell()

    def _accept(self) -> bool:
        """Whether there was a connection."""
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return False  # another worker has it, or it has gone
        except OSError as exc:
            logger.error("no connection can be accepted: %s", exc)
            self._pause(EXHAUSTED_SECONDS)
            return False
        connection.setblocking(False)
        opening = self._loop.create_task(self._open(connection))
        self._opening.add(opening)
        opening.add_done_callback(self._opening.discard)
        return True

    async def _open(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._make_protocol, connection, ssl=self._context)
        except OSError as exc:  # TLS that fails, or a client that is gone
            logger.debug("a connection could not be opened: %s", exc)
            connection.close()
        except asyncio.CancelledError:
            connection.close()
            raise

    def _pause(self, seconds: float) -> None:
        self._loop.remove_reader(self._listener.fileno())
        self._timer = self._loop.call_later(seconds, self._resume)

    def _resume(self) -> None:
        self._may_defer = False  # whoever has fewer has had the time
        if not self._closed:
            self._loop.add_reader(self._listener.fileno(), self._on_connection)


def waiting(listener: socket.socket) -> int:
    """How many connections nobody has accepted yet; 0 where the system does not tell."""
    try:
        info = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BACKLOG_AT + _BACKLOG.size)
        return int(_BACKLOG.unpack_from(info, _BACKLOG_AT)[0])
    except (AttributeError, OSError, struct.error):
        return 0


class SpreadingServer(Server):
    """Uvicorn's, whose connections are spread over the workers; `place` is this one's among them."""

    def __init__(self, config: Config, shares: Shares, place: int) -> None:
        super().__init__(config)
        self._shares, self._place = shares, place
        self._acceptors: list[Acceptor] = []
        self._connections: Connections[Any] = Connections(self._tell)
        self.server_state.connections = self._connections
        self._beating: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=[])
        if self.should_exit:
            return

        def make_protocol() -> asyncio.Protocol:
            return self.config.http_protocol_class(  # type: ignore[call-arg]
                config=self.config, server_state=self.server_state, app_state=self.lifespan.state
            )

        self._shares.join(self._place)
        for listener in sockets or []:
            acceptor = Acceptor(
                listener,
                make_protocol,
                context=self.config.ssl,
                shares=self._shares,
                count=lambda: len(self.server_state.connections),
            )
            self._acceptors.append(acceptor)
            self.servers.append(acceptor)  # type: ignore[arg-type]  # what it wants of them, it has
        self._beating = asyncio.create_task(self._beat())

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """uvicorn tells the connections that there are of the stop: what has been accepted becomes one before."""
        self._shares.retire()
        for acceptor in self._acceptors:
            acceptor.close()
        for acceptor in self._acceptors:
            await acceptor.wait_closed()
        await super().shutdown(sockets)
        if self._beating is not None:
            self._beating.cancel()
            with suppress(asyncio.CancelledError):
                await self._beating

    def _tell(self) -> None:
        for acceptor in self._acceptors:
            acceptor.tell()

    async def _beat(self) -> None:
        """Also while it drains: a loop that stands says nothing."""
        for beat in itertools.count():
            self._tell()
            self._shares.beat()
            if beat % COMPARE_BEATS == 0:
                self._connections.compare(self._shares.of_others())
            await asyncio.sleep(BEAT_SECONDS)
