"""What a request asks for, made definite for one ensemble: who runs, in which stages, and how they are fused."""

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from server.ensemble import Ensemble
from server.errors import InvalidInput
from server.fusion import BY_TASK, CASCADE, STACKING, normalise_weights
from server.manifest import CascadeSpec, OnFailure

EXCLUDED = "-"
"""Before the name of a member that is not to run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a request says about fusion; None where it says nothing and the manifest decides."""

    strategy: str | None = None
    weights: Mapping[str, float] | None = None
    members: Sequence[str] | None = None
    """Those that are to run, or, each after a `-`, those that are not."""
    cascade_threshold: float | None = None
    deadline_ms: float | None = None
    """From when the request came."""
    quorum: int | None = None
    on_failure: OnFailure | None = None
    abstain_below: float | None = None
    uncertainty: bool = False
    contributions: bool = False


@dataclass(frozen=True, slots=True)
class Stage:
    members: tuple[int, ...]
    threshold: float
    """A row whose answer is at least so sure goes no further; infinite in the last stage."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Options made definite. A plan without a cascade has one stage."""

    strategy: str
    """As it was asked for."""
    rule: str
    """The strategy that fuses: the same, or that of the cascade."""
    members: tuple[int, ...]
    """In the manifest's order, those that may run."""
    stages: tuple[Stage, ...]
    measure: Literal["confidence", "agreement"]
    given_weights: NDArray[np.float64]
    """`(n_members of the ensemble,)`, at any scale: the request's, or the manifest's."""
    weights: NDArray[np.float32]
    """`(len(members),)`, sum to 1."""
    quorum: int | None
    on_failure: OnFailure
    abstain_below: float | None
    uncertainty: bool
    contributions: bool

    @property
    def is_plain(self) -> bool:
        """Whether its answer is one fusion of all members' answers, with or without what they differ by."""
        return len(self.stages) == 1 and not self.contributions

    def weights_of(self, members: Sequence[int]) -> NDArray[np.float32]:
        """The effective weights `(len(members),)` of those that take part: they sum to 1."""
        return self.weights if members == self.members else _effective(self.given_weights, members)

    def least(self, n_asked: int) -> int:
        """How many of so many members must answer."""
        if self.quorum is not None:
            return min(self.quorum, n_asked)
        # Any stage of a cascade alone may answer.
        return n_asked // 2 + 1 if len(self.stages) == 1 else 1


def make_plan(ensemble: Ensemble, options: Options) -> Plan:
    """Resolve and check the options against the ensemble. Raises InvalidInput."""
    manifest = ensemble.manifest
    strategy = manifest.default_strategy if options.strategy is None else options.strategy
    if strategy not in ensemble.strategies:
        offered = ", ".join(ensemble.strategies)
        raise InvalidInput(f"strategy: expected one of {offered}; got {strategy!r}{_why_not(ensemble, strategy)}")
    members = _members(ensemble, options.members)
    rule, measure = strategy, CascadeSpec.model_fields["measure"].default
    stages: tuple[Stage, ...] = (Stage(members, math.inf),)
    if strategy == CASCADE and manifest.cascade is not None:
        rule, measure = manifest.cascade.strategy, manifest.cascade.measure
        stages = _stages(ensemble, manifest.cascade, members, options.cascade_threshold)
        members = tuple(sorted(member for stage in stages for member in stage.members))
    elif options.cascade_threshold is not None:
        raise InvalidInput(f"cascade_threshold: expected none with strategy {strategy!r}; it is for {CASCADE!r}")
    if rule == STACKING:
        _check_stacking(ensemble, members, options)
    given_weights = _weights(ensemble, strategy, rule, members, options.weights)
    if options.abstain_below is not None and manifest.task == "regression":
        raise InvalidInput("abstain_below: expected none of a regression, whose answers have no confidence")
    return Plan(
        strategy=strategy,
        rule=rule,
        members=members,
        stages=stages,
        measure=measure,
        given_weights=given_weights,
        weights=_effective(given_weights, members),
        quorum=manifest.quorum if options.quorum is None else options.quorum,
        on_failure=manifest.on_failure if options.on_failure is None else options.on_failure,
        abstain_below=options.abstain_below,
        uncertainty=options.uncertainty,
        contributions=options.contributions,
    )


