"""Fits a cascade: which members run first, and how sure their answer must be for a row to stop there.

Wang et al. 2021, "Wisdom of Committees": most rows are easy, and cheap members alone are right about them. The answer
of a stage is the fusion of all members that have run by then, as `server.predicting` has it.

Arrays as in `export.fusing.fit`: `answers (n_members, n_samples, n_classes) float32`, `y (n_samples,) int64`; `weights`
and `temperatures (n_members,)` as they are published.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from server.fusion import STACKING, STRATEGIES, Fused, fuse
from server.manifest import CascadeSpec, StageSpec
from server.predicting import SURE
from server.prediction import confidence

TOLERANCE = 0.0005
"""Share of rows by which its accuracy may lie below that of all members."""
POOLS = [name for name in STRATEGIES if name not in ("vote", STACKING)]
"""Strategies by which stages may be fused: one member's vote is always sure, a final estimator reads all members."""
MOST_CUTS = 7
"""Stages end after some of so many cheapest members; the dearer ones run together. So there are 127 ways at most."""
N_QUANTILES = 200
"""Thresholds that are tried: quantiles of how sure the answers of a stage are."""
MOST_SWEEPS = 10

Answers = NDArray[np.float32]
Labels = NDArray[np.int64]
Measure = Literal["confidence", "agreement"]
MEASURES: tuple[Measure, ...] = ("confidence", "agreement")


@dataclass(frozen=True, slots=True)
class _Answered:
    """What the members that have run by some stage make of every row, `(n_samples,)` each."""

    right: NDArray[np.bool_]
    order: NDArray[np.intp]
    """Rows, surest first."""
    thresholds: NDArray[np.float64]
    """Those that are tried, ascending, as they would be published; the last is infinite: no row stops here."""
    n_sure: NDArray[np.intp]
    """By threshold: how many rows are at least so sure."""


@dataclass(frozen=True, slots=True)
class Found:
    """A cascade, and what the search has it that it does on the rows: `server.predicting` finds the same."""

    spec: CascadeSpec
    cost_us: float
    """Expected, a row."""
    accuracy: float

    @property
    def rank(self) -> tuple[float, int, float]:
        """The cheapest first; where nothing but rounding is between them, the one of fewer stages."""
        return round(self.cost_us, 6), len(self.spec.stages), -self.accuracy


def fit_cascade(
    names: Sequence[str],
    costs_us: Sequence[float],
    answers: Answers,
    y: Labels,
    *,
    strategy: str,
    weights: NDArray[np.floating] | None,
    temperatures: NDArray[np.float32],
    tolerance: float = TOLERANCE,
) -> CascadeSpec | None:
    """The cascade of least expected cost a row that is right on as many of these rows as all members fused are.

    `strategy`, one of `POOLS`, fuses; `tolerance` is the share of the rows by which it may fall short. None if it would
    save nothing, or if there is one member.
    """
    found = find_cascades(
        names,
        costs_us,
        answers,
        y,
        strategy=strategy,
        weights=weights,
        temperatures=temperatures,
        tolerance=tolerance,
    )
    best = min(found, key=lambda one: one.rank, default=None)
    return None if best is None or best.cost_us >= sum(costs_us) else best.spec


def find_cascades(
    names: Sequence[str],
    costs_us: Sequence[float],
    answers: Answers,
    y: Labels,
    *,
    strategy: str,
    weights: NDArray[np.floating] | None,
    temperatures: NDArray[np.float32],
    tolerance: float = TOLERANCE,
) -> list[Found]:
    """The best thresholds of each way to make a cascade that is accurate enough; see `fit_cascade`.

    Members run by cost, the cheapest first; those without weight are left out. Every way to cut that order into two
    stages or more (see `MOST_CUTS`) is tried with both measures; thresholds are found by coordinate descent.
    """
    order = [int(member) for member in np.argsort(costs_us, kind="stable") if weights is None or weights[member] > 0]
    if len(order) < 2:
        return []
    ordered, costs = [names[member] for member in order], np.array([costs_us[member] for member in order])
    by_size = {
        size: _fused(answers, sorted(order[:size]), strategy, weights, temperatures)
        for size in [*range(1, min(len(order) - 1, MOST_CUTS) + 1), len(order)]
    }
    everyone = fuse(strategy, answers, weights=weights, temperatures=temperatures)
    least_right = float((everyone.labels == y).sum()) - tolerance * len(y) - 1e-9
    found = []
    for measure in MEASURES:
        stages = {size: _answered(own, fused, y, measure) for size, (own, fused) in by_size.items()}
        for sizes, thresholds, cost, right in _search(stages, costs, least_right):
            parts = zip((0, *sizes), sizes, (*thresholds, 1.0), strict=False)
            spec = CascadeSpec(
                strategy=strategy,
                measure=measure,
                tolerance=tolerance,
                stages=[StageSpec(members=ordered[start:stop], threshold=limit) for start, stop, limit in parts],
            )
            found.append(Found(spec, cost, right / len(y)))
    return found


