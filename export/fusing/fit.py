"""Fits the fusion: temperatures, the weights of the strategies that take them, the final estimator, the cascade.

Arrays are the members' answers on held-out rows: `probabilities (n_members, n_samples, n_classes) float32`, and the
true classes `y (n_samples,) int64`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize, minimize_scalar

from export.evaluate import Evaluation, evaluate
from export.fusing.cascade import POOLS, TOLERANCE, fit_cascade
from export.fusing.stacking import Stacking, fit_stacking, obstacle
from server.fusion import FLOOR, STACKING, STRATEGIES, Fused, by_highest, calibrate, fuse
from server.manifest import CascadeSpec

Probabilities = NDArray[np.float32]
Weights = NDArray[np.float64]
Chosen = NDArray[np.bool_]
"""`(n_members,)`"""

LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 0.05, 20.0


@dataclass(frozen=True, slots=True)
class Fit:
    """Weights `(n_members,)`, none negative, that sum to 1; and the log-loss (nats) they reach on the fitted rows."""

    weights: Weights
    log_loss: float
    path: tuple[tuple[int, float], ...] = ()
    """Of greedy selection: the member that each step added, and the log-loss after it."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """What fitting found, rounded as it is published."""

    temperatures: Mapping[str, float]
    """By member, in the members' order."""
    weights: Mapping[str, Mapping[str, float]]
    """By member, then by strategy that takes fitted ones."""
    default_strategy: str
    choice: Mapping[str, Any]
    """Which fit of the linear pool was kept, and why; ready for JSON."""
    validation: Evaluation
    """Of every strategy that may be the default. What stacking answers is out of the folds that it learned from."""
    stacking: Stacking | None = None
    cascade: CascadeSpec | None = None
    notes: tuple[str, ...] = ()
    """Why there is no final estimator, or no cascade."""

    @property
    def names(self) -> list[str]:
        return list(self.temperatures)

    def to_json(self) -> dict[str, Any]:
        return {
            "members": {
                name: {"temperature": self.temperatures[name], "weights": self.weights[name]} for name in self.names
            },
            "default_strategy": self.default_strategy,
            "choice": self.choice,
            "validation": {
                strategy: {metric: asdict(interval) for metric, interval in self.validation.scores(strategy).items()}
                for strategy in self.validation.names
            },
            "stacking": self.stacking and self.stacking.to_json(),
            "cascade": self.cascade and self.cascade.model_dump(),
            "notes": list(self.notes),
        }


def fit_fusion(
    names: Sequence[str],
    validation: Probabilities,
    y: NDArray[np.int64],
    calibration: Probabilities,
    y_calibration: NDArray[np.int64],
    *,
    costs_us: Sequence[float],
    cascade_tolerance: float = TOLERANCE,
) -> Fitted:
    """Fit everything to the answers of the members of these names, which cost so many microseconds a row.

    Weights come from the validation rows, temperatures from the calibration rows; final estimator and cascade from
    both. The default strategy is the one of least log-loss on the validation rows. The cascade does not count, it is
    there to be cheap; nor does stacking, unless it is surely better: it can leave no member out.
    """
    temperatures = _rounded(fit_temperatures(calibration, y_calibration)).astype(np.float32)
    linear, choice = _choose_linear_pool(validation, y, calibration, y_calibration)
    log_linear = fit_log_linear_pool(calibrate(validation, temperatures), y)
    weights = {"weighted": _rounded(linear.weights), "log_linear": _rounded(log_linear.weights)}
    answers = {
        name: fuse(name, validation, weights=weights.get(name), temperatures=temperatures)
        for name in STRATEGIES
        if name != STACKING
    }
    held_out, y_held_out = np.concatenate([validation, calibration], axis=1), np.concatenate([y, y_calibration])
    notes = []
    stacking = None
    if reason := obstacle(y_held_out, len(names), validation.shape[2]):
        notes.append(reason)
    else:
        stacking = fit_stacking(held_out, y_held_out)
        answers[STACKING] = _normalised(stacking.out_of_fold[: len(y)])
    scored = evaluate(answers, y)
    pool = scored.best(POOLS, "log_loss")
    cascade = fit_cascade(
        names,
        costs_us,
        held_out,
        y_held_out,
        strategy=pool,
        weights=weights.get(pool),
        temperatures=temperatures,
        tolerance=cascade_tolerance,
    )
    if cascade is None:
        notes.append(_why_no_cascade(len(names), cascade_tolerance))
    return Fitted(
        temperatures={name: _round(temperatures[k]) for k, name in enumerate(names)},
        weights={
            name: {strategy: float(found[k]) for strategy, found in weights.items()} for k, name in enumerate(names)
        },
        default_strategy=_default(scored),
        choice=choice,
        validation=scored,
        stacking=stacking,
        cascade=cascade,
        notes=tuple(notes),
    )


def _default(validation: Evaluation) -> str:
    pool = validation.best([name for name in validation.names if name != STACKING], "log_loss")
    if STACKING in validation.names and validation.difference(STACKING, pool, "log_loss").high < 0:
        return STACKING
    return pool


def _normalised(probabilities: NDArray[np.float32]) -> Fused:
    return by_highest(probabilities / probabilities.sum(axis=1, keepdims=True))


def _why_no_cascade(n_members: int, tolerance: float) -> str:
    if n_members < 2:
        return "no cascade: it takes two members"
    return f"no cascade: none costs less and comes within {tolerance:.6g} of the accuracy of all members"


def fit_temperatures(probabilities: Probabilities, y: NDArray[np.int64]) -> NDArray[np.float32]:
    """A temperature a member, `(n_members,)`."""
    return np.array([fit_temperature(answer, y) for answer in probabilities], dtype=np.float32)


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


def select_greedily(
    probabilities: Probabilities,
    y: NDArray[np.int64],
    *,
    rounds: int = 100,
    start: int = 0,
    may_add: Callable[[Chosen], Chosen] = np.ones_like,
) -> Fit:
    """Ensemble selection by log-loss (Caruana et al. 2004): add, with replacement, the member that helps most.

    The weights are the counts after the best round, so they are coarse, and a member that never helps has none.
    `start` so many of the best members are there before the others are looked at. `may_add` tells, from which members
    are chosen, which may be added: those among them, and at first at least one.
    """
    hits = np.maximum(_of_true_class(probabilities.astype(np.float64), y), float(FLOOR))
    alone = -np.log(hits).mean(axis=1)
    counts = np.zeros(len(hits))
    total = np.zeros(len(y))
    path: list[tuple[int, float]] = []
    best = Fit(counts, np.inf)
    for taken in range(1, rounds + 1):
        losses = -np.log((total + hits) / taken).mean(axis=1)
        able = may_add(counts > 0)
        new = able & (counts == 0)
        if taken <= start and new.any():
            member = int(np.where(new, alone, np.inf).argmin())
        else:
            member = int(np.where(able, losses, np.inf).argmin())
        counts[member] += 1
        total += hits[member]
        path.append((member, float(losses[member])))
        if losses[member] < best.log_loss - 1e-9:
            best = Fit(counts / taken, float(losses[member]), tuple(path))
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


def _rounded(values: NDArray[np.floating]) -> NDArray[np.float64]:
    return np.array([_round(value) for value in values.tolist()])


def _round(value: float) -> float:
    """Six digits: what is published is what is evaluated, and a person can read it."""
    return float(f"{value:.6g}") if value >= 1e-6 else 0.0
