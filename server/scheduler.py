"""Gets what members answer: lets requests in or not, cuts big ones up, and puts what belongs together into batches."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import ceil
from time import perf_counter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from server import telemetry, tracing
from server.admission import Admission
from server.batcher import Batcher, Item
from server.counting import count_answered, count_prediction
from server.ensemble import Ensemble
from server.errors import MemberFailed
from server.members import Members
from server.plan import Plan
from server.predicting import Answered
from server.prediction import Prediction, Reason, conclude_together
from server.rows import Rows
from server.run import Run

ROOM = 3
"""A deadline is near if the members' cost fits into the time left fewer times than this: they run one by one then."""
INLINE = 1 << 16
"""Numbers that are fused in the event loop's thread, in about a millisecond; more of them are in another one."""
IN_FLIGHT = 2
"""Parts of a big request that wait or run at once: none is waited for idly, and others come in between."""


class Key(NamedTuple):
    """Of requests that may share a batch."""

    ensemble: Ensemble
    members: tuple[int, ...]
    apart: bool


@dataclass(slots=True)
class _Order:
    """What a request wants of its batch."""

    plan: Plan | None
    """If it is plain: then the batch makes the prediction."""
    trace: tracing.Trace | None
    """Of the request."""
    prediction: Prediction | None = None


class Scheduler:
    """Of one process. `known` says of every ensemble what is known of its members."""

    def __init__(self, known: Mapping[Ensemble, Members], pool: ThreadPoolExecutor, admission: Admission) -> None:
        self._known, self._pool, self._admission = known, pool, admission
        self._batcher: Batcher[Key, Run] = Batcher(self._begin, max_rows=self._rows_at_once)
        self._running: set[Run] = set()

    async def ask(
        self,
        ensemble: Ensemble,
        members: tuple[int, ...],
        rows: Rows,
        until: float,
        *,
        plan: Plan | None,
        hurried: bool,
        first: bool,
    ) -> Answered | Prediction:
        """What these members answer to the rows in time; the prediction itself if the `plan` is plain and all answer.

        `until` is of the loop's clock; `hurried`: the request has said so itself. Only what comes `first` of a request
        can be refused. Raises Overloaded.
        """
        known, now = self._known[ensemble], asyncio.get_running_loop().time()
        missing: dict[int, Reason] = {}
        if not known.are_sound(members):
            missing = {member: "circuit_open" for member in members if not known.breakers[member].allows(now)}
            members = tuple(member for member in members if member not in missing)
        if not members:
            return count_answered(ensemble, nothing(ensemble, len(rows), missing))
        seconds, left = known.costs.estimate(members, len(rows)), until - now
        key = Key(ensemble, members, left < ROOM * seconds)
        at_once = known.costs.rows_at_once(members)
        # Where time is short each member runs over all rows, the cheapest first: in parts none might be done with all.
        in_parts = len(rows) > at_once and not key.apart
        turn = IN_FLIGHT * known.costs.estimate(members, at_once) if in_parts else seconds
        ticket = self._admission.enter(seconds, len(rows), left=left if first else None, turn=turn)
        answered = False
        try:
            if in_parts:
                parts = np.array_split(rows, ceil(len(rows) / at_once))
                items = await self._in_parts(key, parts, until, hurried=hurried)
            else:
                order = _Order(plan if not missing else None, tracing.current())
                items = [await self._batcher.submit(key, rows, until, hurried=hurried, order=order)]
                if order.prediction is not None:
                    answered = True
                    return order.prediction
            found = _join(ensemble, members, items, len(rows), missing)
            answered = bool(found.members)
            return count_answered(ensemble, found)
        finally:
            self._admission.leave(ticket, answered=answered)

    @property
    def busy(self) -> bool:
        """Whether anything waits or runs."""
        return bool(self._running) or not self._batcher.idle

    async def _in_parts(self, key: Key, parts: Sequence[Rows], until: float, *, hurried: bool) -> list[Item[Run]]:
        """A big request does not keep the others waiting: its next part is queued behind what has come meanwhile.

        Once its time is over no more are queued.
        """
        loop, waiting = asyncio.get_running_loop(), iter(enumerate(parts))
        trace = tracing.current()
        items: dict[int, Item[Run]] = {}

        async def go() -> None:
            for number, part in waiting:
                items[number] = await self._batcher.submit(key, part, until, hurried=hurried, order=_Order(None, trace))
                if loop.time() >= until:
                    return

        going = [asyncio.ensure_future(go()) for _ in range(IN_FLIGHT)]
        try:
            await asyncio.gather(*going)
        finally:
            for task in going:
                task.cancel()
        return [items[number] for number in sorted(items)]

    def _rows_at_once(self, key: Key) -> int:
        return self._known[key.ensemble].costs.rows_at_once(key.members)

    def _begin(self, key: Key, items: Sequence[Item[Run]], rows: Rows, release: Callable[[], None]) -> Run:
        now = perf_counter()
        for item in items:
            telemetry.observe_part("queue", now - item.since, key.ensemble.labels)
            if item.order.trace is not None:
                tracing.part("queue", item.since, item.order.trace)
        run = Run(
            key.ensemble,
            key.members,
            rows,
            items,
            apart=key.apart,
            known=self._known[key.ensemble],
            pool=self._pool,
            release=release,
            on_answers=self._conclude,
            on_end=self._end,
        )
        if not run.ended:
            self._running.add(run)
        return run

    def _end(self, run: Run) -> None:
        self._running.discard(run)
        if traces := [item.order.trace for item in run.items if item.order.trace is not None]:
            name, version = run.ensemble.labels
            tracing.batch(
                traces,
                run.began,
                {
                    "committee.ensemble": name,
                    "committee.version": version,
                    "committee.rows": run.answers.shape[1],
                    "committee.members": [run.ensemble.names[member] for member in run.members],
                },
            )

    def _conclude(self, run: Run) -> None:
        """The plain ones of a batch in which nobody is missing: fused together, counted together."""
        plain = [item for item in run.items if item.order.plan is not None and not item.done.done()]
        if not plain or run.answers.size > INLINE:
            return
        began = perf_counter()
        requests = [(item.order.plan, item.at) for item in plain]
        try:
            found = conclude_together(run.ensemble, run.members, run.answers, requests)
        except MemberFailed:  # the final estimator, over some row: each request finds out about its own
            return
        for together in found:
            count_prediction(together.prediction, len(together.requests))
            for index, prediction in together.apart():
                plain[index].order.prediction = prediction
        count_answered(run.ensemble, Answered(run.members, run.answers, {}), len(plain))
        telemetry.observe_part("fuse", perf_counter() - began, run.ensemble.labels)
        for item in plain:
            if item.order.trace is not None:
                tracing.part("fuse", began, item.order.trace)


