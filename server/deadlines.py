"""Wakes what waits when its time is over: one timer for all, for a timer of its own costs more than most waits."""

import asyncio
from typing import Protocol


class Waits(Protocol):
    until: float
    """Of the loop's clock."""

    def wake(self) -> None: ...


class Deadlines:
    """Of those that were added and not removed since. Of one event loop's thread."""

    def __init__(self) -> None:
        self._waiting: dict[int, Waits] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._next = float("inf")

    def add(self, waits: Waits) -> None:
        self._waiting[id(waits)] = waits
        if waits.until < self._next:
            self._set(waits.until)

    def remove(self, waits: Waits) -> None:
        self._waiting.pop(id(waits), None)

    def _set(self, until: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        self._next, self._timer = until, loop.call_at(until, self._on_time)

    def _on_time(self) -> None:
        now, self._next, self._timer = self._next, float("inf"), None
        for waits in [waits for waits in self._waiting.values() if waits.until <= now]:
            self.remove(waits)
            waits.wake()
        earliest = min((waits.until for waits in self._waiting.values()), default=None)
        if earliest is not None and earliest < float("inf"):
            self._set(earliest)
