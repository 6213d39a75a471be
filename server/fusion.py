"""The fusion strategies: pure functions from the members' answers to one answer.

Each takes `probabilities (n_members, n_samples, n_classes) float32`, whose rows sum to 1, and `weights (n_members,)
float32`, which sum to 1, and returns a `Fused`; those of a regression take the members' values `(n_members, n_samples,
n_targets)`. To add a strategy, write such a function and give it a line in `STRATEGIES` or `REGRESSION`; everything
else (options, documentation, evaluation, metrics) reads the dicts.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from server.manifest import Task

FLOOR = np.float32(1e-7)
"""Probabilities are raised to this before a logarithm: decision trees answer exact zeros."""
STACKING, CASCADE = "stacking", "cascade"
"""The cascade is no function of all members' answers: `server.predicting` runs it, by the strategies here."""
TIE = 1e-6
"""Vote shares closer than this are a tie: sums of float32 weights differ in the last digits."""


FinalEstimator = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""From the answers of all members `(n_members, n_samples, n_classes)` to one, `(n_samples, n_classes)`."""


@dataclass(slots=True)  # not frozen: that takes three times as long to make
class Fused:
    """One answer a row."""

    probabilities: NDArray[np.float32]
    """`(n_samples, n_classes)`, rows sum to 1. Of a regression: the values `(n_samples, n_targets)`."""
    labels: NDArray[np.intp]
    """`(n_samples,)`, indices into the classes. Of a regression: zeros."""


def average(probabilities: NDArray[np.float32], weights: NDArray[np.float32]) -> Fused:
    """Mean of the members' probabilities (scikit-learn's soft voting)."""
    return _linear_pool(probabilities, weights)


def weighted(probabilities: NDArray[np.float32], weights: NDArray[np.float32]) -> Fused:
    """Weighted mean of the members' probabilities (linear opinion pool; Stone 1961)."""
    return _linear_pool(probabilities, weights)


def vote(probabilities: NDArray[np.float32], weights: NDArray[np.float32]) -> Fused:
    """Each member votes for its best class; the probabilities are shares of the (weighted) votes.

    Ties go to the class of higher (weighted) mean probability, then to the one that comes first. Without ties the
    labels are scikit-learn's hard voting's.
    """
    votes = probabilities.argmax(axis=2)
    classes = np.arange(probabilities.shape[2])
    ballots = (votes[:, :, None] == classes).astype(np.float32)
    shares = weighted_sum(weights, ballots)
    tied = shares >= shares.max(axis=1, keepdims=True) - TIE
    means = weighted_sum(weights, probabilities)
    return Fused(_normalise(shares), np.where(tied, means, -1.0).argmax(axis=1))


def log_linear(probabilities: NDArray[np.float32], weights: NDArray[np.float32]) -> Fused:
    """Weighted geometric mean of the *calibrated* members' probabilities, normalised.

    Logarithmic opinion pool; Genest & Zidek 1986, Hinton 2002. Zeros are raised to `FLOOR`, so one member alone cannot
    veto a class for certain.
    """
    logs = np.log(np.maximum(probabilities, FLOOR))
    return by_highest(_softmax(weighted_sum(weights, logs)))


def median(probabilities: NDArray[np.float32], weights: NDArray[np.float32]) -> Fused:
    """Median of the members' probabilities of each class, normalised; deaf to one wild member."""
    return by_highest(_normalise(np.median(probabilities, axis=0).astype(np.float32)))


def maximum(probabilities: NDArray[np.float32], weights: NDArray[np.float32]) -> Fused:
    """Highest of the members' probabilities of each class, normalised (max rule; Kittler et al. 1998)."""
    return by_highest(_normalise(probabilities.max(axis=0)))


def stacking(probabilities: NDArray[np.float32], weights: NDArray[np.float32]) -> Fused:
    """What the final estimator, fitted to the members' answers, makes of them (Wolpert 1992)."""
    return _linear_pool(probabilities, weights)


def mean(values: NDArray[np.float32], weights: NDArray[np.float32]) -> Fused:
    """Mean of the members' values."""
    return _by_value(weighted_sum(weights, values))


def weighted_mean(values: NDArray[np.float32], weights: NDArray[np.float32]) -> Fused:
    """Weighted mean of the members' values (scikit-learn's VotingRegressor)."""
    return _by_value(weighted_sum(weights, values))


def median_value(values: NDArray[np.float32], weights: NDArray[np.float32]) -> Fused:
    """Median of the members' values; deaf to one wild member."""
    return _by_value(np.median(values, axis=0).astype(np.float32))


Reads = Literal["members", "calibrated", "final_estimator"]