def nothing(ensemble: Ensemble, n_rows: int, missing: Mapping[int, Reason]) -> Answered:
    """Nobody has answered."""
    return Answered((), np.empty((0, n_rows, len(ensemble.manifest.outputs)), dtype=np.float32), missing)


def _join(
    ensemble: Ensemble, members: tuple[int, ...], items: Sequence[Item[Run]], n_rows: int, missing: dict[int, Reason]
) -> Answered:
    """The answers to the parts of a request; a member has answered if it has all of them."""
    runs = [(item.run, item) for item in items if item.run is not None]
    if not runs or sum(len(item.rows) for _, item in runs) < n_rows:  # its time was over before all of it had begun
        missing.update(dict.fromkeys(members, "deadline"))
        return nothing(ensemble, n_rows, missing)
    fine: NDArray[np.bool_] = np.array([run.valid[:, item.at].all(axis=1) for run, item in runs])
    kept = fine.all(axis=0)
    for place in np.flatnonzero(~kept).tolist():
        run, item = runs[int(fine[:, place].argmin())]
        missing[members[place]] = run.reason(members[place], item)
    whole = bool(kept.all())
    parts = [run.answers[:, item.at] if whole else run.answers[kept, item.at] for run, item in runs]
    answers = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
    return Answered(tuple(member for member in members if member not in missing), answers, missing)
