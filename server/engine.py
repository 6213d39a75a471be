"""`Engine.infer`: the one way in, whatever the transport."""

import asyncio
import logging
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from server import telemetry
from server.batcher import Batcher, Item
from server.breaker import Breaker, State
from server.costs import measure
from server.ensemble import Ensemble
from server.errors import InvalidRepository, NotReady
from server.members import Members
from server.plan import Options, make_plan
from server.predicting import Answered, Ask, predicting
from server.prediction import Prediction, Reason
from server.proof import made_rows
from server.repository import Repository
from server.rows import Rows
from server.run import Run
from server.watchdog import Watchdog

BATCH = 64
"""The most rows of several requests that run together: larger batches are hardly faster."""
ROOM = 3
"""A deadline is near if the members' cost fits into the time left fewer times than this: they run one by one then."""
INLINE = 1 << 16
"""Numbers that are fused in the event loop's thread, in about a millisecond; more of them are in another one."""
THREADS = 32

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a request may cost, and how much failure is borne."""

    deadline: float = 30.0
    """Seconds that a request may take if it says less about it itself."""
    breaker_failures: int = 5
    """Failures in a row that open a member's circuit; 0: none do."""
    breaker_cooldown: float = 10.0
    """Seconds until a member with an open circuit is tried again."""


@dataclass(frozen=True, slots=True)
class _Key:
    """Of requests that may share a batch."""

    ensemble: Ensemble
    members: tuple[int, ...]
    apart: bool


