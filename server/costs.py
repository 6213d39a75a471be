"""How long members take: measured when an ensemble is warmed, then learned from what it does."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter

import numpy as np

from server.ensemble import Ensemble
from server.rows import Rows

BATCH = 64
REPEATS = 3
LONG = 0.1
"""Seconds; what takes longer is not measured again."""
LEAST = 1e-6
"""Seconds of a call: what costs nothing could learn nothing."""
LEARNING, DOUBT = 0.1, 0.98
"""How much one call, and one that was not made, count beside all that was known before."""
NOISE = 0.01
"""A call that takes so much more or less than was thought teaches nothing."""
BATCH_SECONDS = 0.003
"""What the rows of a batch may take, so that those behind it need not wait long; unless the call costs much itself."""
OVERHEAD_SECONDS = 50e-6
"""What a batch costs beside the members' own time."""
LOSS = 0.05
"""The part of a batch's time that may be lost to what it costs however few its rows are."""
MOST = 256
"""Rows of a batch."""


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds, on one core with nothing else to do: a call of member `m` with `n` rows takes `call[m] + n * row[m]`."""

    call: list[float]
    """By member, as `row` is."""
    row: list[float]
    _known: dict[tuple[int, ...], tuple[float, float]] = field(default_factory=dict, repr=False, compare=False)
    """Sums, until something is learned."""

    def estimate(self, members: Sequence[int], n_rows: int) -> float:
        """Of these members together, one after the other."""
        call, row = self._sums(members)
        return call + n_rows * row

    def rows_at_once(self, members: Sequence[int]) -> int:
        """Of the best batch: small enough to be fair, large enough that little is lost to the call itself."""
        call, row = self._sums(members)
        call, row = call + OVERHEAD_SECONDS, max(row, LEAST / MOST)
        return int(min(max(max(BATCH_SECONDS, call / LOSS) / row, 1), MOST))

    def _sums(self, members: Sequence[int]) -> tuple[float, float]:
        key = tuple(members)
        found = self._known.get(key)
        if found is None:
            call, row = sum([self.call[member] for member in key]), sum([self.row[member] for member in key])
            found = self._known[key] = call, row
        return found

    def learn(self, members: Sequence[int], n_rows: int, seconds: float) -> None:
        """That these members together have taken so long: what was measured may have been measured in a busy hour."""
        estimate = self.estimate(members, n_rows)
        if estimate > 0 and abs(seconds / estimate - 1) > NOISE:
            self._scale(members, min(max(seconds / estimate, 0.1), 10.0) ** LEARNING)

    def doubt(self, member: int) -> None:
        """That a member was thought to cost too much: if nobody tried it, nobody would learn that it does not."""
        self._scale((member,), DOUBT)

    def _scale(self, members: Sequence[int], factor: float) -> None:
        self._known.clear()
        for member in members:
            self.call[member] *= factor
            self.row[member] *= factor


def measure(ensemble: Ensemble, rows: Rows) -> Costs:
    """Run each member alone on one of the rows, and on a batch of them. Raises MemberFailed."""
    batch = rows[np.arange(BATCH) % len(rows)]
    of_one, of_batch = (
        np.array([_seconds(lambda k=k, part=part: ensemble.ask(part, (k,))) for k in range(len(ensemble.names))])  # type: ignore[misc]
        for part in (batch[:1], batch)
    )
    row = np.maximum(of_batch - of_one, 0) / (BATCH - 1)
    return Costs(np.maximum(of_one - row, LEAST).tolist(), row.tolist())


def _seconds(call: Callable[[], object]) -> float:
    """The shortest of a few: whatever else the machine does only makes it longer."""
    shortest = np.inf
    for _ in range(REPEATS):
        began = perf_counter()
        call()
        shortest = min(shortest, perf_counter() - began)
        if shortest > LONG:
            break
    return float(shortest)