def _fused(
    answers: Answers,
    members: Sequence[int],
    strategy: str,
    weights: NDArray[np.floating] | None,
    temperatures: NDArray[np.float32],
) -> tuple[Answers, Fused]:
    """The answers of these members, in the manifest's order, and what they are together."""
    own = answers[members]
    shares = None if weights is None else weights[members]
    return own, fuse(strategy, own, weights=shares, temperatures=temperatures[members])


def _answered(own: Answers, fused: Fused, y: Labels, measure: Measure) -> _Answered:
    if measure == "confidence":
        sure = confidence(fused)
    else:
        sure = (own.argmax(axis=2) == fused.labels).mean(axis=0, dtype=np.float32)
    order = np.argsort(-sure, kind="stable")
    quantiles = np.quantile(sure, np.linspace(0, 1, N_QUANTILES + 1), method="lower")
    # With the digits that are published; a last one may round to above 1.
    rounded = np.unique([min(float(f"{value:.6g}"), 1.0) for value in quantiles])
    descending = sure[order]
    # As the server compares: in float32.
    n_sure = np.array([(descending >= threshold - SURE).sum() for threshold in rounded.tolist()] + [0], dtype=np.intp)
    return _Answered(fused.labels == y, order, np.append(rounded, np.inf), n_sure)


# ---- The search -----------------------------------------------------------------------------------------------------


def _search(
    by_size: Mapping[int, _Answered], costs: NDArray[np.float64], least_right: float
) -> Iterator[tuple[tuple[int, ...], list[float], float, int]]:
    """How many members have run after each stage, thresholds, cost a row, and rows that are right: of every way to cut
    the members into stages for which there are thresholds."""
    *cuts, everyone = by_size
    for n_cuts in range(1, len(cuts) + 1):
        for chosen in combinations(cuts, n_cuts):
            sizes = (*chosen, everyone)
            stages = [by_size[size] for size in sizes]
            spent = np.diff(np.concatenate([[0.0], np.cumsum(costs)[np.array(sizes) - 1]]))
            # The stage that is looked at first takes what tolerance there is: the first may be that, and the last.
            for sweep in (range(n_cuts), range(n_cuts - 1, -1, -1)):
                cost, right, thresholds = _descend(stages, spent, least_right, sweep)
                if np.isfinite(thresholds).all():  # else a coarser cut is as good
                    yield sizes, thresholds, cost, right


def _descend(
    stages: Sequence[_Answered], costs: NDArray[np.float64], least_right: float, sweep: Sequence[int]
) -> tuple[float, int, list[float]]:
    """Coordinate descent from thresholds that stop no row: cost a row, rows that are right, and the thresholds."""
    chosen = [len(stage.thresholds) - 1 for stage in stages[:-1]]
    cost, right = float(costs.sum()), int(stages[-1].right.sum())
    for _ in range(MOST_SWEEPS):
        before = list(chosen)
        for place in sweep:
            by_cost, by_right = _outcomes(stages, costs, chosen, place)
            allowed = np.where(by_right >= least_right, by_cost, np.inf)
            # Of those that cost the same, the highest: it stops the fewest rows.
            best = len(allowed) - 1 - int(allowed[::-1].argmin())
            if allowed[best] < cost - 1e-12:
                chosen[place], cost, right = best, float(by_cost[best]), int(by_right[best])
        if chosen == before:
            break
    return cost, right, [float(stage.thresholds[k]) for stage, k in zip(stages, chosen, strict=False)]


def _outcomes(
    stages: Sequence[_Answered], costs: NDArray[np.float64], chosen: Sequence[int], place: int
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Expected cost a row, and rows that are right, by threshold of the stage at `place`; the others are as chosen."""
    n = len(stages[0].right)
    stops = [_stops(stage, k) for stage, k in zip(stages, chosen, strict=False)]
    reached = np.ones(n, dtype=bool)
    cost_before, right_before = 0.0, 0
    for stage, stop, cost in zip(stages[:place], stops[:place], costs[:place], strict=True):
        cost_before += cost * reached.sum()
        right_before += int((stage.right & stop & reached).sum())
        reached &= ~stop
    right_after, cost_after = stages[-1].right, np.full(n, costs[-1])
    for number in range(len(stages) - 2, place, -1):
        right_after = np.where(stops[number], stages[number].right, right_after)
        cost_after = costs[number] + np.where(stops[number], 0.0, cost_after)
    stage = stages[place]
    here = reached[stage.order]
    saved = np.concatenate([[0.0], np.cumsum(np.where(here, cost_after[stage.order], 0.0))])
    won = np.where(here, stage.right[stage.order].astype(np.intp) - right_after[stage.order], 0)
    gained = np.concatenate([[0], np.cumsum(won)])
    total = cost_before + costs[place] * reached.sum() + cost_after[reached].sum()
    right = right_before + int(right_after[reached].sum())
    return (total - saved[stage.n_sure]) / n, right + gained[stage.n_sure]


def _stops(stage: _Answered, threshold: int) -> NDArray[np.bool_]:
    stops = np.zeros(len(stage.order), dtype=bool)
    stops[stage.order[: stage.n_sure[threshold]]] = True
    return stops
