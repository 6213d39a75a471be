"""`Engine.infer`: the one way in, whatever the transport."""

import asyncio
import logging
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import partial
from operator import attrgetter
from time import perf_counter
from typing import Any
from weakref import WeakKeyDictionary

from server import telemetry, tracing
from server.admission import Admission
from server.breaker import Breaker, State
from server.costs import measure
from server.counting import count_prediction
from server.ensemble import Ensemble
from server.errors import CommitteeError, InternalError, NotReady
from server.members import Members
from server.plan import Options, Plan, make_plan
from server.predicting import Answered, Ask, predicting
from server.prediction import Prediction, Reason
from server.proof import made_rows
from server.repository import Repository
from server.rows import Rows
from server.scheduler import INLINE, Scheduler
from server.watchdog import Watchdog

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
    max_wait: float = 5.0
    """Seconds that a request may wait for those before it; beyond, it is refused."""
    max_queue_size: int = 16384
    """Rows that may wait or run at once; beyond, requests are refused."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """What could be served, and what is known of those that are new."""

    repository: Repository
    known: Mapping[Ensemble, Members]


class Engine:
    """Answers requests from the ensembles of a repository; `default` names the one that a request need not name.

    Raises MemberFailed if a member fails over made-up rows.
    """

    def __init__(self, repository: Repository, *, default: str, limits: Limits = Limits()) -> None:
        self.repository = Repository(())
        self.default = default
        self.stuck = False
        """Whether a thread is lost to a call that does not end: the process should be replaced."""
        self._limits = limits
        self._watchdog = Watchdog()
        self._pool = ThreadPoolExecutor(max_workers=THREADS, thread_name_prefix="committee-infer")
        # By ensembles that somebody still asks: of one that is served no more, its last request is the last.
        self._members: WeakKeyDictionary[Ensemble, Members] = WeakKeyDictionary()
        self._plans: WeakKeyDictionary[Ensemble, dict[Any, Plan]] = WeakKeyDictionary()
        self._admission = Admission(max_wait=limits.max_wait, max_rows=limits.max_queue_size)
        self._scheduler = Scheduler(self._members, self._pool, self._admission)
        self._answering = 0
        """How many requests are not answered yet."""
        self._closed = False
        self.serve(self.prepare(repository))

    def prepare(self, repository: Repository) -> Prepared:
        """Measure what is new in it, beside what is served, in any thread. Raises MemberFailed."""
        ensembles = repository.ensembles()
        return Prepared(repository, {new: self._know(new) for new in ensembles if new not in self._members})

    def serve(self, prepared: Prepared) -> None:
        """Serve this from now on, and nothing else. What was asked before is answered by what was asked."""
        kept = set(prepared.repository.ensembles())
        for ensemble in self.repository.ensembles():
            if ensemble not in kept:
                self._forget(ensemble)
        for ensemble, known in prepared.known.items():
            self._members[ensemble], self._plans[ensemble] = known, {}
        self.repository = prepared.repository
        for ensemble in kept:
            telemetry.mark_ready(ensemble.manifest.name, ensemble.manifest.version, is_ready=True)

    def ensemble(self, name: str | None = None, version: int | None = None) -> Ensemble:
        """The ensemble of this name, else the default one. Raises NotFound."""
        return self.repository.get(self.default if name is None else name, version)

    def check_load(self) -> None:
        """Before a request is decoded. Raises Overloaded if nobody is let in now, whatever is asked."""
        self._admission.check()

    async def infer(
        self, ensemble: Ensemble, rows: Rows, options: Options, *, began: float | None = None
    ) -> Prediction:
        """Run the members on the rows, as `server.rows` has them, and fuse.

        `began`, of the loop's clock, is when the request came; None: now. Raises InvalidInput, QuorumMissed,
        DeadlineExceeded, Overloaded, NotReady.
        """
        if self._closed:
            raise NotReady("the server is stopping")
        clock = perf_counter()
        seconds, hurried = self._limits.deadline, options.deadline_ms is not None
        if options.deadline_ms is not None:
            seconds = min(seconds, options.deadline_ms / 1000)
        until = (asyncio.get_running_loop().time() if began is None else began) + seconds
        outcome = InternalError.code
        self._answering += 1
        try:
            plan = self._plan(ensemble, options)
            prediction = await self._predict(ensemble, plan, rows, until, hurried=hurried)
            outcome = "answered"
            return prediction
        except CommitteeError as exc:
            outcome = exc.code
            raise
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        finally:
            self._answering -= 1
            telemetry.observe_inference(ensemble.labels, outcome, perf_counter() - clock)

    def unreliable(self) -> dict[str, list[str]]:
        """By ensemble, its members whose circuits are open: those that are left alone for now."""
        found = {}
        for ensemble in self.repository.ensembles():
            states = zip(ensemble.names, self._members[ensemble].breakers, strict=True)
            if names := [name for name, breaker in states if breaker.state(self._now()) == "open"]:
                found[f"{ensemble.manifest.name}/{ensemble.manifest.version}"] = names
        return found

    def can_answer(self, ensemble: Ensemble | None = None) -> bool:
        """Whether the ensemble, or, of None, any that there is, has a quorum of members left."""
        unreliable = self.unreliable()
        for known in self.repository.ensembles() if ensemble is None else (ensemble,):
            manifest, n_members = known.manifest, len(known.names)
            left = n_members - len(unreliable.get(f"{manifest.name}/{manifest.version}", []))
            if left >= min(manifest.quorum or n_members // 2 + 1, n_members):
                return True
        return False

    @property
    def wait(self) -> float:
        """Seconds for which a request that comes now would wait for those before it."""
        return self._admission.wait()

    async def close(self) -> None:
        """Take no more, and wait until what was taken is answered."""
        self._closed = True
        while self._answering or self._scheduler.busy:
            await asyncio.sleep(0.005)
        self._pool.shutdown(wait=not self.stuck)
        self._watchdog.close()

    async def _predict(self, ensemble: Ensemble, plan: Plan, rows: Rows, until: float, *, hurried: bool) -> Prediction:
        steps = predicting(ensemble, plan, len(rows))
        step: Ask | Prediction = next(steps)
        first = True
        while isinstance(step, Ask):
            answered = await self._scheduler.ask(
                ensemble,
                step.members,
                rows if step.rows is None else rows[step.rows],
                until,
                plan=plan if plan.is_plain else None,
                hurried=hurried,
                first=first,
            )
            if isinstance(answered, Prediction):
                return answered
            step, first = await self._go_on(ensemble, steps, answered), False
        count_prediction(step)
        return step

    def _plan(self, ensemble: Ensemble, options: Options) -> Plan:
        """Of equal options the same one, so that their requests can be fused together. Raises InvalidInput."""
        if options.weights is not None or isinstance(options.members, list):
            return make_plan(ensemble, options)  # there is no end of weights
        plans, key = self._plans[ensemble], _said(options)
        plan = plans.get(key)
        if plan is None:
            if len(plans) >= PLANS:
                plans.clear()
            plan = plans[key] = make_plan(ensemble, options)
        return plan

    async def _go_on(
        self, ensemble: Ensemble, steps: Generator[Ask, Answered, Prediction], answered: Answered
    ) -> Ask | Prediction:
        began = perf_counter()
        if answered.probabilities.size <= INLINE:
            step = _send(steps, answered)
        else:
            step = await asyncio.get_running_loop().run_in_executor(self._pool, _send, steps, answered)
        telemetry.observe_part("fuse", perf_counter() - began, ensemble.labels)
        tracing.part("fuse", began, tracing.current())
        return step

    # ---- Members' fates ---------------------------------------------------------------------------------------------

    def _know(self, ensemble: Ensemble) -> Members:
        """What it returns holds the ensemble in no way, so that the ensemble can go."""
        manifest, where, names = ensemble.manifest, ensemble.where, ensemble.names
        rows = made_rows(manifest.inputs)
        _, valid = ensemble.ask(rows, range(len(names)))
        return Members(
            costs=measure(ensemble, rows),
            own_rows=rows[valid.all(axis=0)][:1],
            breakers=[
                Breaker(
                    failures=self._limits.breaker_failures,
                    cooldown=self._limits.breaker_cooldown,
                    changed=partial(self._on_circuit, manifest.name, manifest.version, where, name),
                )
                for name in names
            ],
            on_failure=partial(self._on_failure, where, names),
            on_stuck=self._on_stuck,
            watchdog=self._watchdog,
        )

    def _forget(self, ensemble: Ensemble) -> None:
        """What the metrics say of one that is served no more."""
        name, version = ensemble.manifest.name, ensemble.manifest.version
        telemetry.mark_ready(name, version, is_ready=False)
        for member, breaker in zip(ensemble.names, self._members[ensemble].breakers, strict=True):
            if breaker.suspect:
                telemetry.mark_circuit(name, version, member, is_open=False)

    def _on_circuit(self, ensemble: str, version: int, where: str, member: str, state: State) -> None:
        telemetry.mark_circuit(ensemble, version, member, is_open=state == "open")
        logger.warning("the circuit of a member is %s", state, extra={"where": where, "member": member})

    def _on_failure(self, where: str, names: Sequence[str], member: int, reason: Reason, why: str) -> None:
        logger.warning("a member failed: %s", why, extra={"where": where, "member": names[member], "reason": reason})

    def _on_stuck(self) -> None:
        if not self.stuck:
            self.stuck = True
            logger.error("a call of a graph does not end though it was stopped: its thread is lost")

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


_said = attrgetter(*(field.name for field in fields(Options) if field.name != "weights"))
"""What options say, but for the weights."""


def _send(steps: Generator[Ask, Answered, Prediction], answered: Answered) -> Ask | Prediction:
    try:
        return steps.send(answered)
    except StopIteration as done:
        prediction: Prediction = done.value
        return prediction
