"""Stops calls that run in the event loop's thread and take too long: nothing in that thread could."""

import threading
from time import monotonic

from server.session import Stop

SECONDS = 0.05
"""How often it looks: to be woken for every call would cost more than the cheapest of them."""


class Watchdog:
    """A thread, from the first call that it guards to `close`.

    A call that does not heed its stop blocks the event loop for good: the supervisor replaces the process.
    """

    def __init__(self) -> None:
        self._seconds = 0.0
        self._stop: Stop | None = None
        """One that was never called may be used again."""
        self._guarded: tuple[Stop, float] | None = None
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()

    def guarding(self, seconds: float) -> "Watchdog":
        """For a block: the `Stop` that it is given is called after so many seconds, unless the block has ended."""
        self._seconds = seconds
        return self

    def __enter__(self) -> Stop:
        if self._thread is None:
            self._thread = threading.Thread(target=self._look, name="committee-watchdog", daemon=True)
            self._thread.start()
        stop = self._stop = self._stop or Stop()
        self._guarded = stop, monotonic() + self._seconds
        return stop

    def __exit__(self, *_: object) -> None:
        self._guarded = None

    def close(self) -> None:
        self._closed.set()
        if self._thread is not None:
            self._thread.join()

    def _look(self) -> None:
        while not self._closed.wait(SECONDS):
            guarded = self._guarded
            late = 0.0 if guarded is None else monotonic() - guarded[1]
            if guarded is not None and late > 0:
                self._stop = None
                guarded[0]()
