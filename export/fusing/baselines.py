"""scikit-learn's own fusers over the very same members, to measure ours against.

Arrays as in `export.fusing.fit`: `probabilities (n_members, n_samples, n_classes) float32`, `y (n_samples,) int64`. The
members are trained already, so to scikit-learn each is a classifier that reads its answers off the row it is given: a
row holds the answers of all members side by side.
"""

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.ensemble import StackingClassifier, VotingClassifier
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from export.evaluate import evaluate
from export.fusing.fit import Probabilities
from export.report import rounded, rounded_scores
from server.fusion import Fused

SOFT, HARD, BY_ACCURACY, STACKING = "soft voting", "hard voting", "soft voting by accuracy", "stacking"
CONVERGED = {"tol": 1e-6, "max_iter": 10_000}
"""Of the logistic regression. scikit-learn's own (1e-4, 100) leave probabilities up to 0.05 from where they end."""


def compare_with_baselines(
    ours: Fused,
    fit_answers: Probabilities,
    y: NDArray[np.int64],
    test_answers: Probabilities,
    y_test: NDArray[np.int64],
    *,
    seed: int,
) -> dict[str, Any]:
    """How our answer to the test rows does against each baseline's, ready for JSON.

    By baseline: `test`, its own scores; `difference`, our accuracy and our log-loss less its. All figures have 95%
    intervals from the same resamples of the rows: those that `evaluate` draws from this seed.
    """
    baselines = score_baselines(fit_answers, y, test_answers)
    scored = evaluate({"ours": ours, **baselines}, y_test, seed=seed)
    return {
        name: {
            "test": rounded_scores(scored, name),
            "difference": {
                metric: rounded(scored.difference("ours", name, metric)) for metric in ("accuracy", "log_loss")
            },
        }
        for name in baselines
    }


def score_baselines(fit_answers: Probabilities, y: NDArray[np.int64], test_answers: Probabilities) -> dict[str, Fused]:
    """What each baseline answers to the test rows, having learned from the others what it learns.

    Soft voting: the mean of the probabilities, also weighted by the members' accuracies; hard voting: the most votes,
    with shares of votes for probabilities; stacking: a logistic regression on the probabilities, which there is only
    if `y` holds two classes or more.
    """
    n_members, _, n_classes = fit_answers.shape
    members = [(f"member {k}", _Stored(k, n_classes)) for k in range(n_members)]
    accuracies = (fit_answers.argmax(axis=2) == y).mean(axis=1)
    x, x_test = _side_by_side(fit_answers), _side_by_side(test_answers)
    answers = {
        SOFT: _by_probability(_voting(members, "soft"), x_test),
        HARD: _by_votes(_voting(members, "hard"), x_test, n_classes),
    }
    if accuracies.any():
        answers[BY_ACCURACY] = _by_probability(_voting(members, "soft", weights=accuracies), x_test)
    if len(np.unique(y)) > 1:
        combiner = LogisticRegression(**CONVERGED)
        stacked = StackingClassifier([(name, member.fit(x, y)) for name, member in members], combiner, cv="prefit")
        # So that its sums do not depend on the number of cores, and its many small ones do not wait for busy cores.
        with threadpool_limits(1):
            stacked.fit(x, y)
        answers[STACKING] = _by_probability(stacked, x_test, n_classes)
    return answers


class _Stored(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """A trained member, as scikit-learn sees it: its answers are `n_classes` of a row's columns."""

    def __init__(self, member: int, n_classes: int) -> None:
        self.member = member
        self.n_classes = n_classes

    def fit(self, x: NDArray[np.float64], y: NDArray[np.int64]) -> Self:
        """Nothing to learn: only what scikit-learn takes for the sign that it is trained."""
        self.classes_ = np.arange(self.n_classes)
        return self

    def predict_proba(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        return x[:, self.member * self.n_classes : (self.member + 1) * self.n_classes]

    def predict(self, x: NDArray[np.float64]) -> NDArray[np.intp]:
        return np.asarray(self.predict_proba(x).argmax(axis=1))


def _side_by_side(answers: Probabilities) -> NDArray[np.float64]:
    """`(n_members, n, n_classes)` → `(n, n_members * n_classes)`."""
    return answers.transpose(1, 0, 2).reshape(answers.shape[1], -1).astype(np.float64)


def _voting(members: list[tuple[str, _Stored]], voting: str, weights: NDArray[np.float64] | None = None) -> Any:
    """A vote learns nothing but what classes there are, so it is shown each once, whatever rows there are."""
    classes = np.arange(members[0][1].n_classes)
    rows = np.zeros((len(classes), len(members) * len(classes)))
    return VotingClassifier(members, voting=voting, weights=weights).fit(rows, classes)


def _by_probability(fuser: Any, x: NDArray[np.float64], n_classes: int | None = None) -> Fused:
    """A class that the rows it learned from lack has no chance with it."""
    probabilities = np.zeros((len(x), n_classes or len(fuser.classes_)), dtype=np.float32)
    probabilities[:, fuser.classes_] = fuser.predict_proba(x)
    return Fused(probabilities, fuser.predict(x).astype(np.intp))


def _by_votes(fuser: Any, x: NDArray[np.float64], n_classes: int) -> Fused:
    votes = fuser.transform(x)
    shares = (votes[:, :, None] == np.arange(n_classes)).mean(axis=1, dtype=np.float32)
    return Fused(shares, fuser.predict(x).astype(np.intp))
