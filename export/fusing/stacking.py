"""Fits stacking's final estimator: a logistic regression on what the members answer (Wolpert 1992).

It learns from rows that the members were not fitted to: to each of them, these rows are out of their folds already. Its
features are the members' log-probabilities side by side, standardised; regularisation pulls it towards leaving all of
them out, and how strong that is, cross-validation says.

Arrays as in `export.fusing.fit`: `answers (n_members, n_samples, n_classes) float32`, `y (n_samples,) int64`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from threadpoolctl import threadpool_limits

from export.errors import ParityError
from export.graph import IR_VERSION, OPSETS
from server.fusion import FLOOR
from server.manifest import ANSWERS_INPUT
from server.session import Session

Answers = NDArray[np.float32]
Labels = NDArray[np.int64]

STACKED = "stacked"
FOLDS = 5
STRENGTHS = (0.0001, 0.001, 0.01, 0.1, 1.0, 10.0)
"""What is tried for scikit-learn's `C`: the smaller, the more regularised."""
TOLERANCE = 1e-4
"""How far a probability of the graph, in float32, may lie from scikit-learn's, in float64, on rows of zeros and ones,
too: there logits are large, and so are their last digits."""
N_PROOF_ROWS = 1024
MOST_COEFFICIENTS = 20_000
"""Of ten members, up to 44 classes. Thirty fits of many more take hours, and want more rows than there are mostly."""


@dataclass(frozen=True, slots=True)
class Stacking:
    """A final estimator, and how it came about."""

    model: ModelProto
    """`answers (n_members, n, n_classes) -> stacked (n, n_classes)`, float32."""
    strength: float
    """The `C` that was chosen."""
    losses: Mapping[float, float]
    """By `C`: log-loss (nats) of its predictions of rows out of the folds it learned from."""
    out_of_fold: Answers
    """`(n_samples, n_classes)`: those predictions, of the chosen one. As good as on rows that it has not seen."""

    def to_json(self) -> dict[str, Any]:
        """`rows` that it learned from, its strength `C`, and the log-losses by which that was chosen."""
        return {
            "final_estimator": "logistic regression on log-probabilities",
            "rows": len(self.out_of_fold),
            "C": self.strength,
            "log_loss": {f"{strength:g}": round(loss, 6) for strength, loss in self.losses.items()},
        }


def obstacle(y: Labels, n_members: int, n_classes: int) -> str | None:
    """Why no final estimator can be fitted to rows of these classes; None if one can."""
    if (size := n_members * n_classes**2) > MOST_COEFFICIENTS:
        return f"no stacking: its final estimator would have {size:,} coefficients, more than {MOST_COEFFICIENTS:,}"
    counts = np.bincount(y, minlength=n_classes)
    if counts.min() >= 2:
        return None
    return (
        f"no stacking: its final estimator wants two rows of each class beside the members' own, "
        f"class {int(counts.argmin())} has {int(counts.min())}"
    )


def fit_stacking(answers: Answers, y: Labels) -> Stacking:
    """Fit the final estimator to these rows, of which each class has two at least; see `obstacle`.

    `C` is the one of `STRENGTHS` of least log-loss in stratified cross-validation of at most `FOLDS` folds; raises
    ParityError if the graph does not answer what scikit-learn does.
    """
    n_members, _, n_classes = answers.shape
    x = side_by_side(answers)
    folds = StratifiedKFold(min(FOLDS, int(np.bincount(y, minlength=n_classes).min())), shuffle=True, random_state=0)
    # So that its sums do not depend on the number of cores, and its many small ones do not wait for busy cores.
    with threadpool_limits(1):
        tried = {
            strength: cross_val_predict(final_estimator(strength), x, y, cv=folds, method="predict_proba")
            for strength in STRENGTHS
        }
        losses = {strength: _log_loss(predicted, y) for strength, predicted in tried.items()}
        strength = min(losses, key=losses.__getitem__)
        fitted = final_estimator(strength).fit(x, y)
    model = to_onnx(fitted, n_members, n_classes)
    check_parity(model, fitted, answers)
    return Stacking(model, strength, losses, tried[strength].astype(np.float32))


def final_estimator(strength: float) -> Pipeline:
    """Not fitted; it takes rows `(n, n_members * n_classes)` of probabilities, as `side_by_side` has them."""
    regression = LogisticRegression(C=strength, tol=1e-5, max_iter=10_000)
    return make_pipeline(FunctionTransformer(_logs), StandardScaler(), regression)


def side_by_side(answers: Answers) -> NDArray[np.float64]:
    """`(n_members, n, n_classes)` → `(n, n_members * n_classes)`."""
    return answers.transpose(1, 0, 2).reshape(answers.shape[1], -1).astype(np.float64)


def to_onnx(fitted: Pipeline, n_members: int, n_classes: int) -> ModelProto:
    """The same in a few nodes: logarithms, one product, a softmax. The scaling is part of the coefficients."""
    _, scaler, regression = (step for _, step in fitted.steps)
    coefficients = regression.coef_ / scaler.scale_
    intercepts = regression.intercept_ - coefficients @ scaler.mean_
    if n_classes == 2:  # scikit-learn has the log-odds of the second class alone
        coefficients = np.concatenate([np.zeros_like(coefficients), coefficients])
        intercepts = np.concatenate([np.zeros_like(intercepts), intercepts])
    constants = {
        "floor": np.array(FLOOR),
        "side_by_side": np.array([0, n_members * n_classes], dtype=np.int64),  # 0: as many rows as there are
        "coefficients": coefficients.astype(np.float32),
        "intercepts": intercepts.astype(np.float32),
    }
    nodes = [
        helper.make_node("Transpose", [ANSWERS_INPUT], ["by_row"], perm=[1, 0, 2]),
        helper.make_node("Reshape", ["by_row", "side_by_side"], ["rows"]),
        helper.make_node("Max", ["rows", "floor"], ["floored"]),
        helper.make_node("Log", ["floored"], ["logs"]),
        helper.make_node("Gemm", ["logs", "coefficients", "intercepts"], ["logits"], transB=1),
        helper.make_node("Softmax", ["logits"], [STACKED], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "final_estimator",
        [helper.make_tensor_value_info(ANSWERS_INPUT, TensorProto.FLOAT, [n_members, "n", n_classes])],
        [helper.make_tensor_value_info(STACKED, TensorProto.FLOAT, ["n", n_classes])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid(*opset) for opset in OPSETS.items()]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="committee")
    onnx.checker.check_model(model, full_check=True)
    return model


def check_parity(model: ModelProto, fitted: Pipeline, answers: Answers) -> None:
    """Prove the graph on the first `N_PROOF_ROWS` of these rows, and on rows of zeros and ones. Raises ParityError."""
    n_members, _, n_classes = answers.shape
    certain = np.broadcast_to(np.eye(n_classes, dtype=np.float32), (n_members, n_classes, n_classes))
    rows = np.concatenate([answers[:, :N_PROOF_ROWS], certain, certain * np.float32(0)], axis=1)
    (got,) = Session(model.SerializeToString(), where="final estimator").run([STACKED], {ANSWERS_INPUT: rows})
    off = np.abs(got - fitted.predict_proba(side_by_side(rows))).max()
    if not off <= TOLERANCE:
        raise ParityError(f"final estimator: its graph answers up to {off:.3g} off what scikit-learn answers")


def _logs(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.log(np.maximum(probabilities, float(FLOOR))))


def _log_loss(probabilities: NDArray[np.float64], y: Labels) -> float:
    return float(-np.log(np.maximum(probabilities[np.arange(len(y)), y], float(FLOOR))).mean())
