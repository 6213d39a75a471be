"""A batch on its way through the members of an ensemble, where one that fails, hangs or is late costs only itself.

Members run together, in one call, as long as that is safe: it is the cheapest. They run one by one, each in a thread
of its own, where a deadline is too near to lose all answers with the slowest, where a call together has failed or is
overdue, and where a member has failed or was late the last time. Everything here happens in the event loop's thread;
only the graphs run in others.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from server.batcher import Item
from server.breaker import Breaker
from server.costs import Costs
from server.ensemble import Ensemble
from server.errors import MemberFailed, first_line
from server.prediction import Reason
from server.rows import Rows
from server.session import Stop

FACTOR, SECONDS = 10, 0.25
"""A call that takes so many times its measured cost, and so much longer, hangs."""
EARLY_FACTOR, EARLY_SECONDS = 3, 0.01
"""Members that run one by one do not wait so long for each other: the next one starts beside."""
STUCK_SECONDS = 5.0
"""A call that has not ended so long after it was stopped will never: its thread is lost."""


@dataclass(slots=True)
class Watch:
    """What is known of an ensemble's members, for all of its batches."""

    costs: Costs
    breakers: Sequence[Breaker]
    on_failure: Callable[[int, Reason, str], None]
    """Told the member, the reason and its words, when it has answered until now."""
    on_stuck: Callable[[], None]
    hanging: set[int] = field(default_factory=set)
    """Members of which a call is overdue."""


class _Call:
    """One run of a graph, in a thread."""

    def __init__(self, ensemble: Ensemble, rows: Rows, members: tuple[int, ...], pool: ThreadPoolExecutor) -> None:
        loop = asyncio.get_running_loop()
        self.members = members
        self.began = loop.time()
        self.stopped = False
        self._stop = Stop()
        self.future = loop.run_in_executor(pool, ensemble.ask, rows, members, self._stop)

    def stop(self) -> None:
        if not self.stopped:
            self.stopped = True
            self._stop()

    async def ended(self, seconds: float) -> bool:
        """Whether it does within so many seconds."""
        return bool((await asyncio.wait([self.future], timeout=max(seconds, 0)))[0])


