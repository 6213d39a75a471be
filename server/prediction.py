"""A prediction, and how it is made of groups of rows that the same members have answered."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from server import uncertainty
from server.ensemble import Ensemble
from server.fusion import STACKING, Fused, fuse, normalise_weights
from server.plan import Plan
from server.uncertainty import Spread, Uncertainty

T = TypeVar("T", bound=np.generic)

Reason = Literal["raised", "invalid", "deadline", "not_started", "hanging", "circuit_open"]
"""Why a member has no part in an answer: it raised; it answered NaN, infinity or no distribution; it was not done in
time; it could not have been; it still hangs over other rows; it failed so often that it is left alone for a while."""
FALLBACK = "log_linear"
"""Stands in for stacking where a member is missing: a final estimator reads all of them."""


@dataclass(slots=True, kw_only=True)  # not frozen: that takes three times as long to make
class Prediction:
    """One request's answer, in arrays; transports make text or bytes of it."""

    ensemble: Ensemble
    plan: Plan
    strategy: str
    """That was applied: the plan's, but for stacking without all members."""
    fused: Fused
    members: tuple[int, ...]
    """Those that took part, in the manifest's order."""
    weights: NDArray[np.float32]
    """`(len(members),)`: their effective weights, which sum to 1."""
    member_probabilities: NDArray[np.float32]
    """`(len(members), n_samples, n_outputs)`; NaN where a cascade did not ask a member."""
    missing: Mapping[str, Reason]
    """By name: who should have taken part, and why it did not."""
    stages: NDArray[np.intp] | None
    """`(n_samples,)`, from 1: which stage of a cascade answered each row."""
    uncertainty: Uncertainty | Spread | None
    contributions: NDArray[np.float32] | None
    """`(len(members), n_samples, n_outputs)`: the answer, less the answer without this member; NaN as above."""

    @property
    def abstains(self) -> NDArray[np.bool_] | None:
        """`(n_samples,)`: where the confidence is under what was asked for; None if nothing was."""
        if self.plan.abstain_below is None:
            return None
        return confidence(self.fused) < self.plan.abstain_below


@dataclass(frozen=True, slots=True)
class Group:
    """Rows that the same members have answered."""

    rows: NDArray[np.intp] | None
    """Indices; None for all."""
    members: tuple[int, ...]
    answers: NDArray[np.float32]
    """`(len(members), n_rows, n_outputs)`"""
    fused: Fused


def confidence(fused: Fused) -> NDArray[np.float32]:
    """`(n_samples,)`: the probability of each answer's label."""
    return np.asarray(fused.probabilities[np.arange(len(fused.labels)), fused.labels])


def rule_of(ensemble: Ensemble, plan: Plan, members: tuple[int, ...]) -> str:
    return FALLBACK if plan.rule == STACKING and len(members) < len(ensemble.names) else plan.rule


def fuse_by(ensemble: Ensemble, plan: Plan, members: tuple[int, ...], answers: NDArray[np.float32]) -> Fused:
    return fuse(
        rule_of(ensemble, plan, members),
        answers,
        weights=_effective_weights(ensemble, plan, members),
        temperatures=ensemble.temperatures[list(members)],
        final_estimator=ensemble.final_estimator,
        task=ensemble.manifest.task,
    )


def _effective_weights(ensemble: Ensemble, plan: Plan, members: tuple[int, ...]) -> NDArray[np.float32]:
    if (rule := rule_of(ensemble, plan, members)) == plan.rule:
        return plan.weights_of(members)
    weights = ensemble.weights(rule)[list(members)]
    return normalise_weights(weights if weights.any() else np.ones(len(members)))


def conclude(
    ensemble: Ensemble,
    plan: Plan,
    n_rows: int,
    groups: Sequence[Group],
    missing: Mapping[int, Reason],
    stages: NDArray[np.intp] | None,
) -> Prediction:
    """Fuse each group of rows and put the groups together."""
    members = groups[0].members
    if len(groups) > 1:
        members = tuple(sorted({member for group in groups for member in group.members}))
    rule = rule_of(ensemble, plan, members)
    return Prediction(
        ensemble=ensemble,
        plan=plan,
        strategy=plan.strategy if rule == plan.rule else rule,
        fused=Fused(
            _joined(n_rows, groups, [group.fused.probabilities for group in groups]),
            _joined(n_rows, groups, [group.fused.labels for group in groups]),
        ),
        members=members,
        weights=_effective_weights(ensemble, plan, members),
        member_probabilities=_by_member(n_rows, groups, members, [group.answers for group in groups]),
        missing={ensemble.names[member]: reason for member, reason in sorted(missing.items())} if missing else {},
        stages=stages,
        uncertainty=_uncertainty(ensemble, plan, n_rows, groups) if plan.uncertainty else None,
        contributions=_contributions(ensemble, plan, n_rows, groups, members) if plan.contributions else None,
    )