def _effective(given: NDArray[np.float64], members: Sequence[int]) -> NDArray[np.float32]:
    weights = given[list(members)]
    # A subset whose weights are all zero: none of its members was of use beside those left out.
    return normalise_weights(weights if weights.any() else np.ones(len(members)))


def _why_not(ensemble: Ensemble, strategy: str) -> str:
    task = ensemble.manifest.task
    if strategy == STACKING and task == "classification":
        return ", for which this ensemble has no final_estimator"
    if strategy == CASCADE and task == "classification":
        return ", for which this ensemble has no stages"
    others = {name for pools in BY_TASK.values() for name in pools} | {CASCADE}
    return f", which is none of a {task}" if strategy in others else ""


def _members(ensemble: Ensemble, names: Sequence[str] | None) -> tuple[int, ...]:
    if names is None:
        return tuple(range(len(ensemble.names)))
    known = ", ".join(ensemble.names)
    if not names:
        raise InvalidInput(f"members: expected at least one of {known}; got none")
    excluded = [name.startswith(EXCLUDED) for name in names]
    if any(excluded) and not all(excluded):
        raise InvalidInput("members: expected names of those that are to run, or each after a -, of those that are not")
    named = [name.removeprefix(EXCLUDED) if all(excluded) else name for name in names]
    for name in named:
        if name not in ensemble.names:
            raise InvalidInput(f"members: expected some of {known}; got {name!r}")
    if len(set(named)) != len(named):
        raise InvalidInput("members: expected each member once; got one twice")
    chosen = tuple(index for index, name in enumerate(ensemble.names) if (name in named) != all(excluded))
    if not chosen:
        raise InvalidInput(f"members: expected at least one of {known} to be left; got all of them after a -")
    return chosen


def _stages(
    ensemble: Ensemble, cascade: CascadeSpec, members: tuple[int, ...], threshold: float | None
) -> tuple[Stage, ...]:
    """The manifest's, of those of the members that it knows; the last takes every row."""
    stages = [
        Stage(
            tuple(index for index in members if ensemble.names[index] in spec.members),
            spec.threshold if threshold is None else threshold,
        )
        for spec in cascade.stages
    ]
    kept = [stage for stage in stages if stage.members]
    if not kept:
        staged = [name for spec in cascade.stages for name in spec.members]
        raise InvalidInput(f"members: expected at least one of the cascade's, {', '.join(staged)}; got none of them")
    return (*kept[:-1], Stage(kept[-1].members, math.inf))


def _check_stacking(ensemble: Ensemble, members: tuple[int, ...], options: Options) -> None:
    if len(members) < len(ensemble.names):
        raise InvalidInput(
            f"members: expected all with strategy {STACKING!r}, whose final estimator reads every one; got some"
        )
    if options.contributions:
        raise InvalidInput(
            f"detail: expected no contributions with strategy {STACKING!r}: its final estimator can leave none out"
        )


def _weights(
    ensemble: Ensemble, strategy: str, rule: str, members: tuple[int, ...], given: Mapping[str, float] | None
) -> NDArray[np.float64]:
    pools = BY_TASK[ensemble.manifest.task]
    names = [ensemble.names[index] for index in members]
    if given is None:
        return ensemble.weights(rule)
    if pools[rule].weights == "equal":
        takers = ", ".join(name for name, other in pools.items() if other.weights != "equal")
        raise InvalidInput(f"weights: strategy {strategy!r} takes none; those that do: {takers}")
    if unknown := [name for name in given if name not in names]:
        raise InvalidInput(f"weights: expected a weight for each of {', '.join(names)}; got one for {unknown[0]!r}")
    if missing := [name for name in names if name not in given]:
        raise InvalidInput(f"weights: expected a weight for each of {', '.join(names)}; got none for {missing[0]!r}")
    for name, weight in given.items():
        if not 0 <= weight <= sys.float_info.max:  # NaN neither; isfinite() chokes on the integers of JSON
            raise InvalidInput(f"weights: expected a finite number that is not negative for {name!r}; got {weight}")
    if not any(given.values()):
        raise InvalidInput("weights: expected at least one above zero; all are zero")
    return np.array([given.get(name, 0) for name in ensemble.names], dtype=np.float64)
