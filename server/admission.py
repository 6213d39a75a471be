"""Which requests are let in while others wait, by the time that those before them will take.

A queue that empties now and then is a burst, and may be long. One that has not been empty for a while only adds to
everybody's time: then only those are let in that wait little, or little beside what they cost themselves (after the
controlled delay of Maurer 2015, Fail at Scale).
"""

from dataclasses import dataclass
from math import ceil
from time import monotonic

from server.errors import Overloaded

STANDING_SECONDS = 1.0
"""For how long a queue has not been empty that is no burst any more."""
LITTLE_SECONDS = 0.1
LITTLE_FACTOR = 5
"""What is a little beside a request's own cost."""
LEARNING = 0.05
"""How much one request counts, beside those before it, in how much longer all takes than members alone."""


@dataclass(slots=True)
class Ticket:
    """Of a request that was let in."""

    seconds: float
    rows: int
    ahead: float
    """Seconds of members' time that were to do when it came, its own among them."""
    since: float


class Admission:
    """`max_wait` seconds is the longest that a request may wait for others; `max_rows` may be there at once."""

    def __init__(self, *, max_wait: float, max_rows: int) -> None:
        self._max_wait, self._max_rows = max_wait, max_rows
        self._seconds = 0.0
        self._rows = 0
        self._busy_since = monotonic()
        self._pace = 1.0
        """Seconds that a second of members' time takes, with all that is done beside."""

    @property
    def wait(self) -> float:
        """Seconds until what is there will be done, by what is known."""
        return self._seconds * self._pace

    def enter(self, seconds: float, rows: int, *, left: float) -> Ticket:
        """Let a request in that takes members so many seconds, and may take `left` seconds in all.

        With nothing before it every request is let in. Raises Overloaded.
        """
        now = monotonic()
        if not self._rows:
            self._busy_since, self._seconds = now, 0.0
        elif reason := self._why_not(seconds, rows, left, now):
            raise Overloaded(f"the server is busy: {reason}", retry_after=max(1, ceil(self.wait)))
        return self.again(seconds, rows, left=left)

    def again(self, seconds: float, rows: int, *, left: float) -> Ticket:
        """Of a request that was let in: more that it has to do, which is not refused any more."""
        self._seconds += seconds
        self._rows += rows
        return Ticket(seconds, rows, self._seconds, monotonic())

    def leave(self, ticket: Ticket, *, answered: bool) -> None:
        """It is answered, or waits no more."""
        self._seconds -= ticket.seconds
        self._rows -= ticket.rows
        if answered and ticket.ahead > 0:
            pace = (monotonic() - ticket.since) / ticket.ahead
            self._pace += LEARNING * (min(max(pace, 1.0), 100.0) - self._pace)

    def _why_not(self, seconds: float, rows: int, left: float, now: float) -> str | None:
        wait = self.wait
        if self._rows + rows > self._max_rows:
            return f"{self._rows} rows wait, of at most {self._max_rows}"
        if wait > left:
            return f"others take {wait:.3f} s, and the request's deadline is in {max(left, 0):.3f} s"
        if wait > self._max_wait:
            return f"others take {wait:.3f} s, of at most {self._max_wait:g} s"
        standing = now - self._busy_since > STANDING_SECONDS
        if standing and wait > max(LITTLE_SECONDS, LITTLE_FACTOR * seconds * self._pace):
            return f"others take {wait:.3f} s, and have for a while"
        return None
