"""`Engine.infer`: the one way in, whatever the transport."""

import asyncio
import logging
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import partial
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server import telemetry
from server.batcher import Batcher, Item
from server.breaker import Breaker, State
from server.costs import measure
from server.ensemble import Ensemble
from server.errors import InvalidRepository, MemberFailed, NotReady
from server.members import Members
from server.plan import Options, Plan, make_plan
from server.predicting import Answered, Ask, predicting
from server.prediction import Prediction, Reason, conclude_together
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
PLANS = 1024
"""Different options of which the plans are remembered."""

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


@dataclass(slots=True)
class _Order:
    """What a request wants of its batch."""

    plan: Plan | None
    """If it is plain: then the batch makes the prediction."""
    prediction: Prediction | None = None


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
        self._plans: dict[Any, Plan] = {}
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
        plan = self._plan(ensemble, options)
        seconds = self._limits.deadline
        if options.deadline_ms is not None:
            seconds = min(seconds, options.deadline_ms / 1000)
        until = (asyncio.get_running_loop().time() if began is None else began) + seconds
        steps = predicting(ensemble, plan, len(rows))
        step: Ask | Prediction = next(steps)
        while isinstance(step, Ask):
            answered = await self._ask(ensemble, plan, step, rows, until, hurried=options.deadline_ms is not None)
            if isinstance(answered, Prediction):
                return answered
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

    def can_answer(self, ensemble: Ensemble | None = None) -> bool:
        """Whether the ensemble, or, of None, any that there is, has a quorum of members left."""
        unreliable = self.unreliable()
        for known in self._members if ensemble is None else (ensemble,):
            manifest, n_members = known.manifest, len(known.names)
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

    def _plan(self, ensemble: Ensemble, options: Options) -> Plan:
        """Of equal options the same one, so that their requests can be fused together. Raises InvalidInput."""
        if options.weights is not None:
            return make_plan(ensemble, options)  # there is no end of them
        key = (ensemble, *(tuple(said) if isinstance(said, list) else said for said in _said(options)))
        plan = self._plans.get(key)
        if plan is None:
            if len(self._plans) >= PLANS:
                self._plans.clear()
            plan = self._plans[key] = make_plan(ensemble, options)
        return plan

    async def _ask(
        self, ensemble: Ensemble, plan: Plan, ask: Ask, rows: Rows, until: float, *, hurried: bool
    ) -> Answered | Prediction:
        """What the members answer in time; the prediction itself if it is plain and nobody is missing."""
        wanted = rows if ask.rows is None else rows[ask.rows]
        known = self._members[ensemble]
        now = self._now()
        missing: dict[int, Reason] = {}
        members = ask.members
        if not known.are_sound(members):
            missing = {member: "circuit_open" for member in members if not known.breakers[member].allows(now)}
            members = tuple(member for member in members if member not in missing)
        if not members:
            return self._counted(ensemble, _nothing(ensemble, len(wanted), missing))
        apart = until - now < ROOM * known.costs.estimate(members, len(wanted))
        order = _Order(plan if plan.is_plain and not missing else None)
        item = await self._batcher.submit(_Key(ensemble, members, apart), wanted, until, hurried=hurried, order=order)
        if order.prediction is not None:
            return order.prediction
        if item.run is None:
            missing.update(dict.fromkeys(members, "deadline"))
            return self._counted(ensemble, _nothing(ensemble, len(wanted), missing))
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
            on_answers=self._conclude,
            on_end=self._running.discard,
        )
        if not run.ended:
            self._running.add(run)
        return run

    def _conclude(self, run: Run) -> None:
        """The plain ones of a batch in which nobody is missing: fused together, counted together."""
        plain = [item for item in run.items if item.order.plan is not None and not item.done.done()]
        if not plain or run.answers.size > INLINE:
            return
        requests = [(item.order.plan, item.at) for item in plain]
        try:
            predictions = conclude_together(run.ensemble, run.members, run.answers, requests)
        except MemberFailed:  # the final estimator, over some row: each request finds out about its own
            return
        for item, prediction in zip(plain, predictions, strict=True):
            item.order.prediction = prediction
        self._count_together(run.ensemble, predictions)

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

    def _count_together(self, ensemble: Ensemble, predictions: Sequence[Prediction]) -> None:
        manifest, names = ensemble.manifest, ensemble.names
        members = predictions[0].members
        telemetry.count_members(
            manifest.name, manifest.version, {names[member]: "answered" for member in members}, len(predictions)
        )
        by_strategy: dict[str, list[Prediction]] = {}
        for prediction in predictions:
            by_strategy.setdefault(prediction.strategy, []).append(prediction)
        for strategy, some in by_strategy.items():
            labels = np.concatenate([prediction.fused.labels for prediction in some])
            answers = np.concatenate([prediction.member_probabilities for prediction in some], axis=1)
            differs = (answers.argmax(axis=2) != labels).sum(axis=1) if manifest.task == "classification" else ()
            abstains = [said for prediction in some if (said := prediction.abstains) is not None]
            telemetry.count_prediction(
                ensemble=manifest.name,
                version=manifest.version,
                strategy=strategy,
                requests=len(some),
                rows=len(labels),
                abstained=sum(int(said.sum()) for said in abstains),
                disagreements={names[member]: int(n) for member, n in zip(members, differs)},  # noqa: B905
            )

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


_said = attrgetter(*(field.name for field in fields(Options) if field.name != "weights"))
"""What options say, but for the weights."""


def _nothing(ensemble: Ensemble, n_rows: int, missing: Mapping[int, Reason]) -> Answered:
    return Answered((), np.empty((0, n_rows, len(ensemble.manifest.outputs)), dtype=np.float32), missing)


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