class Engine:
    """Answers requests from the ensembles of a repository; `default` names the one that a request need not name.

    Raises InvalidRepository if there is no such default, or a member fails over made-up rows.
    """

    def __init__(self, repository: Repository, *, default: str, limits: Limits = Limits()) -> None:
        if default not in repository.names():
            there = ", ".join(repository.names())
            raise InvalidRepository(f"the default ensemble {default!r} is not in the repository; there are: {there}")
        self.repository = repository
        self.default = default
        self.stuck = False
        """Whether a thread is lost to a call that does not end: the process should be replaced."""
        self._limits = limits
        self.on_block: Callable[[], object] = str
        """Called, in another thread, when a call that cannot be stopped blocks the event loop."""
        self._watchdog = Watchdog(self._on_block)
        self._pool = ThreadPoolExecutor(max_workers=THREADS, thread_name_prefix="committee-infer")
        self._batcher: Batcher[_Key, Run] = Batcher(self._begin, max_rows=BATCH)
        self._members = {ensemble: self._know(ensemble) for ensemble in repository.ensembles()}
        self._running: set[Run] = set()
        self._closed = False

    def ensemble(self, name: str | None = None, version: int | None = None) -> Ensemble:
        """The ensemble of this name, else the default one. Raises NotFound."""
        return self.repository.get(self.default if name is None else name, version)

    async def infer(
        self, ensemble: Ensemble, rows: Rows, options: Options, *, began: float | None = None
    ) -> Prediction:
        """Run the members on the rows, as `server.rows` has them, and fuse.

        `began`, of the loop's clock, is when the request came; None: now. Raises InvalidInput, QuorumMissed,
        DeadlineExceeded, NotReady.
        """
        if self._closed:
            raise NotReady("the server is stopping")
        plan = make_plan(ensemble, options)
        seconds = self._limits.deadline
        if options.deadline_ms is not None:
            seconds = min(seconds, options.deadline_ms / 1000)
        until = (asyncio.get_running_loop().time() if began is None else began) + seconds
        steps = predicting(ensemble, plan, len(rows))
        step: Ask | Prediction = next(steps)
        while isinstance(step, Ask):
            answered = await self._ask(ensemble, step, rows, until, hurried=options.deadline_ms is not None)
            step = await self._go_on(steps, answered)
        self._count(step, len(rows))
        return step

    def unreliable(self) -> dict[str, list[str]]:
        """By ensemble, its members whose circuits are open: those that are left alone for now."""
        found = {}
        for ensemble, known in self._members.items():
            states = zip(ensemble.names, known.breakers, strict=True)
            if names := [name for name, breaker in states if breaker.state(self._now()) == "open"]:
                found[f"{ensemble.manifest.name}/{ensemble.manifest.version}"] = names
        return found

    def can_answer(self) -> bool:
        """Whether there is an ensemble that has a quorum of members left."""
        unreliable = self.unreliable()
        for ensemble in self._members:
            manifest, n_members = ensemble.manifest, len(ensemble.names)
            left = n_members - len(unreliable.get(f"{manifest.name}/{manifest.version}", []))
            if left >= min(manifest.quorum or n_members // 2 + 1, n_members):
                return True
        return False

    async def close(self) -> None:
        """Take no more, and wait until what was taken is answered."""
        self._closed = True
        while not self._batcher.idle or self._running:
            await asyncio.sleep(0.005)
        self._pool.shutdown(wait=not self.stuck)
        self._watchdog.close()

    # ---- One stage --------------------------------------------------------------------------------------------------

    async def _ask(self, ensemble: Ensemble, ask: Ask, rows: Rows, until: float, *, hurried: bool) -> Answered:
        """What the members answer in time."""
        wanted = rows if ask.rows is None else rows[ask.rows]
        known = self._members[ensemble]
        now = self._now()
        missing: dict[int, Reason] = {
            member: "circuit_open" for member in ask.members if not known.breakers[member].allows(now)
        }
        members = tuple(member for member in ask.members if member not in missing) if missing else ask.members
        nothing = np.empty((0, len(wanted), len(ensemble.manifest.outputs)), dtype=np.float32)
        if not members:
            return self._counted(ensemble, Answered((), nothing, missing))
        apart = until - now < ROOM * known.costs.estimate(members, len(wanted))
        item = await self._batcher.submit(_Key(ensemble, members, apart), wanted, until, hurried=hurried)
        if item.run is None:
            missing.update(dict.fromkeys(members, "deadline"))
            return self._counted(ensemble, Answered((), nothing, missing))
        valid: NDArray[np.bool_] = np.asarray(item.run.valid[:, item.at].all(axis=1))
        if valid.all():
            return self._counted(ensemble, Answered(members, item.run.answers[:, item.at], missing))
        for member, fine in zip(members, valid, strict=True):
            if not fine:
                missing[member] = item.run.reason(member, item)
        have = tuple(member for member in members if member not in missing)
        return self._counted(ensemble, Answered(have, item.run.answers[valid, item.at], missing))

    def _begin(self, key: _Key, items: Sequence[Item[Run]], rows: Rows, release: Callable[[], None]) -> Run:
        run = Run(
            key.ensemble,
            key.members,
            rows,
            items,
            apart=key.apart,
            known=self._members[key.ensemble],
            pool=self._pool,
            release=release,
            on_end=self._running.discard,
        )
        if not run.ended:
            self._running.add(run)
        return run

    async def _go_on(self, steps: Generator[Ask, Answered, Prediction], answered: Answered) -> Ask | Prediction:
        if answered.probabilities.size <= INLINE:
            return _send(steps, answered)
        return await asyncio.get_running_loop().run_in_executor(self._pool, _send, steps, answered)

    # ---- Members' fates ---------------------------------------------------------------------------------------------

    def _know(self, ensemble: Ensemble) -> Members:
        return Members(
            costs=measure(ensemble, made_rows(ensemble.manifest.inputs)),
            breakers=[
                Breaker(
                    failures=self._limits.breaker_failures,
                    cooldown=self._limits.breaker_cooldown,
                    changed=partial(self._on_circuit, ensemble, name),
                )
                for name in ensemble.names
            ],
            on_failure=partial(self._on_failure, ensemble),
            on_stuck=self._on_stuck,
            watchdog=self._watchdog,
        )

    def _on_circuit(self, ensemble: Ensemble, member: str, state: State) -> None:
        manifest = ensemble.manifest
        telemetry.mark_circuit(manifest.name, manifest.version, member, is_open=state == "open")
        logger.warning("the circuit of a member is %s", state, extra={"where": ensemble.where, "member": member})

    def _on_failure(self, ensemble: Ensemble, member: int, reason: Reason, why: str) -> None:
        logger.warning(
            "a member failed: %s",
            why,
            extra={"where": ensemble.where, "member": ensemble.names[member], "reason": reason},
        )

    def _on_stuck(self) -> None:
        if not self.stuck:
            self.stuck = True
            logger.error("a call of a graph does not end though it was stopped: its thread is lost")

    def _on_block(self) -> None:
        self.stuck = True
        logger.critical("a call of a graph does not end though it was stopped, and the event loop with it")
        self.on_block()

    # ---- Counting ---------------------------------------------------------------------------------------------------

    def _counted(self, ensemble: Ensemble, answered: Answered) -> Answered:
        manifest, names = ensemble.manifest, ensemble.names
        fates: dict[str, str] = dict.fromkeys((names[member] for member in answered.members), "answered")
        fates |= {names[member]: reason for member, reason in answered.missing.items()}
        telemetry.count_members(manifest.name, manifest.version, fates)
        return answered

    def _count(self, prediction: Prediction, n_rows: int) -> None:
        manifest = prediction.ensemble.manifest
        stages, abstains = prediction.stages, prediction.abstains
        telemetry.count_prediction(
            ensemble=manifest.name,
            version=manifest.version,
            strategy=prediction.strategy,
            rows=n_rows,
            degraded=bool(prediction.missing),
            abstained=0 if abstains is None else int(abstains.sum()),
            by_stage=[] if stages is None else np.bincount(stages)[1:].tolist(),
            disagreements=_disagreements(prediction) if manifest.task == "classification" else {},
        )

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


def _send(steps: Generator[Ask, Answered, Prediction], answered: Answered) -> Ask | Prediction:
    try:
        return steps.send(answered)
    except StopIteration as done:
        prediction: Prediction = done.value
        return prediction


def _disagreements(prediction: Prediction) -> dict[str, int]:
    """By member, on how many of the rows that it answered its best class is not the answer's label."""
    differs = prediction.member_probabilities.argmax(axis=2) != prediction.fused.labels
    if prediction.stages is not None:
        differs &= ~np.isnan(prediction.member_probabilities[:, :, 0])
    names = prediction.ensemble.names
    return {names[i]: int(n) for i, n in zip(prediction.members, differs.sum(axis=1), strict=True)}
