"""Which requests are let in while others wait, by the time that those before them will take.

A queue that empties now and then is a burst, and may be long. One that has not been empty for a while only adds to
everybody's time: then only those are let in that wait little, or little beside what they cost themselves (after the
controlled delay of Maurer 2015, Fail at Scale). Where that has kept others out for a while more come than can be
answered, however long they wait: then the queue is kept just long enough for work never to run out.

A request that is done in turns with others, as big ones are, keeps those that come later waiting for a turn only.
"""

from dataclasses import dataclass
from math import ceil, inf
from time import monotonic

from server.errors import Overloaded

STANDING_SECONDS = 0.25
"""For how long a queue has not been empty that is no burst any more."""
LITTLE_SECONDS = 0.5
OVERLOAD_SECONDS = 1.0
"""For how long some were refused for that, if there is an overload; and for how long nobody was, once it is over."""
SPARE = 0.05
"""The part of as long a time in which nothing was to do, once it is over."""
SHORT_SECONDS, SHORT_REQUESTS = 0.05, 4
"""How short the queue is kept during an overload: so that work never runs out, whatever a request costs."""
LITTLE_FACTOR = 5
"""What is a little beside a request's own cost."""
LEARNING = 0.05
"""How much one request counts, beside those before it, in how much longer all takes than members alone."""
TELLING_SECONDS = 0.002
"""Who had less before it, itself included, tells more of what every request takes besides than of the pace."""


@dataclass(slots=True, eq=False)
class Ticket:
    """Of a request that was let in."""

    seconds: float
    rows: int
    turn: float
    """Seconds of it at most that another one waits for, if that takes no longer itself."""
    ahead: float
    """Seconds of members' time that were to do when it came, its own among them."""
    since: float


@dataclass(slots=True)
class _Overload:
    """More come than can be answered: some are refused one soon after the other, and work never runs out."""

    since: float = -inf
    """When the first of them was refused."""
    last: float = -inf
    window: float = -inf
    """Since when `spare` is added up: seconds in which there was nothing to do."""
    spare: float = 0.0

    def goes_on(self, now: float) -> bool:
        return self.last - self.since > OVERLOAD_SECONDS >= now - self.last

    def refuse(self, now: float) -> None:
        if now - self.last > OVERLOAD_SECONDS:
            self.since = now
        self.last = now

    def rest(self, begin: float, end: float) -> None:
        """There was nothing to do."""
        if end - self.window > OVERLOAD_SECONDS:
            self.window, self.spare = begin, 0.0
        self.spare += end - begin
        if self.spare > SPARE * OVERLOAD_SECONDS:
            self.since = self.last = -inf


class Admission:
    """`max_wait` seconds is the longest that a request may wait for others; `max_rows` may be there at once."""

    def __init__(self, *, max_wait: float, max_rows: int) -> None:
        self._max_wait, self._max_rows = max_wait, max_rows
        self._inside = 0
        """Requests."""
        self._rows = 0
        self._seconds = 0.0
        """Of those that are done in one turn."""
        self._long: set[Ticket] = set()
        """The others."""
        self._busy_since = self._idle_since = monotonic()
        self._overload = _Overload()
        self._pace = 1.0
        """Seconds that a second of members' time takes, with all that is done beside."""

    def wait(self, seconds: float = 0.0) -> float:
        """Seconds for which one that takes members so many would have to wait for others, by what is known.

        Those that are done in turns keep nobody waiting for longer than a turn, or than that takes itself.
        """
        return self._ahead(seconds) * self._pace

    def check(self) -> None:
        """Raise Overloaded if whoever comes now would be refused, whatever it asks for: nobody need read that."""
        if self._inside < SHORT_REQUESTS:
            return
        wait, now = self.wait(), monotonic()
        if wait > SHORT_SECONDS and self._overload.goes_on(now):
            raise _overloaded(self._stands(wait, now), wait)

    def enter(self, seconds: float, rows: int, *, left: float | None, turn: float) -> Ticket:
        """Let a request in that takes members so many seconds, in turns of `turn`, and may take `left` in all.

        With nothing before it every request is let in; so is, if `left` is None, what one that was let in has to do
        besides. Raises Overloaded.
        """
        now = monotonic()
        if not self._inside:
            self._overload.rest(self._idle_since, now)
            self._busy_since, self._seconds = now, 0.0
        elif left is not None and (reason := self._why_not(seconds, rows, left, now)):
            raise _overloaded(reason, self.wait(seconds))
        ticket = Ticket(seconds, rows, turn, self._ahead(seconds) + seconds, now)
        self._inside += 1
        self._rows += rows
        if turn < seconds:
            self._long.add(ticket)
        else:
            self._seconds += seconds
        return ticket

    def leave(self, ticket: Ticket, *, answered: bool) -> None:
        """It is answered, or waits no more."""
        self._inside -= 1
        self._rows -= ticket.rows
        if ticket in self._long:
            self._long.remove(ticket)
        else:
            self._seconds -= ticket.seconds
        now = monotonic()
        if not self._inside:
            self._idle_since = now
        if answered and ticket.ahead > TELLING_SECONDS:
            pace = (now - ticket.since) / ticket.ahead
            self._pace += LEARNING * (min(max(pace, 1.0), 100.0) - self._pace)

    def _ahead(self, seconds: float) -> float:
        if not self._long:
            return self._seconds
        return self._seconds + sum([min(other.seconds, max(seconds, other.turn)) for other in self._long])

    def _why_not(self, seconds: float, rows: int, left: float, now: float) -> str | None:
        wait = self.wait(seconds)
        if self._rows + rows > self._max_rows:
            return f"{self._rows} rows wait, of at most {self._max_rows}"
        if wait > left:
            return f"others take {wait:.3f} s, and the request's deadline is in {max(left, 0):.3f} s"
        if wait > self._max_wait:
            return f"others take {wait:.3f} s, of at most {self._max_wait:g} s"
        if self._is_too_long(wait, seconds, now):
            return self._stands(wait, now)
        return None

    def _is_too_long(self, wait: float, seconds: float, now: float) -> bool:
        """Whether a request of so many seconds would wait for more than a little, though there is no burst."""
        if self._overload.goes_on(now):
            return wait > SHORT_SECONDS and self._inside >= SHORT_REQUESTS
        standing = now - self._busy_since > STANDING_SECONDS
        return standing and wait > max(LITTLE_SECONDS, LITTLE_FACTOR * seconds * self._pace)

    def _stands(self, wait: float, now: float) -> str:
        """That one is refused now as the queue stands."""
        self._overload.refuse(now)
        return f"others take {wait:.3f} s, and have for a while"


def _overloaded(reason: str, wait: float) -> Overloaded:
    return Overloaded(f"the server is busy: {reason}", retry_after=max(1, ceil(wait)))
