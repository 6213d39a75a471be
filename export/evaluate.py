"""Scores answers against the truth, with bootstrap intervals.

`probabilities (n_samples, n_classes) float32`, `labels (n_samples,)`: the answer's own, since a vote breaks its ties by
more than its shares; `y (n_samples,) int64`: the true classes. Of a regression, `probabilities` holds values
`(n_samples, n_targets)`, and so does `y`, float64.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from server.fusion import FLOOR, Fused

METRICS = ("accuracy", "log_loss", "brier", "ece")
VALUE_METRICS = ("rmse", "mae", "r2")
"""Of a regression."""
HIGHER_IS_BETTER = frozenset({"accuracy", "r2"})
"""Of the other metrics, less is better."""
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
    """`(n_answers, n_metrics)`, in the order of `metrics`."""
    resampled: NDArray[np.float64]
    """`(n_resamples, n_answers, n_metrics)`"""
    metrics: tuple[str, ...] = METRICS

    def scores(self, name: str) -> dict[str, Interval]:
        """Accuracy (share), log-loss (nats), Brier score (sum over classes, 0 to 2) and ECE (share) of one answer.

        Of a regression: RMSE and MAE, in the target's unit, and R².
        """
        index = self.names.index(name)
        return {
            metric: interval_of(self.values[index, k], self.resampled[:, index, k])
            for k, metric in enumerate(self.metrics)
        }

    def difference(self, name: str, other: str, metric: str) -> Interval:
        """`name` less `other`, on the same resamples."""
        a, b, k = self.names.index(name), self.names.index(other), self.metrics.index(metric)
        return interval_of(self.values[a, k] - self.values[b, k], self._differences(name, other, metric))

    def p_value(self, name: str, other: str, metric: str) -> float:
        """How surprising the difference would be if there were none, by the bootstrap."""
        return bootstrap_p_value(self._differences(name, other, metric))

    def best(self, names: list[str], metric: str) -> str:
        """Of these answers, the one with the highest accuracy or R², or the lowest of another metric."""
        sign = -1 if metric in HIGHER_IS_BETTER else 1
        k = self.metrics.index(metric)
        return min(names, key=lambda name: sign * self.values[self.names.index(name), k])

    def _differences(self, name: str, other: str, metric: str) -> NDArray[np.float64]:
        a, b, k = self.names.index(name), self.names.index(other), self.metrics.index(metric)
        if np.array_equal(self.values[a], self.values[b]):
            return np.zeros(len(self.resampled))  # one and the same answer: what is left is rounding
        return np.asarray(self.resampled[:, a, k] - self.resampled[:, b, k])


def evaluate(answers: Mapping[str, Fused], y: NDArray[np.int64], *, seed: int = 0) -> Evaluation:
    """Score each answer, and again on `N_RESAMPLES` bootstrap resamples of the rows, the same for all."""
    parts = np.concatenate([_parts(answer, y) for answer in answers.values()], axis=1)
    whole = _metrics(parts.sum(axis=0, keepdims=True), len(answers), len(y))[0]
    resampled = _resample(parts.astype(np.float32), lambda sums: _metrics(sums, len(answers), len(y)), seed)
    return Evaluation(list(answers), whole, resampled)


def evaluate_values(answers: Mapping[str, Fused], y: NDArray[np.float64], *, seed: int = 0) -> Evaluation:
    """As `evaluate`, of a regression: `y (n_samples, n_targets)`; of several targets, the means of their figures."""
    n_targets = y.shape[1]
    centred = y - y.mean(axis=0)  # so that the spread of a resample is no difference of two large sums
    errors = [answer.probabilities.astype(np.float64) - y for answer in answers.values()]
    parts = np.column_stack([*(part for error in errors for part in (error**2, np.abs(error))), centred**2, centred])

    def metrics(sums: NDArray[np.floating]) -> NDArray[np.float64]:
        return _value_metrics(sums.reshape(len(sums), -1, n_targets) / len(y))

    whole = metrics(parts.sum(axis=0, keepdims=True))[0]
    return Evaluation(list(answers), whole, _resample(parts, metrics, seed), VALUE_METRICS)


@dataclass(frozen=True, slots=True)
class McNemar:
    """McNemar's test (1947), exact: of the rows that one answer has right and the other wrong, whose are more?"""

    only_first: int
    """Rows that the first has right and the second wrong."""
    only_second: int
    p_value: float


def mcnemar(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> McNemar:
    """Of two answers to the same rows, `(n_samples,)` each: which are right. Without a difference, p is 1."""
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    discordant = only_first + only_second
    p_value = float(binomtest(only_first, discordant, 0.5).pvalue) if discordant else 1.0
    return McNemar(only_first, only_second, p_value)


def bootstrap_p_value(differences: NDArray[np.float64]) -> float:
    """Two-sided, of resampled differences `(n_resamples,)`: twice the share beyond zero, never 0 (Davison & Hinkley
    1997, chapter 4)."""
    beyond = min((differences <= 0).sum(), (differences >= 0).sum())
    return float(min(1.0, 2 * (1 + beyond) / (1 + len(differences))))


def _resample(
    parts: NDArray[np.floating], metrics: Callable[[NDArray[np.floating]], NDArray[np.float64]], seed: int
) -> NDArray[np.float64]:
    """The metrics of the columns' sums of `parts (n_samples, k)` over each resample of the rows."""
    generator = np.random.default_rng(seed)
    return np.concatenate([metrics(_draw(generator, len(parts)) @ parts) for _ in range(N_RESAMPLES // CHUNK)])


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


def _value_metrics(means: NDArray[np.floating]) -> NDArray[np.float64]:
    """`(n_resamples, 2 * n_answers + 2, n_targets)` means → `(n_resamples, n_answers, 3)`.

    Of each answer the squared and the absolute error; last the target's square and itself, less its mean of all rows.
    R² is scikit-learn's: where the target does not vary, 1 for what is exactly right, else 0.
    """
    squared, absolute, spread = means[:, 0:-2:2], means[:, 1:-2:2], means[:, -2] - means[:, -1] ** 2
    variance = np.broadcast_to(np.maximum(spread, 0)[:, None], squared.shape)
    constant = np.where(squared == 0, 0.0, 1.0)
    unexplained = np.divide(squared, variance, out=constant, where=variance > 0)
    return np.stack([np.sqrt(squared).mean(axis=2), absolute.mean(axis=2), 1 - unexplained.mean(axis=2)], axis=2)


def interval_of(value: float, resampled: NDArray[np.float64]) -> Interval:
    """Of a figure and what it is on each resample, `(n_resamples,)`."""
    low, high = np.quantile(resampled, [0.025, 0.975])
    return Interval(float(value), float(low), float(high))
