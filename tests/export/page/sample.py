"""A run's numbers as the steps would leave them: made up, but answers, intervals and subsets are computed from rows."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.evaluate import METRICS, Interval, evaluate
from export.fusing.fit import fit_linear_pool, fit_log_linear_pool, fit_temperatures, select_greedily
from export.fusing.selective import selective
from export.page.analysis import POOLS, confusion, reliability, subsets
from server.fusion import calibrate, fuse

CLASSES = ["T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"]
ACTIVATIONS = ["linear", "exponential", "sigmoid", "tanh", "relu", "elu", "selu", "swish", "mish", "leaky_relu"]
CANDIDATES: dict[str, tuple[str, float, float, int, float]] = {
    # kind, strength of its answers, µs a row, bytes, noise
    "cnn": ("keras_cnn", 6.0, 40.7, 378_000, 1.6),
    "wide": ("searched_cnn", 6.6, 88.2, 1_180_000, 1.55),
    "small": ("searched_cnn", 4.8, 9.6, 61_000, 1.9),
    "student": ("keras_cnn", 5.4, 11.8, 84_000, 1.75),
    "cnn-pruned": ("pruned_cnn", 5.6, 18.4, 141_000, 1.7),
    "cnn-int8": ("quantised", 5.9, 47.9, 112_000, 1.62),
    "tree": ("decision_tree", 7.5, 0.24, 96_000, 4.6),
    "forest": ("random_forest", 3.4, 21.3, 9_400_000, 1.7),
    "xgboost": ("xgboost", 5.2, 24.1, 1_740_000, 1.8),
    "lightgbm": ("lightgbm", 5.0, 19.6, 2_210_000, 1.8),
}
MADE_OF = {"cnn-pruned": ["cnn"], "cnn-int8": ["cnn"]}
FRAMEWORKS = {
    "decision_tree": "scikit-learn",
    "random_forest": "scikit-learn",
    "xgboost": "xgboost",
    "lightgbm": "lightgbm",
}


def numbers() -> dict[str, Any]:
    generator = np.random.default_rng(7)
    y, probabilities = _rows(generator, 1500)
    candidates = [_candidate(generator, name, probabilities[k], y) for k, name in enumerate(CANDIDATES)]
    return {
        "name": "fashion-committee",
        "description": "A search, four comparisons and two ensembles for Fashion-MNIST.",
        "created": "2025-03-14T09:26:53Z",
        "seed": 0,
        "dataset": {
            "name": "fashion_mnist",
            "rows": {"train": 50_000, "validation": 5_000, "calibration": 5_000, "test": 10_000},
            "classes": CLASSES,
        },
        "software": {"python": "3.11.2", "keras": "3.15.1", "onnxruntime": "1.32.0", "optuna": "5.0.0"},
        "machine": "2 × x86-64, Linux",
        "searches": [_search(generator, "both", 40), _search(generator, "shallow", 14)],
        "activations": _activations(generator),
        "regularisation": _regularisation(generator),
        "candidates": candidates,
        "failed": [
            {"name": "small-int8", "reason": "no smaller and no faster: 61 kB against 60 kB, 11.2 µs against 9.6 µs"}
        ],
        "ensembles": [
            _ensemble(
                "fashion", ["cnn", "wide", "student", "cnn-pruned", "forest", "xgboost"], y, probabilities, 250.0
            ),
            _ensemble("fashion-light", ["small", "student", "tree"], y, probabilities, 25.0),
        ],
    }


def _rows(generator: np.random.Generator, n: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Answers of all candidates, `(n_candidates, n, n_classes)`: noise that they share in part, and classes alike."""
    y = generator.integers(0, len(CLASSES), n)
    shared = generator.normal(0, 1, (n, len(CLASSES)))
    alike = np.zeros((len(CLASSES), len(CLASSES)))
    for a, b, much in ((0, 6, 0.7), (2, 4, 0.65), (2, 6, 0.5), (4, 6, 0.45), (7, 9, 0.5), (5, 7, 0.4), (3, 0, 0.3)):
        alike[a, b] = alike[b, a] = much
    truth = np.eye(len(CLASSES))[y] + alike[y]
    answers = []
    for _, strength, _, _, noise in CANDIDATES.values():
        logits = strength * truth + noise * (0.75 * shared + 0.65 * generator.normal(0, 1, shared.shape))
        exponentials = np.exp(logits * 1.15)
        answers.append((exponentials / exponentials.sum(axis=1, keepdims=True)).astype(np.float32))
    return y, np.stack(answers)


