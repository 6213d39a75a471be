"""From a plan and what the members answer to a prediction, whoever runs the members.

`predicting` is a generator: it yields an `Ask`, who is to answer for which rows, is sent what they `Answered`, and
returns the `Prediction`. A plan without a cascade asks once; a cascade asks stage by stage, for the rows that remain.
So the server, which runs members under deadlines, and an evaluation, which just runs them, share every decision.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from server.ensemble import Ensemble
from server.errors import DeadlineExceeded, QuorumMissed
from server.fusion import Fused
from server.plan import Plan
from server.prediction import Group, Prediction, Reason, conclude, confidence, fuse_by
from server.rows import Rows

LATE: frozenset[Reason] = frozenset({"deadline", "not_started"})
SURE = 1e-6
"""What rounding may take off a confidence."""


@dataclass(frozen=True, slots=True)
class Ask:
    members: tuple[int, ...]
    rows: NDArray[np.intp] | None
    """Indices of the rows; None for all."""


@dataclass(frozen=True, slots=True)
class Answered:
    members: tuple[int, ...]
    """In the order asked, those that have answered."""
    probabilities: NDArray[np.float32]
    """`(len(members), n_rows, n_outputs)`"""
    missing: Mapping[int, Reason]


def predicting(ensemble: Ensemble, plan: Plan, n_rows: int) -> Generator[Ask, Answered, Prediction]:
    """Raises QuorumMissed or DeadlineExceeded if too few members answer, or, where none may fail, not all."""
    if len(plan.stages) > 1:
        return (yield from _cascading(ensemble, plan, n_rows))
    members = plan.stages[0].members
    got = yield Ask(members, None)
    _check(ensemble, plan, len(members), got.members, got.missing)
    fused = fuse_by(ensemble, plan, got.members, got.probabilities)
    return conclude(ensemble, plan, n_rows, [Group(None, got.members, got.probabilities, fused)], got.missing, None)


def _cascading(ensemble: Ensemble, plan: Plan, n_rows: int) -> Generator[Ask, Answered, Prediction]:
    n_asked, answered_by = 0, 0
    missing: dict[int, Reason] = {}
    have: tuple[int, ...] = ()
    rows = np.arange(n_rows)
    answers = np.empty((0, n_rows, len(ensemble.manifest.outputs)), dtype=np.float32)
    stages = np.zeros(n_rows, dtype=np.intp)
    groups = []
    for number, stage in enumerate(plan.stages, start=1):
        got = yield Ask(stage.members, rows)
        missing.update(got.missing)
        n_asked += len(stage.members)
        if got.members:
            answered_by = number
            have, answers = _in_order((*have, *got.members), np.concatenate([answers, got.probabilities]))
        last = number == len(plan.stages)
        if last or plan.on_failure == "fail":
            _check(ensemble, plan, n_asked, have, missing)
        if not have:
            continue
        fused = fuse_by(ensemble, plan, have, answers)
        sure = np.ones(len(rows), dtype=bool) if last else _how_sure(plan, answers, fused) >= stage.threshold - SURE
        if sure.any() or not len(rows):
            _check(ensemble, plan, n_asked, have, missing)
            stages[rows[sure]] = answered_by
            groups.append(
                Group(rows[sure], have, answers[:, sure], Fused(fused.probabilities[sure], fused.labels[sure]))
            )
        rows, answers = rows[~sure], answers[:, ~sure]
        if not len(rows):
            break
    return conclude(ensemble, plan, n_rows, groups, missing, stages)


def drive(ensemble: Ensemble, plan: Plan, n_rows: int, answer: Callable[[Ask], NDArray[np.float32]]) -> Prediction:
    """The prediction, where every member that is asked answers: `answer` gives `(n_members, n_rows, n_outputs)`."""
    steps = predicting(ensemble, plan, n_rows)
    ask = next(steps)
    while True:
        try:
            ask = steps.send(Answered(ask.members, answer(ask), {}))
        except StopIteration as done:
            prediction: Prediction = done.value
            return prediction


def predict(ensemble: Ensemble, rows: Rows, plan: Plan) -> Prediction:
    """Just run the members. Raises MemberFailed if one does."""
    return drive(
        ensemble, plan, len(rows), lambda ask: ensemble.run(rows if ask.rows is None else rows[ask.rows], ask.members)
    )


def _check(ensemble: Ensemble, plan: Plan, n_asked: int, have: Sequence[int], missing: Mapping[int, Reason]) -> None:
    """Raise unless enough of those asked have answered."""
    least = n_asked if plan.on_failure == "fail" else plan.least(n_asked)
    if len(have) >= least:
        return
    reasons = ", ".join(f"{ensemble.names[member]}: {reason}" for member, reason in missing.items())
    error = DeadlineExceeded if LATE & set(missing.values()) else QuorumMissed
    raise error(f"expected answers of at least {least} of {n_asked} members; got {len(have)} ({reasons})")


def _how_sure(plan: Plan, answers: NDArray[np.float32], fused: Fused) -> NDArray[np.float32]:
    """`(n_rows,)`, as the plan measures it."""
    if plan.measure == "confidence":
        return confidence(fused)
    return np.asarray((answers.argmax(axis=2) == fused.labels).mean(axis=0, dtype=np.float32))


def _in_order(members: tuple[int, ...], answers: NDArray[np.float32]) -> tuple[tuple[int, ...], NDArray[np.float32]]:
    """By the manifest's order of the members."""
    order = np.argsort(members).astype(np.intp)
    return tuple(sorted(members)), answers[order]
