"""One call of some of an ensemble's members, in a thread, that can be stopped."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from server.ensemble import Ensemble
from server.rows import Rows
from server.session import Stop


class Call:
    """Begins at once; `on_end` is called in the event loop's thread, as everything here is but the members' own run."""

    def __init__(
        self,
        ensemble: Ensemble,
        rows: Rows,
        members: tuple[int, ...],
        pool: ThreadPoolExecutor,
        on_end: Callable[["Call"], None],
    ) -> None:
        self.members = members
        self.done = False
        self.stopped = False
        self.answers: NDArray[np.float32] | None = None
        self.valid: NDArray[np.bool_] | None = None
        self.error: BaseException | None = None
        self.seconds = 0.0
        """That it took, once it is done."""
        self._loop = asyncio.get_running_loop()
        self._stop = Stop()
        self._ended: asyncio.Future[None] | None = None
        self._on_end = on_end
        self.began = self._loop.time()
        pool.submit(self._run, ensemble, rows)

    def stop(self) -> None:
        if not self.stopped:
            self.stopped = True
            self._stop()

    async def ended(self, seconds: float | None = None) -> bool:
        """Whether it does within so many seconds."""
        if not self.done:
            self._ended = self._ended or self._loop.create_future()
            await asyncio.wait([self._ended], timeout=None if seconds is None else max(seconds, 0))
        return self.done

    def result(self) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Raises what the run has raised: MemberFailed."""
        if self.error is not None:
            raise self.error
        assert self.answers is not None
        assert self.valid is not None
        return self.answers, self.valid

    def _run(self, ensemble: Ensemble, rows: Rows) -> None:
        began = perf_counter()  # the loop's own clock may stand still between two rounds
        try:
            self.answers, self.valid = ensemble.ask(rows, self.members, self._stop)
        except BaseException as exc:
            self.error = exc
        self.seconds = perf_counter() - began
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(self._end)

    def _end(self) -> None:
        self.done = True
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)
        self._on_end(self)