class Run:
    """Begins at once. `answers (n_members, n_rows, n_outputs)` and `valid (n_members, n_rows)` fill up as it goes."""

    def __init__(
        self,
        ensemble: Ensemble,
        members: tuple[int, ...],
        rows: Rows,
        items: Sequence[Item["Run"]],
        *,
        apart: bool,
        watch: Watch,
        pool: ThreadPoolExecutor,
    ) -> None:
        self._ensemble, self._rows, self._items, self._watch, self._pool = ensemble, rows, items, watch, pool
        self._loop = asyncio.get_running_loop()
        self._waiting = len(items)
        self._calls: list[_Call] = []
        self._finishing: list[asyncio.Task[None]] = []
        self._until = [item.until for item in items]
        self.members = members
        self.answers = np.empty((len(members), len(rows), len(ensemble.manifest.outputs)), dtype=np.float32)
        self.valid = np.zeros((len(members), len(rows)), dtype=np.bool_)
        self.reasons: dict[int, Reason] = {}
        """Of members that have ended without an answer to every row."""
        self.released: asyncio.Future[None] = self._loop.create_future()
        self.task = self._loop.create_task(self._carry_out(apart))
        self.task.add_done_callback(self._end)

    def leave(self) -> None:
        """One of those who wait has gone; when all have, nothing more is started, and what still runs is stopped."""
        self._waiting -= 1
        if not self._waiting:
            for call in self._calls:
                self._stop(call)

    async def _carry_out(self, apart: bool) -> None:
        suspects = tuple(member for member in self.members if self._watch.breakers[member].suspect)
        sound = tuple(member for member in self.members if member not in suspects)
        if apart or len(sound) == 1:
            await self._one_by_one(sound)
        elif sound:
            await self._together(sound)
        await self._one_by_one(suspects, suspect=True)
        if self._finishing:
            await asyncio.wait(self._finishing)
            for task in self._finishing:
                task.result()

    def _end(self, task: "asyncio.Task[None]") -> None:
        self._release()
        for item in self._items:
            if not item.done.done() and (fault := task.exception()):
                item.done.set_exception(fault)
            item.wake()

    def _release(self) -> None:
        """Let the next batch begin."""
        if not self.released.done():
            self.released.set_result(None)

    # ---- Calls ------------------------------------------------------------------------------------------------------

    async def _together(self, members: tuple[int, ...]) -> None:
        """All in one call; if that comes to nothing, one by one."""
        call = self._start(self._rows, members)
        half = (min(self._until) - self._loop.time()) / 2  # leaves the other half for them to run one by one
        if await call.ended(min(self._patience(members), half)):
            try:
                self._store(call, *call.future.result())
                return
            except MemberFailed:
                pass
        else:
            self._stop(call)
            if not await call.ended(STUCK_SECONDS):
                self._release()
            call.future.cancelled() or call.future.exception()  # it is looked at, or the loop complains
        await self._one_by_one(members)

    async def _one_by_one(self, members: tuple[int, ...], *, suspect: bool = False) -> None:
        """The cheapest first. One that is slow is not waited for: the next starts beside it."""
        if suspect and members:
            self._release()  # whatever becomes of these, the next batch need not wait for it
        for member in sorted(members, key=lambda member: self._cost((member,))):
            if reason := self._why_not(member):
                self.reasons[member] = reason
                continue
            call = self._start(self._rows, (member,))
            self._finishing.append(self._loop.create_task(self._finish(call, suspect=suspect)))
            patience = EARLY_FACTOR * self._cost((member,)) + EARLY_SECONDS
            if not await call.ended(patience):
                self._release()

    def _why_not(self, member: int) -> Reason | None:
        """What keeps a member from being started; None if nothing does."""
        if not self._waiting:
            return "deadline"
        if member in self._watch.hanging:
            return "hanging"
        if self._loop.time() + self._cost((member,)) > max(self._until):
            return "not_started"
        return None

    async def _finish(self, call: _Call, *, suspect: bool) -> None:
        """See one member's call to its end."""
        (member,) = call.members
        breaker = self._watch.breakers[member]
        if not await call.ended(self._patience(call.members)):
            self._watch.hanging.add(member)
            if suspect:
                self._stop(call)
            await asyncio.wait([call.future])
            self._watch.hanging.discard(member)
        hung = self._loop.time() - call.began >= self._patience(call.members)
        try:
            self._store(call, *call.future.result())
        except MemberFailed as exc:
            if not call.stopped:
                await self._raised(member, exc)
            elif hung:
                self._failed(member, "hanging" if suspect else "deadline", "it was stopped: it took too long")
            else:
                self.reasons[member] = "deadline"
                breaker.was_late()

    async def _raised(self, member: int, exc: MemberFailed) -> None:
        """Over some row, perhaps only of one request: the others' are run again without it."""
        if len(self._items) > 1:
            for item in self._items:
                call = self._start(self._rows[item.at], (member,))
                await asyncio.wait([call.future])
                if call.future.exception() is None:
                    self._put(member, item.at, *call.future.result())
        if self.valid[self.members.index(member)].any():
            self.reasons[member] = "raised"
            self._watch.breakers[member].answered()
        else:
            self._failed(member, "raised", first_line(exc))

    def _start(self, rows: Rows, members: tuple[int, ...]) -> _Call:
        call = _Call(self._ensemble, rows, members, self._pool)
        self._calls.append(call)
        return call

    def _stop(self, call: _Call) -> None:
        if not call.future.done():
            call.stop()
            self._loop.call_later(STUCK_SECONDS, self._see_stopped, call)

    def _see_stopped(self, call: _Call) -> None:
        if not call.future.done():
            self._watch.on_stuck()

    # ---- Answers ----------------------------------------------------------------------------------------------------

    def _store(self, call: _Call, answers: NDArray[np.float32], valid: NDArray[np.bool_]) -> None:
        if call.members == self.members:
            self.answers, self.valid = answers, valid
        for place, member in enumerate(call.members):
            if call.members != self.members:
                self._put(member, slice(None), answers[place : place + 1], valid[place : place + 1])
            if valid[place].all():
                self._watch.breakers[member].answered()
                continue
            self.reasons[member] = "invalid"
            if not valid[place].any():
                self._failed(member, "invalid", "it answered NaN, infinity or no distribution")

    def _put(self, member: int, at: slice, answers: NDArray[np.float32], valid: NDArray[np.bool_]) -> None:
        place = self.members.index(member)
        self.answers[place, at], self.valid[place, at] = answers[0], valid[0]

    def _failed(self, member: int, reason: Reason, why: str) -> None:
        self.reasons[member] = reason
        if not self._watch.breakers[member].suspect:
            self._watch.on_failure(member, reason, why)
        self._watch.breakers[member].failed(self._loop.time())

    def _cost(self, members: tuple[int, ...]) -> float:
        return self._watch.costs.estimate(members, len(self._rows))

    def _patience(self, members: tuple[int, ...]) -> float:
        return FACTOR * self._cost(members) + SECONDS
