"""Chooses, of a library of candidates, the members that are best together and within what they may cost.

Sets of members are *proposed* by greedy selection with replacement (Caruana, Niculescu-Mizil, Crew & Ksikes 2004,
"Ensemble selection from libraries of models"), started from the best ones: once over all candidates, once over each of
several random halves of them, and once by adding up what the halves chose. Under limits a good candidate may take the
room of several that are better together, and greed never takes a step back; so each that was chosen of all is also left
out once. Selection looks at the linear pool of calibrated members, a sum of logarithms a step.

Each set is then *judged* by what will be published of it: the least log-loss that the logarithmic pool, the strategy
that nearly always becomes the default, reaches with it. Greedy selection by that pool takes some twenty times as long
and, with 24 candidates on Fashion-MNIST and six budgets, led to sets within 0.002 nats of these on unseen rows; by the
linear pool of uncalibrated members it misses those that are good but too sure of themselves.

All this sees the validation rows alone.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.errors import NothingFits
from export.fusing.fit import Chosen, Fit, Probabilities, fit_log_linear_pool, fit_temperatures, select_greedily
from export.library import Entry
from export.recipe import EnsembleChoice
from server.fusion import calibrate

NOTHING = 1e-6
"""Weights below this are published as 0."""
IDLE = 1e-4
"""Nats of validation log-loss that members may be worth together and yet be left out, as they cost time and space."""
MB = 1e6


@dataclass(frozen=True, slots=True)
class Selection:
    """What was chosen, of what, and how; names stand in the library's order."""

    limits: Mapping[str, float | None]
    settings: Mapping[str, float]
    candidates: list[str]
    costs_us: Mapping[str, float]
    """Microseconds a row, by candidate."""
    bytes: Mapping[str, int]
    members: Mapping[str, float]
    """The chosen ones and their weights in the logarithmic pool of calibrated members; they sum to 1."""
    cost_us: float
    size_mb: float
    log_loss: float
    """Of that pool on the validation rows, in nats."""
    best_alone: Mapping[str, Any]
    """`name` and `log_loss`, calibrated, of the best candidate within the limits."""
    found_by: str
    """What proposed the set: `greedy`, `without <name>`, `bag 1` …, `bags together` or `best alone`."""
    path: list[dict[str, Any]]
    """Of greedy selection over all candidates: `added` and `log_loss`, that of the linear pool, a step."""
    disagreement: Mapping[str, Any]
    """`names` and `matrix`: the shares of validation rows that two candidates label differently."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def select(
    entries: Sequence[Entry],
    costs_us: Mapping[str, float],
    y: NDArray[np.int64],
    choice: EnsembleChoice,
    *,
    seed: int,
) -> Selection:
    """Choose members of `entries` for the ensemble that `choice` describes.

    `costs_us` are microseconds a row by name; `y` `(n,)` are the true classes of the validation rows. The chosen ones
    never exceed a limit, and are together no worse on these rows than the best candidate that is within them alone.
    The order of the entries decides nothing but the order of the answer. Raises NothingFits.
    """
    # In the order of their names, so that chance and ties fall alike whatever the library's order is.
    ranked = sorted(entries, key=lambda entry: entry.name)
    affordable = _affordable(ranked, costs_us, choice)
    names = [entry.name for entry in affordable]
    limits = _limits(affordable, costs_us, choice)
    answers = np.stack([entry.answers["validation"] for entry in affordable])
    calibrated = calibrate(answers, fit_temperatures(answers, y))
    plain, proposals = _propose(names, calibrated, y, limits, choice, np.random.default_rng(seed))
    judged = {by: _judge(calibrated, y, members, choice.least_weight) for by, members in proposals.items()}
    found_by = min(judged, key=lambda by: judged[by][1].log_loss)
    (best,), alone = judged["best alone"]
    members, fit = _without_idle(calibrated, y, *judged[found_by], limits, worst=alone.log_loss)
    weights = dict(zip((names[k] for k in members), fit.weights.tolist(), strict=True))
    chosen = [entry for entry in entries if entry.name in weights]
    return Selection(
        limits=choice.model_dump(include={"max_cost_us", "max_size_mb", "max_members"}),
        settings=choice.model_dump(include={"bags", "start", "least_weight"}) | {"seed": seed},
        candidates=[entry.name for entry in entries],
        costs_us={entry.name: float(costs_us[entry.name]) for entry in entries},
        bytes={entry.name: entry.bytes for entry in entries},
        members={entry.name: weights[entry.name] for entry in chosen},
        cost_us=math.fsum(costs_us[entry.name] for entry in chosen),
        size_mb=sum(entry.bytes for entry in chosen) / MB,
        log_loss=fit.log_loss,
        best_alone={"name": names[best], "log_loss": alone.log_loss},
        found_by=found_by,
        path=[{"added": names[member], "log_loss": loss} for member, loss in plain.path],
        disagreement=_disagreement(entries),
    )


# ---- Limits ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Limits:
    """What candidates cost and what a set of them may; candidates are told by their indices."""

    costs: Sequence[float]
    sizes: Sequence[int]
    max_cost: float
    max_size: float
    max_members: int

    def allow(self, members: Collection[int]) -> bool:
        return (
            len(members) <= self.max_members
            # Exact, so that it does not depend on the order of the members.
            and math.fsum(self.costs[k] for k in members) <= self.max_cost
            and sum(self.sizes[k] for k in members) <= self.max_size
        )

    def may_add(self, chosen: Chosen) -> Chosen:
        """Those that are chosen already cost nothing more."""
        members = np.flatnonzero(chosen).tolist()
        return np.array([known or self.allow([*members, k]) for k, known in enumerate(chosen)])

    def of(self, some: Sequence[int]) -> "_Limits":
        costs, sizes = [self.costs[k] for k in some], [self.sizes[k] for k in some]
        return _Limits(costs, sizes, self.max_cost, self.max_size, self.max_members)


def _limits(entries: Sequence[Entry], costs_us: Mapping[str, float], choice: EnsembleChoice) -> _Limits:
    return _Limits(
        [costs_us[entry.name] for entry in entries],
        [entry.bytes for entry in entries],
        math.inf if choice.max_cost_us is None else choice.max_cost_us,
        math.inf if choice.max_size_mb is None else choice.max_size_mb * MB,
        choice.max_members,
    )


def _affordable(entries: Sequence[Entry], costs_us: Mapping[str, float], choice: EnsembleChoice) -> list[Entry]:
    limits = _limits(entries, costs_us, choice)
    affordable = [entry for k, entry in enumerate(entries) if limits.allow([k])]
    if affordable:
        return affordable
    if not entries:
        raise NothingFits(f"ensemble {choice.name!r}: expected candidates to choose from, got none")
    cheapest = min(entries, key=lambda entry: costs_us[entry.name])
    smallest = min(entries, key=lambda entry: entry.bytes)
    raise NothingFits(
        f"ensemble {choice.name!r}: expected a candidate of at most {limits.max_cost:g} µs a row and "
        f"{limits.max_size / MB:g} MB, got none among {len(entries)}: the cheapest is {cheapest.name!r}, "
        f"{costs_us[cheapest.name]:.3g} µs and {cheapest.bytes / MB:.3g} MB; the smallest {smallest.name!r}, "
        f"{costs_us[smallest.name]:.3g} µs and {smallest.bytes / MB:.3g} MB"
    )


# ---- Sets of members ------------------------------------------------------------------------------------------------


def _propose(
    names: Sequence[str],
    calibrated: Probabilities,
    y: NDArray[np.int64],
    limits: _Limits,
    choice: EnsembleChoice,
    generator: np.random.Generator,
) -> tuple[Fit, dict[str, list[int]]]:
    """The greedy selection over all candidates, and sets within the limits by what proposes them."""
    everyone = np.arange(len(names))

    def greedy(some: NDArray[np.int64]) -> Fit:
        return select_greedily(calibrated[some], y, start=choice.start, may_add=limits.of(some.tolist()).may_add)

    plain = greedy(everyone)
    proposals = {"greedy": np.flatnonzero(plain.weights).tolist()}
    for k in proposals["greedy"] if len(names) > 1 else []:
        rest = np.delete(everyone, k)
        proposals[f"without {names[k]}"] = rest[greedy(rest).weights > 0].tolist()
    weights = np.zeros(len(names))
    for number in range(1, choice.bags + 1):
        bag = np.sort(generator.permutation(everyone)[: (len(names) + 1) // 2])
        found = greedy(bag)
        proposals[f"bag {number}"] = bag[found.weights > 0].tolist()
        weights[bag] += found.weights / choice.bags
    proposals["bags together"] = _heaviest(weights, limits, choice.least_weight)
    alone = [fit_log_linear_pool(calibrated[[k]], y).log_loss for k in everyone]
    proposals["best alone"] = [int(np.argmin(alone))]
    return plain, proposals


def _heaviest(weights: NDArray[np.float64], limits: _Limits, least_weight: float) -> list[int]:
    """From the heaviest down, each that still fits."""
    members: list[int] = []
    for k in np.argsort(-weights, kind="stable").tolist():
        if (weights[k] >= max(least_weight, NOTHING) or not members) and limits.allow([*members, k]):
            members.append(k)
    return sorted(members)


def _judge(
    calibrated: Probabilities, y: NDArray[np.int64], members: Sequence[int], least_weight: float
) -> tuple[list[int], Fit]:
    """The best weights of these members, without those that come out lighter than `least_weight`."""
    kept = list(members)
    while True:
        fit = fit_log_linear_pool(calibrated[kept], y)
        lightest = int(fit.weights.argmin())
        if len(kept) == 1 or fit.weights[lightest] >= max(least_weight, NOTHING):
            return kept, fit
        del kept[lightest]


def _without_idle(
    calibrated: Probabilities, y: NDArray[np.int64], members: list[int], fit: Fit, limits: _Limits, *, worst: float
) -> tuple[list[int], Fit]:
    """Without those that hardly help, the dearest first: a quantised copy beside its source, say. The log-loss stays
    no higher than `worst`, what one member alone reaches."""
    bound = min(fit.log_loss + IDLE, worst)
    for k in sorted(members, key=lambda k: (-limits.costs[k], -limits.sizes[k])):
        rest = [other for other in members if other != k]
        if rest and (fewer := fit_log_linear_pool(calibrated[rest], y)).log_loss <= bound:
            members, fit = rest, fewer
    return members, fit


def _disagreement(entries: Sequence[Entry]) -> dict[str, Any]:
    labels = np.stack([entry.answers["validation"].argmax(axis=1) for entry in entries])
    matrix = [(labels != own).mean(axis=1).tolist() for own in labels]
    return {"names": [entry.name for entry in entries], "matrix": matrix}
