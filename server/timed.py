"""How long a client may take to send a request, and be silent between two."""

import asyncio
from abc import ABC, abstractmethod

from server.bounds import Bounds
from server.framing import Refused, Stage, too_late
from server.parsing import Parsing

READ_SECONDS = 0.001
"""In which a loop that does nothing else reads what waits."""
SURPLUS_SECONDS = 1.0
"""How long one of too many connections has to ask for health."""


class Timed(Parsing, ABC):
    """uvicorn's protocol with deadlines, which a byte now and then does not move. No timer is set anew a request."""

    _bounds: Bounds

    _stage = Stage.BETWEEN
    _n_begun = 0
    _surplus = False
    """Whether there are so many connections that this one may ask for nothing but health."""
    _idle_since: float | None = None
    """Of the loop's clock; None while a request is on its way."""
    _timer: asyncio.TimerHandle | None = None
    _timed = (0, Stage.BETWEEN)

    @abstractmethod
    def _give_up(self, why: Refused) -> None:
        """Answer, and close."""

    def _unset_keepalive_if_required(self) -> None:
        """It goes on, and finds that the connection has not been idle for so long."""
        self._idle_since = None

    def _watch(self) -> None:
        """Most requests are there at once, and need no timer."""
        if self._stage is Stage.BETWEEN:
            if self._n_begun:
                self._stop_timer()
                self._wait_for_next()
        elif self._timed != (self._n_begun, self._stage) or self._timer is None:
            self._timed = (self._n_begun, self._stage)
            self._set_timer(self._seconds())

    def _wait_for_next(self) -> None:
        """Bytes that begin no request, or the end of a body whose answer is out, do not keep a connection for ever."""
        if self._idle_since is None and (self.cycle is None or self.cycle.response_complete):
            self._idle_since = self.loop.time()
            if self.timeout_keep_alive_task is None:
                self._look_whether_idle_in(self.timeout_keep_alive)

    def _look_whether_idle_in(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self._look_whether_idle)

    def _look_whether_idle(self) -> None:
        self.timeout_keep_alive_task = None
        if self._idle_since is None:
            return
        left = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self._look_whether_idle_in(left)
        else:
            self.timeout_keep_alive_handler()

    def _seconds(self) -> float:
        if self._surplus:
            return SURPLUS_SECONDS
        return self._bounds.body_timeout if self._stage is Stage.BODY else self._bounds.header_timeout

    def _set_timer(self, seconds: float) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(seconds, self._on_time)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_time(self) -> None:
        """Should the loop have been held up, what came meanwhile is read first."""
        self._timer = self.loop.call_later(READ_SECONDS, self._on_time_after_all)

    def _on_time_after_all(self) -> None:
        self._timer = None
        if self.flow.read_paused:
            self._set_timer(self._seconds())
        elif self._stage is Stage.BETWEEN:
            self.transport.close()  # nothing has come that could be answered
        else:
            self._give_up(too_late(self._stage, self._bounds))

    def _stop_timers(self) -> None:
        self._stop_timer()
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
