"""Clients that do not take their answers: they hold memory, and do not for ever."""

import asyncio

from server.bounds import WRITE_BYTES
from server.budget import Share


class SlowReader:
    """Watches what a connection has to send; aborts it if the client takes nearly nothing for so many seconds."""

    def __init__(
        self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, *, seconds: float, share: Share | None
    ) -> None:
        self._transport, self._loop = transport, loop
        self._seconds = seconds
        self._share = share
        self._timer: asyncio.TimerHandle | None = None
        self._left = 0

    def watch(self) -> None:
        """From now on, until all is sent: more waits than the client takes at once, or the connection is closing."""
        self._left = self._transport.get_write_buffer_size()
        if self._share is not None:
            self._share.hold(self._left, regardless=True)
        if self._timer is None:
            self._timer = self._loop.call_later(self._seconds, self._look)

    def end(self) -> None:
        """All but little is sent, or nobody is there any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._share is not None:
            self._share.give_back()

    def _look(self) -> None:
        self._timer = None
        before, left = self._left, self._transport.get_write_buffer_size()
        if left > before - WRITE_BYTES and (left or self._transport.is_closing()):
            self._transport.abort()
        elif left:
            self.watch()