def _candidate(
    generator: np.random.Generator, name: str, answer: NDArray[np.float32], y: NDArray[np.int64]
) -> dict[str, Any]:
    kind, _, cost, n_bytes, _ = CANDIDATES[name]
    scores = evaluate({"it": fuse("average", answer[None])}, y).scores("it")
    teachers = ["cnn", "wide", "xgboost"] if name == "student" else []
    return {
        "name": name,
        "kind": kind,
        "framework": FRAMEWORKS.get(kind, "keras"),
        "made_of": MADE_OF.get(name, []),
        "teachers": teachers,
        "cost_us": cost,
        "bytes": n_bytes,
        "parameters": None if kind in FRAMEWORKS else n_bytes // 4,
        **{metric: scores[metric].value for metric in ("accuracy", "log_loss", "ece")},
        "record": _record(generator, name, kind),
    }


def _record(generator: np.random.Generator, name: str, kind: str) -> dict[str, Any]:
    if kind == "pruned_cnn":
        return _pruned()
    if kind == "quantised":
        return {
            "of": "cnn",
            "to": "int8",
            "cost_us": 47.9,
            "source_cost_us": 40.7,
            "bytes": 112_000,
            "source_bytes": 378_000,
            "accuracy": 0.9041,
            "source_accuracy": 0.9046,
            "largest_drift": 0.213,
        }
    if name == "tree":
        grid = [
            (depth, leaf, c) for depth in (6, 9, 12, 16, None) for leaf in (1, 5, 20, 60) for c in ("gini", "entropy")
        ]
        scores = [-0.9 - 0.05 * abs((d or 24) - 11) + 0.03 * (c == "entropy") - 1.2 / (leaf + 2) for d, leaf, c in grid]
        keys = ("max_depth", "min_samples_leaf", "criterion")
        return {
            "tuning": _tuning(
                generator, "GridSearchCV", [dict(zip(keys, values, strict=True)) for values in grid], scores
            )
        }
    if name == "xgboost":
        drawn = [
            {
                "learning_rate": float(np.exp(generator.uniform(-4, -1))),
                "max_depth": int(generator.integers(3, 10)),
                "subsample": float(generator.uniform(0.5, 1)),
            }
            for _ in range(24)
        ]
        scores = [
            -0.32 - 0.03 * abs(np.log(d["learning_rate"] / 0.12)) - 0.004 * abs(d["max_depth"] - 6) for d in drawn
        ]
        return {"tuning": _tuning(generator, "optuna", drawn, scores), "rounds": 180}
    return {"curves": {"validation_log_loss": [0.5, 0.35, 0.3]}}


def _tuning(
    generator: np.random.Generator, method: str, drawn: list[dict[str, Any]], scores: list[float]
) -> dict[str, Any]:
    folds = [(score + generator.normal(0, 0.012, 5)).tolist() for score in scores]
    order = np.argsort([-np.mean(fold) for fold in folds]).tolist()
    results = [
        {
            "params": drawn[k],
            "mean_score": float(np.mean(folds[k])),
            "std_score": float(np.std(folds[k])),
            "rank": order.index(k) + 1,
            "fold_scores": folds[k],
        }
        for k in range(len(drawn))
    ]
    best = results[order[0]]
    return {
        "method": method,
        "folds": 5,
        "rows": 20_000,
        "best": best["params"],
        "best_score": best["mean_score"],
        "results": results,
    }


