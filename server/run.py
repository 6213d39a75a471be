"""A batch on its way through the members of an ensemble, where one that fails, hangs or is late costs only itself.

Members run together, in one call, as long as that is safe: it is the cheapest. If it is very cheap it runs in the event
loop's thread, else, and where a request has a deadline of its own, in another. They run one by one, each in a thread of
its own, where a deadline is too near to lose all answers with the slowest, where a call together has failed or is
overdue, and where a member has failed or was late the last time.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from server import telemetry
from server.batcher import Item
from server.call import Call
from server.ensemble import Ensemble
from server.errors import MemberFailed, first_line
from server.members import Members, patience
from server.prediction import Reason
from server.rows import Rows

LENIENCE = 9
"""It is stopped at once if it hung or failed the last time, else after so many times more."""
EARLY_FACTOR, EARLY_SECONDS = 3, 0.01
"""Members that run one by one do not wait so long for each other: the next one starts beside."""
INLINE_SECONDS = 0.005
"""A batch that costs less runs in the event loop's own thread, which can do nothing else meanwhile: with another one it
would have to share the interpreter, and mostly a core."""
STUCK_SECONDS = 5.0
"""A call that has not ended so long after it was stopped will never: its thread is lost."""


class Run:
    """Begins at once. `answers (n_members, n_rows, n_outputs)` and `valid (n_members, n_rows)` fill up as it goes.

    `release` is called once, when the next batch may begin; `on_answers`, before those who wait are woken, if all
    members have answered all rows; `on_end` when nothing of this one runs any more.
    """

    def __init__(
        self,
        ensemble: Ensemble,
        members: tuple[int, ...],
        rows: Rows,
        items: Sequence[Item["Run"]],
        *,
        apart: bool,
        known: Members,
        pool: ThreadPoolExecutor,
        release: Callable[[], None],
        on_answers: Callable[["Run"], None],
        on_end: Callable[["Run"], None],
    ) -> None:
        self.ensemble, self._rows, self.items, self._known, self._pool = ensemble, rows, items, known, pool
        self._loop = asyncio.get_running_loop()
        self._waiting = len(items)
        self._calls: list[Call] = []
        self._finishing: list[asyncio.Task[None]] = []
        self._task: asyncio.Task[None] | None = None
        self.began = perf_counter()
        self._released, self._release_next, self._on_end = False, release, on_end
        self._on_answers = on_answers
        self.members = members
        shape = (len(members), len(rows))
        self.answers = np.empty((*shape, len(ensemble.manifest.outputs)), dtype=np.float32)
        self.valid = np.zeros(shape, dtype=np.bool_)
        self._reasons: dict[int, Reason] = {}
        self._raised_over: set[tuple[int, int]] = set()
        """Members, and where the rows of a request begin that they raise over."""
        self._complete = False
        """Whether all were answered at once."""
        self.ended = False
        if apart or not known.are_sound(members):
            self._go_apart(members)
        elif not any(item.hurried for item in items) and (cost := self._cost(members)) < INLINE_SECONDS:
            self._go_inline(cost)
        else:
            self._go_together()

    def reason(self, member: int, item: Item["Run"]) -> Reason:
        """Why a member has not answered the rows of a request."""
        return "raised" if (member, item.at.start) in self._raised_over else self._reasons.get(member, "deadline")

    def leave(self) -> None:
        """One of those who wait has gone; when all have, nothing more is started, and what still runs is stopped."""
        self._waiting -= 1
        if not self._waiting:
            for call in self._calls:
                self._stop(call)

    # ---- Together: the usual ways, without a task of their own -----------------------------------------------------

    def _go_inline(self, cost: float) -> None:
        """Here and now: for what is cheap, another thread would cost more than the members."""
        began = perf_counter()
        try:
            with self._known.watchdog.guarding(patience(cost)) as stop:
                answers, valid = self.ensemble.ask(self._rows, self.members, stop)
        except MemberFailed:
            self._go_apart(self.members)
        except Exception as exc:  # whatever it is, those who wait must hear of it
            self._end(exc)
        else:
            self._learn(self.members, perf_counter() - began)
            self._store(self.members, answers, valid)
            self._end(None)

    def _go_together(self) -> None:
        first = min(item.until for item in self.items)
        half = (first - self._loop.time()) / 2  # leaves the other half for them to run one by one
        call = self._start(self._rows, self.members, self._on_together)
        early = EARLY_FACTOR * self._cost(self.members) + EARLY_SECONDS
        # Nobody behind them waits for a batch that may hang; whether it does is seen later.
        self._timers = [
            self._loop.call_later(early, self._release),
            self._loop.call_later(min(self._patience(self.members), max(half, 0)), self._overdue, call),
        ]

    def _on_together(self, call: Call) -> None:
        if self._task is not None:
            return  # it was overdue
        for timer in self._timers:
            timer.cancel()
        if isinstance(call.error, MemberFailed):
            self._go_apart(self.members)
            return
        if call.error is None:
            self._learn(call.members, call.seconds)
            self._store(call.members, *call.result())
        self._end(call.error)

    def _overdue(self, call: Call) -> None:
        """The call together takes too long: perhaps one of them hangs."""
        if call.done:
            return
        self._stop(call)
        self._go_apart(self.members, after=call)

    # ---- Apart ------------------------------------------------------------------------------------------------------

    def _go_apart(self, members: tuple[int, ...], after: Call | None = None) -> None:
        self._task = self._loop.create_task(self._apart(members, after))
        self._task.add_done_callback(lambda task: self._end(task.exception()))

    async def _apart(self, members: tuple[int, ...], after: Call | None) -> None:
        if after is not None:
            await after.ended(EARLY_SECONDS)  # more is not lost on one that does not heed its stop
        suspects = [member for member in members if self._known.breakers[member].suspect]
        await self._one_by_one([member for member in members if member not in suspects])
        if suspects:
            self._release()  # whatever becomes of these, the next batch need not wait for it
            await self._one_by_one(suspects)
        if self._finishing:
            await asyncio.wait(self._finishing)
            faults = [task.exception() for task in self._finishing]  # of all, or asyncio would tell of those left
            for fault in filter(None, faults):
                raise fault

    async def _one_by_one(self, members: Sequence[int]) -> None:
        """The cheapest first. One that is slow is not waited for: the next starts beside it."""
        for member in sorted(members, key=lambda member: self._cost((member,))):
            if reason := self._why_not(member):
                self._reasons[member] = reason
                continue
            call = self._start(self._rows, (member,))
            self._finishing.append(self._loop.create_task(self._finish(call)))
            if not await call.ended(EARLY_FACTOR * self._cost((member,)) + EARLY_SECONDS):
                self._release()

    def _why_not(self, member: int) -> Reason | None:
        """What keeps a member from being started; None if nothing does."""
        if not self._waiting:
            return "deadline"
        if self._known.is_busy(member):
            return "hanging"
        cost, left = self._cost((member,)), max(item.until for item in self.items) - self._loop.time()
        if cost > left:
            if cost < 4 * left:
                self._known.costs.doubt(member)
            return "not_started"
        return None

    async def _finish(self, call: Call) -> None:
        """See one member's call to its end."""
        (member,) = call.members
        breaker = self._known.breakers[member]
        suspect = breaker.suspect
        if not await call.ended(self._patience(call.members)):
            self._known.hanging.add(member)
            if not suspect:  # the next time it is not waited for so long
                await call.ended(LENIENCE * self._patience(call.members))
            self._stop(call)
            await call.ended()
            self._known.hanging.discard(member)
        hung = self._loop.time() - call.began >= self._patience(call.members)
        if not isinstance(call.error, MemberFailed):
            self._learn(call.members, call.seconds)
            self._store(call.members, *call.result())
        elif not call.stopped:
            await self._raised(member, call.error)
        elif hung:
            self._failed(member, "hanging" if suspect else "deadline", "it was stopped: it took too long")
        else:
            self._reasons[member] = "deadline"
            breaker.was_late()

    async def _raised(self, member: int, exc: MemberFailed) -> None:
        """Over some row, perhaps only of one request: the others' are run again without it."""
        if len(self.items) > 1:
            for item in self.items:
                call = self._start(self._rows[item.at], (member,))
                await call.ended()
                if call.stopped:
                    return
                if isinstance(call.error, MemberFailed):
                    self._raised_over.add((member, item.at.start))
                else:
                    self._put(member, item.at, *call.result())
        if self.valid[self.members.index(member)].any():
            self._reasons[member] = "invalid"
            self._known.breakers[member].answered()
        else:
            self._failed_over_these(member, "raised", first_line(exc))

    # ---- Calls ------------------------------------------------------------------------------------------------------

    def _start(self, rows: Rows, members: tuple[int, ...], then: Callable[[Call], None] = lambda call: None) -> Call:
        """A call that is stopped when nobody waits any more."""
        call = self._call(rows, members, then)
        self._calls.append(call)
        return call

    def _call(self, rows: Rows, members: tuple[int, ...], then: Callable[[Call], None]) -> Call:
        def on_end(call: Call) -> None:
            self._known.calls.subtract(call.members)
            then(call)

        self._known.calls.update(members)
        return Call(self.ensemble, rows, members, self._pool, on_end)

    def _stop(self, call: Call) -> None:
        if not call.done:
            call.stop()
            self._loop.call_later(STUCK_SECONDS, self._see_stopped, call)

    def _see_stopped(self, call: Call) -> None:
        if not call.done:
            self._known.on_stuck()

    def _release(self) -> None:
        """Let the next batch begin."""
        if not self._released:
            self._released = True
            self._release_next()

    def _end(self, fault: BaseException | None) -> None:
        telemetry.count_batch(
            self.ensemble.labels, self.ensemble.names, self.members, len(self._rows), perf_counter() - self.began
        )
        if fault is None and (self._complete or self.valid.all()):
            try:
                self._on_answers(self)
            except Exception as exc:  # whatever it is, those who wait must hear of it
                fault = exc
        for item in self.items:
            if fault is not None and not item.done.done():
                item.done.set_exception(fault)
            item.wake()
        self.ended = True
        self._release()
        self._on_end(self)
        # They hold this: rows would stay in memory until somebody looks for cycles.
        self.items, self._calls, self._finishing = (), [], []

    # ---- Answers ----------------------------------------------------------------------------------------------------

    def _store(self, members: tuple[int, ...], answers: NDArray[np.float32], valid: NDArray[np.bool_]) -> None:
        if members == self.members:
            self.answers, self.valid = answers, valid
        if members == self.members and valid.all():
            self._complete = True
            for member in members:
                self._known.breakers[member].answered()
            return
        for place, member in enumerate(members):
            if members != self.members:
                self._put(member, slice(None), answers[place : place + 1], valid[place : place + 1])
            if valid[place].all():
                self._known.breakers[member].answered()
                continue
            self._reasons[member] = "invalid"
            if not valid[place].any():
                self._failed_over_these(member, "invalid", "it answered NaN, infinity or no distribution")

    def _put(self, member: int, at: slice, answers: NDArray[np.float32], valid: NDArray[np.bool_]) -> None:
        place = self.members.index(member)
        self.answers[place, at], self.valid[place, at] = answers[0], valid[0]

    def _failed(self, member: int, reason: Reason, why: str) -> None:
        self._reasons[member] = reason
        self._known.failed(member, reason, why, self._loop.time())

    def _failed_over_these(self, member: int, reason: Reason, why: str) -> None:
        """Rows may be to blame: whoever sends such must not shut a member for all others. It is asked about its own."""
        self._reasons[member] = reason
        known = self._known
        if not len(known.own_rows):
            self._failed(member, reason, why)
            return
        if member in known.on_trial:
            return
        known.on_trial.add(member)

        def judge(call: Call) -> None:
            timer.cancel()
            known.on_trial.discard(member)
            if call.error is not None or call.valid is None or not call.valid.all():
                self._failed(member, reason, why)

        call = self._call(known.own_rows, (member,), judge)
        timer = self._loop.call_later(LENIENCE * self._patience((member,)), self._stop, call)

    def _learn(self, members: tuple[int, ...], seconds: float) -> None:
        self._known.costs.learn(members, len(self._rows), seconds)
        if len(members) == 1:
            telemetry.observe_member(self.ensemble.labels, self.ensemble.names[members[0]], seconds)

    def _cost(self, members: tuple[int, ...]) -> float:
        return self._known.costs.estimate(members, len(self._rows))

    def _patience(self, members: tuple[int, ...]) -> float:
        return patience(self._cost(members))
