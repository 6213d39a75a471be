"""`Engine.infer`: the one way in, whatever the transport."""

import asyncio
import logging
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import partial
from operator import attrgetter
from time import perf_counter
from typing import Any

from server import telemetry
from server.admission import Admission
from server.breaker import Breaker, State
from server.costs import measure
from server.counting import count_prediction
from server.ensemble import Ensemble
from server.errors import InvalidRepository, NotReady
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
        self._members = {ensemble: self._know(ensemble) for ensemble in repository.ensembles()}
        admission = Admission(max_wait=limits.max_wait, max_rows=limits.max_queue_size)
        self._scheduler = Scheduler(self._members, self._pool, admission)
        self._plans: dict[Any, Plan] = {}
        self._answering = 0
        """How many requests are not answered yet."""
        self._closed = False

    def ensemble(self, name: str | None = None, version: int | None = None) -> Ensemble:
        """The ensemble of this name, else the default one. Raises NotFound."""
        return self.repository.get(self.default if name is None else name, version)

    async def infer(
        self, ensemble: Ensemble, rows: Rows, options: Options, *, began: float | None = None
    ) -> Prediction:
        """Run the members on the rows, as `server.rows` has them, and fuse.

        `began`, of the loop's clock, is when the request came; None: now. Raises InvalidInput, QuorumMissed,
        DeadlineExceeded, Overloaded, NotReady.
        """
        if self._closed:
            raise NotReady("the server is stopping")
        plan = self._plan(ensemble, options)
        seconds = self._limits.deadline
        if options.deadline_ms is not None:
            seconds = min(seconds, options.deadline_ms / 1000)
        until = (asyncio.get_running_loop().time() if began is None else began) + seconds
        self._answering += 1
        try:
            return await self._predict(ensemble, plan, rows, until, hurried=options.deadline_ms is not None)
        finally:
            self._answering -= 1

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
            step, first = await self._go_on(steps, answered), False
        count_prediction(step)
        return step

    def _plan(self, ensemble: Ensemble, options: Options) -> Plan:
        """Of equal options the same one, so that their requests can be fused together. Raises InvalidInput."""
        if options.weights is not None or isinstance(options.members, list):
            return make_plan(ensemble, options)  # there is no end of weights
        key = (ensemble, _said(options))
        plan = self._plans.get(key)
        if plan is None:
            if len(self._plans) >= PLANS:
                self._plans.clear()
            plan = self._plans[key] = make_plan(ensemble, options)
        return plan

    async def _go_on(self, steps: Generator[Ask, Answered, Prediction], answered: Answered) -> Ask | Prediction:
        began = perf_counter()
        if answered.probabilities.size <= INLINE:
            step = _send(steps, answered)
        else:
            step = await asyncio.get_running_loop().run_in_executor(self._pool, _send, steps, answered)
        telemetry.observe_part("fuse", perf_counter() - began)
        return step

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