@dataclass(frozen=True, slots=True)
class Strategy:
    combine: Callable[[NDArray[np.float32], NDArray[np.float32]], Fused]
    weights: Literal["equal", "optional", "fitted"]
    """`equal`: takes none. `optional`: a request's, else equal ones. `fitted`: a request's, else the manifest's."""
    reads: Reads = "members"
    """What it combines: the members' own answers, calibrated ones, or the one answer of the final estimator."""

    @property
    def calibrated(self) -> bool:
        return self.reads == "calibrated"

    @property
    def summary(self) -> str:
        return (self.combine.__doc__ or "").partition("\n")[0]


STRATEGIES: dict[str, Strategy] = {
    "average": Strategy(average, weights="equal"),
    "weighted": Strategy(weighted, weights="fitted"),
    "vote": Strategy(vote, weights="optional"),
    "log_linear": Strategy(log_linear, weights="fitted", reads="calibrated"),
    "median": Strategy(median, weights="equal"),
    "max": Strategy(maximum, weights="equal"),
    STACKING: Strategy(stacking, weights="equal", reads="final_estimator"),
}
REGRESSION: dict[str, Strategy] = {
    "mean": Strategy(mean, weights="equal"),
    "weighted": Strategy(weighted_mean, weights="fitted"),
    "median": Strategy(median_value, weights="equal"),
}
BY_TASK: Mapping[Task, Mapping[str, Strategy]] = {"classification": STRATEGIES, "regression": REGRESSION}


def fuse(
    strategy: str,
    probabilities: NDArray[np.float32],
    *,
    weights: NDArray[np.floating] | None = None,
    temperatures: NDArray[np.float32] | None = None,
    final_estimator: FinalEstimator | None = None,
    task: Task = "classification",
) -> Fused:
    """Combine `probabilities (n_members, n_samples, n_classes)` by the strategy of this name and task.

    `weights (n_members,)` may have any scale and default to equal ones; `temperatures (n_members,)` default to 1 and
    count only for strategies that combine calibrated probabilities. Raises ValueError if the strategy wants a
    `final_estimator` and gets none.
    """
    rule = BY_TASK[task][strategy]
    if rule.reads == "final_estimator":
        if final_estimator is None:
            raise ValueError(f"strategy {strategy!r} expects a final estimator, got none")
        return rule.combine(final_estimator(probabilities)[None], np.ones(1, dtype=np.float32))
    shares = normalise_weights(np.ones(len(probabilities)) if weights is None else weights)
    if rule.calibrated and temperatures is not None:
        probabilities = calibrate(probabilities, temperatures)
    return rule.combine(probabilities, shares)


def normalise_weights(weights: NDArray[np.floating] | Sequence[float]) -> NDArray[np.float32]:
    """Scale `(n_members,)` non-negative weights, not all zero, to a sum of 1."""
    return _shares(np.asarray(weights, dtype=np.float64).tobytes())


@lru_cache(1024)
def _shares(weights: bytes) -> NDArray[np.float32]:
    """Remembered, for the same few weights come with every request; so nobody may write to them."""
    exact = np.frombuffer(weights, dtype=np.float64)
    exact = exact / exact.max()  # so that neither tiny nor huge weights lose their proportions in the sum
    shares: NDArray[np.float32] = np.asarray(exact / exact.sum(), dtype=np.float32)
    shares.flags.writeable = False
    return shares


def weighted_sum(weights: NDArray[np.float32], values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sum over the members of `values (n_members, …)`, each times its weight `(n_members,)`.

    Neither a matrix product nor an einsum: they add in an order that depends on a row's place in the batch, or on
    whether there is just one, so that an answer would differ in its last digit, and a tie in its label, with the rows
    that happen to be beside it.
    """
    total = weights[0] * values[0]
    for weight, value in zip(weights[1:], values[1:], strict=True):
        total = total + weight * value
    return np.asarray(total, dtype=np.float32)


def calibrate(probabilities: NDArray[np.float32], temperatures: NDArray[np.float32]) -> NDArray[np.float32]:
    """Temperature scaling (Guo et al. 2017) of `(n_members, n_samples, n_classes)`, a temperature a member."""
    logs: NDArray[np.float32] = np.log(np.maximum(probabilities, FLOOR))
    return _softmax(logs / temperatures.astype(np.float32)[:, None, None])


def _linear_pool(probabilities: NDArray[np.float32], weights: NDArray[np.float32]) -> Fused:
    return by_highest(_normalise(weighted_sum(weights, probabilities)))


def by_highest(probabilities: NDArray[np.float32]) -> Fused:
    """An answer whose labels are the classes of highest probability."""
    return Fused(probabilities, probabilities.argmax(axis=1))


def _by_value(values: NDArray[np.float32]) -> Fused:
    return Fused(values, np.zeros(len(values), dtype=np.intp))


def _normalise(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale rows to a sum of 1; a row of zeros (a median can be) becomes uniform."""
    totals = scores.sum(axis=-1, keepdims=True)
    if not totals.all():
        scores = np.where(totals > 0, scores, np.float32(1))
        totals = scores.sum(axis=-1, keepdims=True)
    return np.asarray(scores / totals, dtype=np.float32)


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=-1, keepdims=True), dtype=np.float32)