def _pruned() -> dict[str, Any]:
    steps = [
        ([32, 64, 64, 64], 93_322, 40.7, 0.9046, 0.271),
        ([32, 48, 48, 64], 66_410, 31.5, 0.9068, 0.266),
        ([16, 48, 48, 48], 41_882, 22.9, 0.9041, 0.272),
        ([16, 32, 32, 48], 24_010, 18.4, 0.9007, 0.283),
        ([16, 16, 16, 32], 9_034, 12.7, 0.8712, 0.361),
    ]
    rounds = [
        {"round": k, "widths": w, "parameters": p, "cost_us": c, "accuracy": a, "log_loss": loss, "kept": k == 3}
        for k, (w, p, c, a, loss) in enumerate(steps)
    ]
    control = [{"round": k, "accuracy": 0.9046 + 0.0024 * k**0.5, "log_loss": 0.271 - 0.004 * k**0.5} for k in range(5)]
    kept = {key: rounds[3][key] for key in ("parameters", "cost_us", "accuracy", "log_loss")}
    return {"of": "cnn", "kept": kept, "rounds": rounds, "control": control}


def _search(generator: np.random.Generator, name: str, n: int) -> dict[str, Any]:
    trials: list[dict[str, Any]] = []
    for number in range(n):
        depth, width = int(generator.integers(1, 5)), int(generator.choice([16, 32, 48, 64]))
        cost = 1.4 * depth * width**1.1 / 6 * float(np.exp(generator.normal(0, 0.35)))
        state = "failed" if number == 17 else "pruned" if generator.random() < 0.35 else "complete"
        final = 0.24 + 0.9 / (cost + 4) + float(generator.exponential(0.06)) + 0.12 * (state == "pruned")
        epochs = {"complete": 4, "pruned": int(generator.integers(1, 3)), "failed": 0}[state]
        curve = [final + 0.45 * float(np.exp(-1.1 * k)) for k in range(epochs)]
        activation = str(generator.choice(ACTIVATIONS))
        layers: list[dict[str, Any]] = []
        for _ in range(depth):
            layers += [
                {"layer": "conv", "filters": width, "size": 3, "activation": activation},
                {"layer": "maxpool", "size": 2},
            ]
        layers += [{"layer": "flatten"}, {"layer": "dense", "units": width, "activation": activation}]
        complete = state == "complete"
        trials.append(
            {
                "number": number,
                "state": state,
                "log_loss": curve[-1] if complete else None,
                "accuracy": 1 - 0.35 * curve[-1] if complete else None,
                "cost_us": cost if state != "failed" else None,
                "bytes": int(4000 + width**2 * 36 * depth) if state != "failed" else None,
                "parameters": width**2 * 9 * depth,
                "front": False,
                "params": {"depth": depth, "width": width},
                "layers": layers,
                "learning_rate": 1e-3,
                "batch_size": 128,
                "curve": curve,
            }
        )
    complete_ones = [trial for trial in trials if trial["state"] == "complete"]
    axes = ("log_loss", "cost_us", "bytes")
    for trial in complete_ones:
        trial["front"] = not any(
            all(other[a] <= trial[a] for a in axes) and any(other[a] < trial[a] for a in axes)
            for other in complete_ones
        )
    return {
        "name": name,
        "space": "deeper_and_wider",
        "settings": {"trials": n, "epochs": 4, "rows": 10_000, "budget": "20m"},
        "seconds": 702.4,
        "trials": trials,
    }


