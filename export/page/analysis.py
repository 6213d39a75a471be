"""What the report shows of answers: what confidence is worth, what is taken for what, and what fewer members do.

`y (n_samples,) int64` are the true classes.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.evaluate import N_BINS
from server.fusion import FLOOR, STACKING, STRATEGIES, Fused, calibrate, fuse

MOST_ROWS = 5000
"""Subsets are scored on so many rows."""
ALL_SUBSETS_UP_TO = 8
"""Members of which every subset is scored; of more, those of at most three, and all of them."""
ALONE = ("average", "log_linear")
"""Strategies of one member: its answer as it is, and calibrated. The others only repeat them."""
POOLS = [name for name in STRATEGIES if name != STACKING]
"""Strategies of any members; a final estimator reads all of them."""


def reliability(fused: Fused, y: NDArray[np.int64]) -> list[dict[str, float]]:
    """Mean confidence in the label, accuracy and number of rows of each bin of confidence that has any, lowest first.

    The bins are those of the expected calibration error: the mean of the gaps, weighted by the counts, is the ECE
    (DeGroot & Fienberg 1983; Guo et al. 2017).
    """
    confidence = fused.probabilities[np.arange(len(y)), fused.labels].astype(np.float64)
    bins = np.minimum((confidence * N_BINS).astype(int), N_BINS - 1)
    counts = np.bincount(bins, minlength=N_BINS)
    confidences = np.bincount(bins, weights=confidence, minlength=N_BINS)
    right = np.bincount(bins, weights=fused.labels == y, minlength=N_BINS)
    return [
        {
            "confidence": float(confidences[k] / counts[k]),
            "accuracy": float(right[k] / counts[k]),
            "count": int(counts[k]),
        }
        for k in np.flatnonzero(counts)
    ]


def confusion(labels: NDArray[np.intp], y: NDArray[np.int64], n_classes: int) -> list[list[int]]:
    """Rows counted by class: `[true][answered]`."""
    counts = np.bincount(y * n_classes + labels, minlength=n_classes**2)
    matrix: list[list[int]] = counts.reshape(n_classes, n_classes).tolist()
    return matrix


def subsets(
    names: Sequence[str],
    probabilities: NDArray[np.float32],
    y: NDArray[np.int64],
    costs: Sequence[float],
    weights: Mapping[str, NDArray[np.floating] | None],
    temperatures: NDArray[np.float32],
) -> list[dict[str, Any]]:
    """What each subset of the members would answer by each of `POOLS`, and its cost: small subsets first.

    `probabilities (n_members, n_samples, n_classes)`, `costs` in µs a row and `temperatures (n_members,)` in the order
    of `names`; `weights (n_members,)` by strategy, equal ones where there are none: a subset takes its members' own,
    and has no answer by that strategy if they are all zero. With more than `MOST_ROWS` rows, evenly spaced ones count.
    """
    if len(y) > MOST_ROWS:
        rows = np.linspace(0, len(y) - 1, MOST_ROWS).astype(int)
        probabilities, y = probabilities[:, rows], y[rows]
    calibrated = calibrate(probabilities, temperatures)
    found = []
    for subset in _subsets(len(names)):
        chosen = list(subset)
        about = {"members": [names[k] for k in chosen], "cost_us": float(sum(costs[k] for k in chosen))}
        for strategy in POOLS if len(chosen) > 1 else ALONE:
            every = weights.get(strategy)
            own = None if every is None else every[chosen]
            if own is None or own.any():
                answers = calibrated if STRATEGIES[strategy].calibrated else probabilities
                found.append(
                    {**about, "strategy": strategy, **_scores(fuse(strategy, answers[chosen], weights=own), y)}
                )
    return found


def _subsets(n_members: int) -> Iterator[tuple[int, ...]]:
    largest = n_members if n_members <= ALL_SUBSETS_UP_TO else 3
    for size in range(1, largest + 1):
        yield from combinations(range(n_members), size)
    if largest < n_members:
        yield tuple(range(n_members))


def _scores(fused: Fused, y: NDArray[np.int64]) -> dict[str, float]:
    of_truth = np.maximum(fused.probabilities[np.arange(len(y)), y], FLOOR)
    return {
        "accuracy": float((fused.labels == y).mean()),
        "log_loss": float(-np.log(of_truth.astype(np.float64)).mean()),
    }
