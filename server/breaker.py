"""Which members can be relied on: a circuit breaker each (Nygard 2007, Release It!)."""

from collections.abc import Callable
from typing import Literal

State = Literal["closed", "open", "half_open"]


class Breaker:
    """Of one member. Opens after so many failures in a row, and lets one request at a time try again after a while.

    Times are seconds of any one monotonic clock. With `failures` 0 it never opens.
    """

    def __init__(
        self, *, failures: int, cooldown: float, changed: Callable[[State], None] = lambda state: None
    ) -> None:
        self._most, self._cooldown, self._changed = failures, cooldown, changed
        self._failed = 0
        self._closed_at: float | None = None
        """When it may be tried again; None while it is closed."""
        self.suspect = False
        """Whether it has failed, or was late, since it last answered."""

    def allows(self, now: float) -> bool:
        """Whether to ask the member. The one who is told so once it is half open must ask: the others wait for that."""
        if self._closed_at is None:
            return True
        if now < self._closed_at:
            return False
        self._closed_at = now + self._cooldown  # should nothing be heard of this trial, there is another
        return True

    def state(self, now: float) -> State:
        if self._closed_at is None:
            return "closed"
        return "open" if now < self._closed_at else "half_open"

    def answered(self) -> None:
        self.suspect, self._failed = False, 0
        if self._closed_at is not None:
            self._closed_at = None
            self._changed("closed")

    def was_late(self) -> None:
        """Later than its caller could wait, which need not be its fault."""
        self.suspect = True

    def failed(self, now: float) -> None:
        self.suspect = True
        self._failed += 1
        if self._most and (self._failed >= self._most or self._closed_at is not None):
            newly = self._closed_at is None
            self._closed_at = now + self._cooldown
            if newly:
                self._changed("open")
