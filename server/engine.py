"""`Engine.infer`: the one way in, whatever the transport."""

import asyncio
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from server import telemetry, uncertainty
from server.ensemble import Ensemble
from server.errors import InvalidInput, InvalidRepository, NotReady
from server.fusion import STRATEGIES, Fused, fuse, normalise_weights
from server.repository import Repository
from server.rows import Rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a request says about fusion; None where it says nothing and the manifest decides."""

    strategy: str | None = None
    weights: Mapping[str, float] | None = None
    members: Sequence[str] | None = None
    uncertainty: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Options made definite for one ensemble: which members run, how their answers are combined."""

    strategy: str
    members: tuple[int, ...]
    weights: NDArray[np.float32]
    """`(len(members),)`, sum to 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """One request's answer, in arrays; transports make text or bytes of it."""

    ensemble: Ensemble
    plan: Plan
    fused: Fused
    member_probabilities: NDArray[np.float32]
    """`(len(plan.members), n_samples, n_classes)`"""
    uncertainty: uncertainty.Uncertainty | None


class Engine:
    """Answers requests from the ensembles of a repository; `default` names the one that a request need not name.

    Raises InvalidRepository if there is no such default.
    """

    def __init__(self, repository: Repository, *, default: str) -> None:
        if default not in repository.names():
            there = ", ".join(repository.names())
            raise InvalidRepository(f"the default ensemble {default!r} is not in the repository; there are: {there}")
        self.repository = repository
        self.default = default
        # The graphs run off the event loop, one batch at a time: each already has the cores that it may use.
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="committee-infer")

    def ensemble(self, name: str | None = None, version: int | None = None) -> Ensemble:
        """The ensemble of this name, else the default one. Raises NotFound."""
        return self.repository.get(self.default if name is None else name, version)

    async def infer(self, ensemble: Ensemble, rows: Rows, options: Options) -> Prediction:
        """Run the members on the rows, as `server.rows` has them, and fuse.

        Raises InvalidInput, MemberFailed, NotReady.
        """
        plan = make_plan(ensemble, options)
        loop = asyncio.get_running_loop()
        try:
            running = loop.run_in_executor(self._executor, _predict, ensemble, rows, plan, options)
        except RuntimeError as exc:  # the executor takes no more
            raise NotReady("the server is stopping") from exc
        prediction = await running
        telemetry.count_prediction(
            ensemble=ensemble.manifest.name,
            version=ensemble.manifest.version,
            strategy=plan.strategy,
            rows=len(rows),
            disagreements=_disagreements(prediction),
        )
        return prediction

    def close(self) -> None:
        """Take no more, and wait until what was taken is answered."""
        self._executor.shutdown()


def make_plan(ensemble: Ensemble, options: Options) -> Plan:
    """Resolve and check the options against the ensemble. Raises InvalidInput."""
    strategy = ensemble.manifest.default_strategy if options.strategy is None else options.strategy
    if strategy not in STRATEGIES:
        raise InvalidInput(f"strategy: expected one of {', '.join(STRATEGIES)}; got {strategy!r}")
    members = _members(ensemble, options.members)
    return Plan(strategy=strategy, members=members, weights=_weights(ensemble, strategy, members, options.weights))


def _members(ensemble: Ensemble, names: Sequence[str] | None) -> tuple[int, ...]:
    if names is None:
        return tuple(range(len(ensemble.names)))
    if not names:
        raise InvalidInput(f"members: expected at least one of {', '.join(ensemble.names)}; got none")
    for name in names:
        if name not in ensemble.names:
            raise InvalidInput(f"members: expected some of {', '.join(ensemble.names)}; got {name!r}")
    if len(set(names)) != len(names):
        raise InvalidInput("members: expected each member once; got one twice")
    return tuple(index for index, name in enumerate(ensemble.names) if name in names)


def _weights(
    ensemble: Ensemble, strategy: str, members: tuple[int, ...], given: Mapping[str, float] | None
) -> NDArray[np.float32]:
    rule = STRATEGIES[strategy]
    names = [ensemble.names[index] for index in members]
    if given is None:
        weights = ensemble.weights(strategy)[list(members)]
        # A subset whose fitted weights are all zero: none of its members was of use beside those left out.
        return normalise_weights(weights if weights.any() else np.ones(len(members)))
    if rule.weights == "equal":
        takers = ", ".join(name for name, other in STRATEGIES.items() if other.weights != "equal")
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
    return normalise_weights([given[name] for name in names])


def _predict(ensemble: Ensemble, rows: Rows, plan: Plan, options: Options) -> Prediction:
    probabilities = ensemble.run(rows, plan.members)
    fused = fuse(
        plan.strategy, probabilities, weights=plan.weights, temperatures=ensemble.temperatures[list(plan.members)]
    )
    doubt = uncertainty.measure(probabilities, plan.weights, fused) if options.uncertainty else None
    return Prediction(ensemble=ensemble, plan=plan, fused=fused, member_probabilities=probabilities, uncertainty=doubt)


def _disagreements(prediction: Prediction) -> dict[str, int]:
    """By member, on how many rows its best class is not the answer's label."""
    differs = prediction.member_probabilities.argmax(axis=2) != prediction.fused.labels
    names = prediction.ensemble.names
    return {names[i]: int(n) for i, n in zip(prediction.plan.members, differs.sum(axis=1), strict=True)}