def _activations(generator: np.random.Generator) -> dict[str, Any]:
    good = dict(zip(ACTIVATIONS, (0.42, 0.40, 0.47, 0.335, 0.318, 0.31, 0.322, 0.304, 0.299, 0.315), strict=True))
    rows: list[dict[str, Any]] = []
    for name in ACTIVATIONS:
        for seed in range(3):
            final = good[name] + float(generator.normal(0, 0.006))
            curve = [final + 0.35 * float(np.exp(-0.9 * k)) for k in range(1, 6)]
            rows.append(
                {
                    "activation": name,
                    "seed": seed,
                    "accuracy": 1 - final * 0.34,
                    "log_loss": final,
                    "dead_units": 0.11 if name == "relu" else 0.0,
                    "gradient_norm": 0.8 + good[name],
                    "curve": curve,
                }
            )
    summary: list[dict[str, Any]] = []
    for k, name in enumerate(ACTIVATIONS):
        own = [row for row in rows if row["activation"] == name]
        losses, accuracies = [row["log_loss"] for row in own], [row["accuracy"] for row in own]
        summary.append(
            {
                "activation": name,
                "accuracy": float(np.mean(accuracies)),
                "accuracy_std": float(np.std(accuracies)),
                "log_loss": float(np.mean(losses)),
                "log_loss_std": float(np.std(losses)),
                "dead_units": own[0]["dead_units"],
                "gradient_norm": own[0]["gradient_norm"],
                "cost_us": (30.2, 41.8, 38.1, 39.9, 31.0, 43.0, 43.2, 40.4, 52.7, 32.8)[k],
            }
        )
    return {
        "settings": {"epochs": 5, "rows": 20_000, "seeds": 3, "learning_rate": 0.001},
        "rows": rows,
        "summary": summary,
    }


def _regularisation(generator: np.random.Generator) -> dict[str, Any]:
    kinds = {
        "none": (0.06, 0.36, 0.02),
        "dropout": (0.2, 0.265, 0.02),
        "l1": (0.27, 0.30, 0.61),
        "l2": (0.21, 0.29, 0.09),
        "batch norm": (0.08, 0.33, 0.02),
        "label smoothing": (0.17, 0.31, 0.02),
        "augmented": (0.24, 0.258, 0.02),
    }
    variants: list[dict[str, Any]] = []
    for name, (train, validation, zeros) in kinds.items():
        epochs = 16
        steps = np.arange(1, epochs + 1)
        learned = train + (0.75 - train) * np.exp(-steps / 4)
        validated = np.maximum(validation - 0.06, 0.24) + 0.4 * np.exp(-steps / 2.2) + 0.06 * (steps / epochs) ** 2
        validated = validated + generator.normal(0, 0.004, epochs)
        curves = {
            "loss": learned,
            "train_log_loss": learned,
            "validation_log_loss": validated,
            "train_accuracy": 1 - learned / 3,
            "validation_accuracy": 1 - validated / 3,
        }
        variants.append(
            {
                "name": name,
                "epochs_run": epochs,
                "accuracy": float(1 - validated[-1] / 3),
                "log_loss": float(validated[-1]),
                "train_log_loss": float(learned[-1]),
                "gap": float(validated[-1] - learned[-1]),
                "near_zero": zeros,
                "curves": {key: values.tolist() for key, values in curves.items()},
            }
        )
    return {"settings": {"rows": 10_000, "learning_rate": 0.001}, "variants": variants}


