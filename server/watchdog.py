"""Stops calls that run in the event loop's thread and take too long: nothing in that thread could."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

from server.session import Stop

SECONDS = 0.05
"""How often it looks: to be woken for every call would cost more than the cheapest of them."""


class Watchdog:
    """A thread, from the first call that it guards to `close`."""

    def __init__(self) -> None:
        self._guarded: tuple[Stop, float] | None = None
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()

    @contextmanager
    def guarding(self, seconds: float) -> Iterator[Stop]:
        """What it yields is stopped after so many seconds, unless the block has ended."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._look, name="committee-watchdog", daemon=True)
            self._thread.start()
        stop = Stop()
        self._guarded = stop, monotonic() + seconds
        try:
            yield stop
        finally:
            self._guarded = None

    def close(self) -> None:
        self._closed.set()
        if self._thread is not None:
            self._thread.join()

    def _look(self) -> None:
        while not self._closed.wait(SECONDS):
            guarded = self._guarded
            if guarded is not None and monotonic() > guarded[1]:
                guarded[0]()  # should its block have ended meanwhile, it is nobody's any more
