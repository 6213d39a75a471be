"""What is known of an ensemble's members, for all of its batches: their cost, their reliability, what is under way."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from server.breaker import Breaker
from server.costs import Costs
from server.prediction import Reason
from server.rows import Rows
from server.watchdog import Watchdog

FACTOR, SECONDS = 10, 0.25
"""A call that takes so many times its cost, and so much longer, hangs."""
MOST_CALLS = 4
"""Of one member at once. As many are under way only if they do not end: more would take the threads of all others."""


@dataclass(slots=True)
class Members:
    costs: Costs
    breakers: Sequence[Breaker]
    watchdog: Watchdog
    own_rows: Rows
    """A row that all of them have answered, or none: whoever fails over it fails whatever the rows are."""
    on_failure: Callable[[int, Reason, str], None]
    """Told the member, the reason and its words, when it has answered until now."""
    on_stuck: Callable[[], None]
    """Told that a call does not end though it was stopped."""
    hanging: set[int] = field(default_factory=set)
    """Those of which a call is overdue."""
    on_trial: set[int] = field(default_factory=set)
    """Those that have failed over rows, and are asked about their own."""
    calls: Counter[int] = field(default_factory=Counter)
    """By member, how many calls are under way."""

    def are_sound(self, members: Sequence[int]) -> bool:
        """Whether none of them has given cause for doubt."""
        breakers, calls = self.breakers, self.calls
        return not [m for m in members if breakers[m].suspect or calls[m] >= MOST_CALLS]

    def is_busy(self, member: int) -> bool:
        """Whether it hangs over other rows, or nearly all that may be under way is."""
        return member in self.hanging or self.calls[member] >= MOST_CALLS

    def failed(self, member: int, reason: Reason, why: str, now: float) -> None:
        if not self.breakers[member].suspect:
            self.on_failure(member, reason, why)
        self.breakers[member].failed(now)


def patience(cost: float) -> float:
    """Seconds after which a call of this cost hangs."""
    return FACTOR * cost + SECONDS
