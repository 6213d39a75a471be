"""Two ensembles on the same rows: paired differences, how sure they are, and a plain verdict.

A difference is the first less the second, with its 95% interval over resamples of the rows, the same for both; of
the cost, over resamples of the measured batches. The p-value of accuracy is McNemar's, exact; those of the other
metrics are of the bootstrap.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from export.evaluate import (
    HIGHER_IS_BETTER,
    N_RESAMPLES,
    Evaluation,
    Interval,
    McNemar,
    bootstrap_p_value,
    interval_of,
)
from export.report import rounded

Verdict = Literal["better", "worse", "no real difference"]
SURE = 0.05
"""A difference counts if its p-value is below, and its interval without zero."""
SLIGHT = 0.02
"""A difference in cost of a smaller share is none: where things lie in memory makes as much."""
COST = "cost_us"


@dataclass(frozen=True, slots=True)
class Difference:
    interval: Interval
    p_value: float
    verdict: Verdict

    def to_json(self) -> dict[str, Any]:
        return {"difference": rounded(self.interval), "p_value": float(f"{self.p_value:.4g}"), "verdict": self.verdict}


def compare(
    scored: Evaluation,
    first: str,
    second: str,
    costs: tuple[NDArray[np.float64], NDArray[np.float64]],
    test: McNemar | None,
    *,
    seed: int,
) -> dict[str, Difference]:
    """By metric, and `cost_us`: `first` less `second`. `costs (n_batches,)` are of the two, batch by batch; `test` is
    of their labels, None of a regression."""
    found = {}
    for metric in scored.metrics:
        p_value = test.p_value if metric == "accuracy" and test else scored.p_value(first, second, metric)
        found[metric] = decide(scored.difference(first, second, metric), p_value, higher=metric in HIGHER_IS_BETTER)
    found[COST] = _cost(*costs, seed=seed)
    return found


def decide(interval: Interval, p_value: float, *, higher: bool) -> Difference:
    """Better or worse only where both the interval and the p-value say that there is a difference."""
    if not interval.excludes_zero or p_value >= SURE:
        return Difference(interval, p_value, "no real difference")
    return Difference(interval, p_value, "better" if (interval.value > 0) == higher else "worse")


def _cost(first: NDArray[np.float64], second: NDArray[np.float64], *, seed: int) -> Difference:
    """Of the medians: the batches are drawn again, the same for both."""
    drawn = np.random.default_rng(seed).integers(0, len(first), (N_RESAMPLES, len(first)))
    differences = np.median(first[drawn], axis=1) - np.median(second[drawn], axis=1)
    interval = interval_of(float(np.median(first) - np.median(second)), differences)
    p_value = bootstrap_p_value(differences)
    if abs(interval.value) < SLIGHT * float(np.median(second)):
        return Difference(interval, p_value, "no real difference")
    return decide(interval, p_value, higher=False)
