"""The metrics of an evaluation as a reader wants them."""

import math
from collections.abc import Mapping

from export.page import words

NAMES = {
    "accuracy": "accuracy",
    "log_loss": "log-loss",
    "brier": "Brier",
    "ece": "ECE",
    "rmse": "RMSE",
    "mae": "MAE",
    "r2": "R²",
    "cost_us": "µs a row",
}

UNITS = {"accuracy": " points", "cost_us": " µs"}
"""Of differences, after the figure."""
FREE = {"rmse": 5, "mae": 5, "cost_us": 3}
"""Metrics that can be of any size: they are shown with so many digits in all, about."""


def value(metric: str, figure: float) -> str:
    """Shares and losses with four digits after the point; what has a unit with about five in all."""
    return words.figure(figure, _digits(metric, figure))


def difference(metric: str, figure: float) -> str:
    """With its sign; of accuracy in points: `+0.42`, `−0.0312`."""
    if metric == "accuracy":
        return words.points(figure)
    return words.signed(figure, _digits(metric, figure))


def interval(metric: str, bounds: Mapping[str, float]) -> str:
    """`0.9123 (0.9070 to 0.9176)`"""
    return words.interval(bounds, _digits(metric, bounds["value"]))


def _digits(metric: str, figure: float) -> int:
    if metric not in FREE:
        return 4
    return max(0, min(8, FREE[metric] - 1 - math.floor(math.log10(abs(figure))))) if figure else 4