@dataclass(slots=True)
class Together:
    """Requests of one plain plan that were fused in one go."""

    prediction: Prediction
    """Of the rows of all of them."""
    requests: list[int]
    """Which they are of those that were given."""
    places: list[slice]
    """The rows of each in the prediction."""

    def apart(self) -> Iterator[tuple[int, Prediction]]:
        """Each request's own prediction."""
        whole = self.prediction
        for index, place in zip(self.requests, self.places, strict=True):
            fused = Fused(whole.fused.probabilities[place], whole.fused.labels[place])
            yield (
                index,
                Prediction(
                    ensemble=whole.ensemble,
                    plan=whole.plan,
                    strategy=whole.strategy,
                    fused=fused,
                    members=whole.members,
                    weights=whole.weights,
                    member_probabilities=whole.member_probabilities[:, place],
                    missing=whole.missing,
                    stages=None,
                    uncertainty=whole.uncertainty and _part_of(whole.uncertainty, place),
                    contributions=None,
                ),
            )


def conclude_together(
    ensemble: Ensemble,
    members: tuple[int, ...],
    answers: NDArray[np.float32],
    requests: Sequence[tuple[Plan, slice]],
) -> list[Together]:
    """The predictions of requests that shared a batch, of plain plans, whose members have all answered.

    `answers (n_members, n_rows of the batch, n_outputs)`; a request's rows are a slice of them. Requests of one plan
    are fused in one go: a row's answer does not depend on the rows beside it. Raises MemberFailed if a final estimator
    does.
    """
    by_plan: dict[int, list[int]] = {}
    for index, (plan, _) in enumerate(requests):
        by_plan.setdefault(id(plan), []).append(index)
    found = []
    for indices in by_plan.values():
        plan = requests[indices[0]][0]
        slices = [requests[index][1] for index in indices]
        places, end = [], 0
        for at in slices:
            places.append(slice(end, end := end + at.stop - at.start))
        if places == slices:
            own = answers[:, :end]
        elif len(slices) == 1:
            own = answers[:, slices[0]]
        else:
            own = np.concatenate([answers[:, at] for at in slices], axis=1)
        group = Group(None, members, own, fuse_by(ensemble, plan, members, own))
        found.append(Together(conclude(ensemble, plan, end, [group], {}, None), indices, places))
    return found


def _uncertainty(ensemble: Ensemble, plan: Plan, n_rows: int, groups: Sequence[Group]) -> Uncertainty | Spread:
    measured = [
        _measure(ensemble, group.answers, _effective_weights(ensemble, plan, group.members), group.fused)
        for group in groups
    ]
    kind = type(measured[0])
    return kind(*(_joined(n_rows, groups, [getattr(part, field.name) for part in measured]) for field in fields(kind)))


def _measure(
    ensemble: Ensemble, answers: NDArray[np.float32], weights: NDArray[np.float32], fused: Fused
) -> Uncertainty | Spread:
    if ensemble.manifest.task == "regression":
        return uncertainty.spread(answers, weights)
    return uncertainty.measure(answers, weights, fused)


def _part_of(measured: Uncertainty | Spread, rows: slice) -> Uncertainty | Spread:
    kind = type(measured)
    return kind(*(getattr(measured, field.name)[rows] for field in fields(kind)))


def _contributions(
    ensemble: Ensemble, plan: Plan, n_rows: int, groups: Sequence[Group], members: tuple[int, ...]
) -> NDArray[np.float32]:
    """`(len(members), n_rows, n_outputs)`: the answer, less the answer of the others."""
    moved = [
        np.stack(
            [group.fused.probabilities - _without(ensemble, plan, group, place) for place in range(len(group.members))]
        )
        for group in groups
    ]
    return _by_member(n_rows, groups, members, moved)


def _without(ensemble: Ensemble, plan: Plan, group: Group, place: int) -> NDArray[np.float32]:
    """The answer of the others; where there are none, uniform probabilities, or zeros."""
    others = group.members[:place] + group.members[place + 1 :]
    if others:
        return fuse_by(ensemble, plan, others, np.delete(group.answers, place, axis=0)).probabilities
    nothing = 1 / group.answers.shape[2] if ensemble.manifest.task == "classification" else 0
    return np.full(group.answers.shape[1:], nothing, dtype=np.float32)


def _joined(n_rows: int, groups: Sequence[Group], parts: Sequence[NDArray[T]]) -> NDArray[T]:
    """Arrays `(n_rows of the group, …)` as one `(n_rows, …)`."""
    if groups[0].rows is None:
        return parts[0]
    whole = np.empty((n_rows, *parts[0].shape[1:]), dtype=parts[0].dtype)
    for group, part in zip(groups, parts, strict=True):
        whole[group.rows] = part
    return whole


def _by_member(
    n_rows: int, groups: Sequence[Group], members: tuple[int, ...], parts: Sequence[NDArray[np.float32]]
) -> NDArray[np.float32]:
    """Arrays `(n_members of the group, n_rows of the group, n_outputs)` as one of all members and rows."""
    if groups[0].rows is None:
        return parts[0]
    whole = np.full((len(members), n_rows, parts[0].shape[2]), np.nan, dtype=np.float32)
    for group, part in zip(groups, parts, strict=True):
        for member, answer in zip(group.members, part, strict=True):
            whole[members.index(member), group.rows] = answer
    return whole
