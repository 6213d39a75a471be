"""Scores answers against the truth, with bootstrap intervals.

`probabilities (n_samples, n_classes) float32`, `labels (n_samples,)`: the answer's own, since a vote breaks its ties by
more than its shares; `y (n_samples,) int64`: the true classes.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from server.fusion import FLOOR, Fused

METRICS = ("accuracy", "log_loss", "brier", "ece")
N_BINS = 15
"""Bins of equal width of the expected calibration error."""
N_RESAMPLES = 2000
CHUNK = 100
"""Resamples drawn at a time: bounds the memory to `CHUNK * n_samples` counts."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure and the 95% percentile interval of its bootstrap (Efron & Tibshirani 1993)."""

    value: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Figures of several answers to the same rows, resampled together so that differences are paired."""

    names: list[str]
    values: NDArray[np.float64]
    """`(n_answers, n_metrics)`, metrics in the order of `METRICS`."""
    resampled: NDArray[np.float64]
    """`(n_resamples, n_answers, n_metrics)`"""

    def scores(self, name: str) -> dict[str, Interval]:
        """Accuracy (share), log-loss (nats), Brier score (sum over classes, 0 to 2) and ECE (share) of one answer."""
        index = self.names.index(name)
        return {
            metric: _interval(self.values[index, k], self.resampled[:, index, k]) for k, metric in enumerate(METRICS)
        }

    def difference(self, name: str, other: str, metric: str) -> Interval:
        """`name` less `other`, on the same resamples."""
        a, b, k = self.names.index(name), self.names.index(other), METRICS.index(metric)
        return _interval(self.values[a, k] - self.values[b, k], self.resampled[:, a, k] - self.resampled[:, b, k])

    def best(self, names: list[str], metric: str) -> str:
        """Of these answers, the one with the highest accuracy, or the lowest of another metric."""
        sign = -1 if metric == "accuracy" else 1
        k = METRICS.index(metric)
        return min(names, key=lambda name: sign * self.values[self.names.index(name), k])


def evaluate(answers: dict[str, Fused], y: NDArray[np.int64], *, seed: int = 0) -> Evaluation:
    """Score each answer, and again on `N_RESAMPLES` bootstrap resamples of the rows, the same for all."""
    parts = np.concatenate([_parts(answer, y) for answer in answers.values()], axis=1)
    whole = _metrics(parts.sum(axis=0, keepdims=True), len(answers), len(y))[0]
    parts = parts.astype(np.float32)
    generator = np.random.default_rng(seed)
    resampled = np.concatenate(
        [_metrics(_draw(generator, len(y)) @ parts, len(answers), len(y)) for _ in range(N_RESAMPLES // CHUNK)]
    )
    return Evaluation(list(answers), whole, resampled)


def _draw(generator: np.random.Generator, n_samples: int) -> NDArray[np.float32]:
    """How often each row is drawn: `(CHUNK, n_samples)` counts, each row of them summing to `n_samples`."""
    drawn = generator.integers(0, n_samples, (CHUNK, n_samples))
    return np.stack([np.bincount(one, minlength=n_samples) for one in drawn]).astype(np.float32)


def _parts(answer: Fused, y: NDArray[np.int64]) -> NDArray[np.float64]:
    """What each row adds to the metrics, `(n_samples, 3 + N_BINS)`: the metrics are functions of the columns' sums."""
    p = answer.probabilities.astype(np.float64)
    rows = np.arange(len(y))
    right = (answer.labels == y).astype(np.float64)
    log_loss = -np.log(np.maximum(p[rows, y], float(FLOOR)))
    brier = (p**2).sum(axis=1) - 2 * p[rows, y] + 1
    confidence = p[rows, answer.labels]
    bins = np.minimum((confidence * N_BINS).astype(int), N_BINS - 1)
    gaps = np.zeros((len(y), N_BINS))
    gaps[rows, bins] = confidence - right
    return np.column_stack([right, log_loss, brier, gaps])


def _metrics(sums: NDArray[np.floating], n_answers: int, n_samples: int) -> NDArray[np.float64]:
    """`(n_resamples, n_answers * (3 + N_BINS))` sums → `(n_resamples, n_answers, n_metrics)`."""
    shaped = sums.reshape(len(sums), n_answers, 3 + N_BINS).astype(np.float64) / n_samples
    ece = np.abs(shaped[:, :, 3:]).sum(axis=2, keepdims=True)
    return np.concatenate([shaped[:, :, :3], ece], axis=2)


def _interval(value: float, resampled: NDArray[np.float64]) -> Interval:
    low, high = np.quantile(resampled, [0.025, 0.975])
    return Interval(float(value), float(low), float(high))