def _ensemble(
    name: str, members: list[str], y: NDArray[np.int64], everything: NDArray[np.float32], max_cost: float
) -> dict[str, Any]:
    names = list(CANDIDATES)
    own = everything[[names.index(member) for member in members]]
    a, b = len(y) // 3, 2 * len(y) // 3
    temperatures = fit_temperatures(own[:, a:b], y[a:b])
    weights = {
        "weighted": fit_linear_pool(own[:, :a], y[:a]).weights,
        "log_linear": fit_log_linear_pool(calibrate(own[:, :a], temperatures), y[:a]).weights,
    }
    test, truth = own[:, b:], y[b:]
    answers = {f"member:{member}": fuse("average", test[[k]]) for k, member in enumerate(members)}
    answers |= {key: fuse(key, test, weights=weights.get(key), temperatures=temperatures) for key in POOLS}
    staged = len(members) > 1
    if staged:
        answers["cascade"] = answers["weighted"]
    default = "log_linear"
    rival = {"all candidates, average": fuse("average", everything[:, b:]), **answers}
    scored = evaluate(rival, truth)
    singles = [key for key in answers if key.startswith("member:")]
    shown = ["log_linear", "weighted", "average", *singles]
    greedy = select_greedily(own[:, :a], y[:a])
    costs = [CANDIDATES[member][2] for member in members]
    labels = own.argmax(axis=2)
    return {
        "name": name,
        "version": "3",
        "description": "All that fits the budget of one thread." if max_cost > 100 else "For small machines.",
        "choice": {"max_cost_us": max_cost, "max_members": 8},
        "selection": {
            "limits": {"max_cost_us": max_cost, "max_size_mb": 20.0, "max_members": 8},
            "candidates": names,
            "costs_us": {key: value[2] for key, value in CANDIDATES.items()},
            "bytes": {key: value[3] for key, value in CANDIDATES.items()},
            "members": {
                member: float((greedy.weights[k] + 0.1) / (1 + 0.1 * len(members))) for k, member in enumerate(members)
            },
            "cost_us": sum(costs),
            "size_mb": sum(CANDIDATES[member][3] for member in members) / 1e6,
            "log_loss": greedy.log_loss,
            "path": [
                {"added": members[k % len(members)], "log_loss": greedy.log_loss + 0.03 * float(np.exp(-k / 2))}
                for k in range(14)
            ],
            "disagreement": {
                "names": members,
                "matrix": [[float((one != other).mean()) for other in labels] for one in labels],
            },
        },
        "default_strategy": default,
        "members": {member: float(weights["weighted"][k]) for k, member in enumerate(members)},
        "cost_us": sum(costs),
        "bytes": sum(CANDIDATES[member][3] for member in members),
        "test": {key: {metric: _bounds(found) for metric, found in scored.scores(key).items()} for key in answers},
        "over_best_member": {
            key: {
                metric: {
                    "member": scored.best(singles, metric).removeprefix("member:"),
                    **_bounds(scored.difference(key, scored.best(singles, metric), metric)),
                }
                for metric in METRICS
            }
            for key in answers
            if key not in singles
        },
        "baselines": {
            key: {
                "test": {metric: _bounds(found) for metric, found in scored.scores(key).items()},
                "difference": {
                    metric: _bounds(scored.difference(default, key, metric)) for metric in ("accuracy", "log_loss")
                },
            }
            for key in ["all candidates, average"]
        },
        "subsets": subsets(members, own[:, :a], y[:a], costs, weights, temperatures),
        "reliability": {key: reliability(answers[key], truth) for key in shown},
        "confusion": {key: confusion(answers[key].labels, truth, len(CLASSES)) for key in shown},
        "selective": {key: selective(answers[key], truth) for key in shown},
        "costs_us": dict(zip(members, costs, strict=True)),
        "cascade": _cascade(members, costs, _bounds(scored.difference("cascade", default, "accuracy")))
        if staged
        else {},
    }


def _cascade(members: list[str], costs: list[float], difference: dict[str, float]) -> dict[str, Any]:
    return {
        "strategy": "log_linear",
        "measure": "confidence",
        "tolerance": 0.0005,
        "stages": [
            {"members": members[:1], "threshold": 0.83, "cost_us": costs[0], "share": 0.7},
            {"members": members[1:], "threshold": None, "cost_us": sum(costs[1:]), "share": 0.3},
        ],
        "cost_us": costs[0] + 0.3 * sum(costs[1:]),
        "all_members_us": sum(costs),
        "over_all_members": {"accuracy": difference, "log_loss": difference},
        "sweep": [
            {"threshold": k / 10, "cost_us": costs[0] + k / 10 * sum(costs[1:]), "accuracy": 0.8 + k / 100}
            for k in range(11)
        ],
    }


def _bounds(found: Interval) -> dict[str, float]:
    return {"value": found.value, "low": found.low, "high": found.high}
