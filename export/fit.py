"""Fits the fusion: a temperature a member, and the members' weights of the strategies that take them.

Arrays are the members' answers on held-out rows: `probabilities (n_members, n_samples, n_classes) float32`, and the
true classes `y (n_samples,) int64`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize, minimize_scalar

from export.evaluate import Evaluation, evaluate
from server.fusion import FLOOR, STRATEGIES, calibrate, fuse
from server.manifest import MemberSpec

Probabilities = NDArray[np.float32]
Weights = NDArray[np.float64]

LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 0.05, 20.0


@dataclass(frozen=True, slots=True)
class Fit:
    """Weights `(n_members,)`, none negative, that sum to 1; and the log-loss (nats) they reach on the fitted rows."""

    weights: Weights
    log_loss: float


@dataclass(frozen=True, slots=True)
class Fitted:
    """What fitting found; `choice` tells which fit of the linear pool was kept, and why."""

    members: list[MemberSpec]
    default_strategy: str
    choice: dict[str, Any]
    validation: Evaluation


def fit_fusion(
    members: Sequence[MemberSpec],
    validation: Probabilities,
    y: NDArray[np.int64],
    calibration: Probabilities,
    y_calibration: NDArray[np.int64],
) -> Fitted:
    """Fit temperatures, weights and the choice of the default strategy, on the members' answers to the two splits.

    Weights and default strategy come from the validation rows, temperatures from the calibration rows.
    """
    temperatures = np.array([fit_temperature(answer, y_calibration) for answer in calibration], dtype=np.float32)
    linear, choice = _choose_linear_pool(validation, y, calibration, y_calibration)
    log_linear = fit_log_linear_pool(calibrate(validation, temperatures), y)
    fitted = [
        spec.model_copy(
            update={
                "weights": {"weighted": _round(linear.weights[k]), "log_linear": _round(log_linear.weights[k])},
                "temperature": _round(temperatures[k]),
            }
        )
        for k, spec in enumerate(members)
    ]
    weights = {"weighted": linear.weights, "log_linear": log_linear.weights}
    answers = {
        name: fuse(name, validation, weights=weights.get(name), temperatures=temperatures) for name in STRATEGIES
    }
    scored = evaluate(answers, y)
    return Fitted(fitted, scored.best(list(STRATEGIES), "log_loss"), choice, scored)


def fit_temperature(probabilities: NDArray[np.float32], y: NDArray[np.int64]) -> float:
    """The temperature that makes one member's `(n_samples, n_classes)` answers likeliest (Guo et al. 2017)."""
    logs = _logs(probabilities)

    def loss(log_temperature: float) -> float:
        scaled = logs / np.exp(log_temperature)
        return float((_log_sum_exp(scaled) - _of_true_class(scaled, y)).mean())

    bounds = (np.log(LOWEST_TEMPERATURE), np.log(HIGHEST_TEMPERATURE))
    return float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded").x))


def linear_pool_loss(probabilities: Probabilities, y: NDArray[np.int64], weights: Weights) -> float:
    """Log-loss in nats of the linear pool with these weights `(n_members,)`."""
    hits = np.maximum(_of_true_class(probabilities.astype(np.float64), y), float(FLOOR))
    return float(-np.log(weights @ hits).mean())


def fit_linear_pool(probabilities: Probabilities, y: NDArray[np.int64]) -> Fit:
    """Weights of the linear pool with the least log-loss on the simplex: a convex problem."""
    hits = np.maximum(_of_true_class(probabilities.astype(np.float64), y), float(FLOOR))

    def loss(weights: Weights) -> tuple[float, Weights]:
        pooled = weights @ hits
        return float(-np.log(pooled).mean()), -(hits / pooled).mean(axis=1)

    return _on_simplex(loss, len(probabilities))


def fit_log_linear_pool(probabilities: Probabilities, y: NDArray[np.int64]) -> Fit:
    """Weights of the logarithmic pool with the least log-loss on the simplex, a convex problem too.

    `probabilities` are the calibrated ones, as the strategy will see them.
    """
    logs = _logs(probabilities)
    true_logs = _of_true_class(logs, y)

    def loss(weights: Weights) -> tuple[float, Weights]:
        scores = np.tensordot(weights, logs, axes=1)
        normaliser = _log_sum_exp(scores)
        pooled = np.exp(scores - normaliser[:, None])
        gradient = np.einsum("mnc,nc->m", logs, pooled) / len(y) - true_logs.mean(axis=1)
        return float((normaliser - weights @ true_logs).mean()), gradient

    return _on_simplex(loss, len(probabilities))


def select_greedily(probabilities: Probabilities, y: NDArray[np.int64], *, rounds: int = 100) -> Fit:
    """Ensemble selection by log-loss (Caruana et al. 2004): add, with replacement, the member that helps most.

    The weights are the counts after the best round, so they are coarse, and a member that never helps has none.
    """
    hits = np.maximum(_of_true_class(probabilities.astype(np.float64), y), float(FLOOR))
    counts = np.zeros(len(hits))
    total = np.zeros(len(y))
    best = Fit(counts, np.inf)
    for taken in range(1, rounds + 1):
        losses = -np.log((total + hits) / taken).mean(axis=1)
        member = int(losses.argmin())
        counts[member] += 1
        total += hits[member]
        if losses[member] < best.log_loss - 1e-9:
            best = Fit(counts / taken, float(losses[member]))
    return best


def _choose_linear_pool(
    validation: Probabilities,
    y: NDArray[np.int64],
    calibration: Probabilities,
    y_calibration: NDArray[np.int64],
) -> tuple[Fit, dict[str, Any]]:
    """The better of two fits on rows that neither has seen: optimal weights can be too sure of their own rows."""
    fits = {"simplex": fit_linear_pool(validation, y), "greedy": select_greedily(validation, y)}
    unseen = {name: linear_pool_loss(calibration, y_calibration, found.weights) for name, found in fits.items()}
    kept = min(unseen, key=unseen.__getitem__)
    tried = {
        name: {
            "weights": [_round(weight) for weight in found.weights],
            "validation_log_loss": found.log_loss,
            "calibration_log_loss": unseen[name],
        }
        for name, found in fits.items()
    }
    return fits[kept], {"kept": kept, "fits": tried}


def _on_simplex(loss: Callable[[Weights], tuple[float, Weights]], n_members: int) -> Fit:
    start = np.full(n_members, 1 / n_members)
    found = minimize(
        loss,
        start,
        jac=True,
        method="SLSQP",
        bounds=[(0.0, 1.0)] * n_members,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": lambda w: np.ones_like(w)},
        options={"maxiter": 500, "ftol": 1e-9},
    )
    weights = np.clip(found.x, 0, None)
    weights /= weights.sum()
    return Fit(weights, loss(weights)[0])


def _logs(probabilities: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.log(np.maximum(probabilities, FLOOR).astype(np.float64))


def _of_true_class(values: NDArray[np.float64], y: NDArray[np.int64]) -> NDArray[np.float64]:
    """`(…, n_samples, n_classes)` → `(…, n_samples)`."""
    return np.asarray(values[..., np.arange(len(y)), y])


def _log_sum_exp(values: NDArray[np.float64]) -> NDArray[np.float64]:
    highest = values.max(axis=-1)
    return np.asarray(highest + np.log(np.exp(values - highest[..., None]).sum(axis=-1)))


def _round(value: float) -> float:
    """Six digits: what is published is what is evaluated, and a person can read it."""
    return float(f"{value:.6g}") if value >= 1e-6 else 0.0
