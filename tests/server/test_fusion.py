"""Strategies against arithmetic done by hand, against scikit-learn, and against the laws that every fusion obeys.

The laws run over `STRATEGIES` and `REGRESSION`: a strategy that is added there is tested without another line here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from sklearn.datasets import load_diabetes, load_digits, load_iris, make_friedman1
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor, VotingClassifier, VotingRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from server import fusion
from server.fusion import BY_TASK, FLOOR, REGRESSION, STRATEGIES, Fused, calibrate, normalise_weights, weighted_sum
from server.manifest import Task
from tests import tiny

SHARES_OF_VOTES = {"vote"}
"""Strategies whose probabilities are not those of one member when there is but one."""

Floats = NDArray[np.float32]
every_strategy = pytest.mark.parametrize("strategy", STRATEGIES)
every_pool = pytest.mark.parametrize(
    "strategy", [name for name, rule in STRATEGIES.items() if rule.reads != "final_estimator"]
)
"""Strategies that know nothing of the members but their answers, weights and temperatures."""
every_regression = pytest.mark.parametrize("strategy", REGRESSION)
every_weighted_strategy = pytest.mark.parametrize(
    "strategy", [name for name, rule in STRATEGIES.items() if rule.weights != "equal"]
)
laws = settings(deadline=None, derandomize=True, max_examples=25)


def floats(values: Sequence[float]) -> Floats:
    return np.array(values, dtype=np.float32)


def one_row(*members: Sequence[float]) -> Floats:
    """`(n_members, 1, n_classes)`."""
    return np.array(members, dtype=np.float32)[:, None, :]


def fuse(
    strategy: str,
    probabilities: Floats,
    *,
    weights: NDArray[np.floating] | None = None,
    temperatures: Floats | None = None,
    task: Task = "classification",
) -> Fused:
    """The server's, with a final estimator for a strategy that wants one."""
    return fusion.fuse(
        strategy,
        probabilities,
        weights=weights,
        temperatures=temperatures,
        final_estimator=tiny.stacked_answers,
        task=task,
    )


# By hand ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("strategy", "members", "weights", "probabilities", "label"),
    [
        ("average", [[0.8, 0.2], [0.1, 0.9]], None, [0.45, 0.55], 1),
        ("average", [[0.5, 0.5], [0.5, 0.5]], None, [0.5, 0.5], 0),
        ("average", [[1, 0, 0], [0, 0, 1]], None, [0.5, 0, 0.5], 0),
        ("weighted", [[0.8, 0.2], [0.1, 0.9]], [3, 1], [0.625, 0.375], 0),
        ("weighted", [[0.8, 0.2], [0.1, 0.9]], [0, 1], [0.1, 0.9], 1),
        ("weighted", [[0.6, 0.4], [0.2, 0.8], [0.1, 0.9]], [2, 1, 1], [0.375, 0.625], 1),
        ("vote", [[0.6, 0.4], [0.6, 0.4], [0, 1]], None, [2 / 3, 1 / 3], 0),
        ("vote", [[0.6, 0.4], [0.6, 0.4], [0, 1]], [1, 1, 3], [0.4, 0.6], 1),
        # A tie of votes goes to the higher mean …
        ("vote", [[0.6, 0.4], [0.3, 0.7]], None, [0.5, 0.5], 1),
        # … a weighted one, here 0.1 x 0.6 + 0.2 x 0.6 + 0.3 x 0.3 = 0.27 against 0.33; and 0.1 + 0.2 ties with 0.3 …
        ("vote", [[0.6, 0.4], [0.6, 0.4], [0.3, 0.7]], [0.1, 0.2, 0.3], [0.5, 0.5], 1),
        ("vote", [[0.9, 0.1], [0.9, 0.1], [0.3, 0.7]], [0.1, 0.2, 0.3], [0.5, 0.5], 0),
        # … and if the means tie too, to the first class.
        ("vote", [[0.3, 0.7], [0.7, 0.3]], None, [0.5, 0.5], 0),
        # The class of highest mean (0: 0.425) is not among those that tie.
        ("vote", [[0.4, 0.6, 0], [0.4, 0, 0.6], [0.45, 0.55, 0], [0.45, 0, 0.55]], None, [0, 0.5, 0.5], 1),
        # A member that cannot choose votes for the first of its best classes.
        ("vote", [[0.5, 0.5]], None, [1, 0], 0),
        # sqrt(0.8 x 0.5) : sqrt(0.2 x 0.5) = 2 : 1
        ("log_linear", [[0.8, 0.2], [0.5, 0.5]], None, [2 / 3, 1 / 3], 0),
        # 0.8^(3/4) 0.5^(1/4) : 0.2^(3/4) 0.5^(1/4) = 4^(3/4) : 1
        ("log_linear", [[0.8, 0.2], [0.5, 0.5]], [3, 1], [4**0.75 / (4**0.75 + 1), 1 / (4**0.75 + 1)], 0),
        ("log_linear", [[1, 0], [0, 1]], None, [0.5, 0.5], 0),
        # sqrt(1 x 0.1) : sqrt(FLOOR x 0.9): a zero weighs against a class and does not veto it for certain.
        (
            "log_linear",
            [[1, 0], [0.1, 0.9]],
            None,
            [0.1**0.5 / (0.1**0.5 + (FLOOR * 0.9) ** 0.5), (FLOOR * 0.9) ** 0.5 / (0.1**0.5 + (FLOOR * 0.9) ** 0.5)],
            0,
        ),
        ("median", [[0.1, 0.9], [0.2, 0.8], [0.9, 0.1]], None, [0.2, 0.8], 1),
        ("median", [[0.1, 0.9], [0.3, 0.7]], None, [0.2, 0.8], 1),
        ("median", [[0.6, 0.3, 0.1], [0.5, 0.1, 0.4], [0.1, 0.2, 0.7]], None, [5 / 11, 2 / 11, 4 / 11], 0),
        # Every class has two zeros of three: the median is nought everywhere, and the answer knows nothing.
        ("median", [[1, 0, 0], [0, 1, 0], [0, 0, 1]], None, [1 / 3, 1 / 3, 1 / 3], 0),
        ("max", [[0.6, 0.4], [0.3, 0.7]], None, [6 / 13, 7 / 13], 1),
        ("max", [[1, 0, 0], [0, 0, 1]], None, [0.5, 0, 0.5], 0),
    ],
)
def test_a_strategy_answers_what_arithmetic_says(
    strategy: str,
    members: list[list[float]],
    weights: list[float] | None,
    probabilities: list[float],
    label: int,
) -> None:
    fused = fuse(strategy, one_row(*members), weights=None if weights is None else np.array(weights))
    assert_allclose(fused.probabilities, [probabilities], atol=1e-6)
    assert_array_equal(fused.labels, [label])


@pytest.mark.parametrize("tenths", [(1, 2), (2, 5), (2, 7), (3, 4), (3, 6), (4, 6)])
def test_weights_that_add_up_in_decimals_tie_though_their_floats_do_not(tenths: tuple[int, int]) -> None:
    one, two = tenths
    weights = np.array([one, two, one + two, 1]) / 10  # two members against one, and a fourth that has its own opinion
    surer_of_the_second = one_row([0.6, 0.4, 0], [0.6, 0.4, 0], [0.1, 0.9, 0], [0.1, 0.1, 0.8])
    assert_array_equal(fuse("vote", surer_of_the_second, weights=weights).labels, [1])
    surer_of_the_first = one_row([0.9, 0.1, 0], [0.9, 0.1, 0], [0.4, 0.6, 0], [0.1, 0.1, 0.8])
    assert_array_equal(fuse("vote", surer_of_the_first, weights=weights).labels, [0])


@pytest.mark.parametrize("n_members", [2, 6, 10, 100, 256])
def test_half_the_votes_against_half_is_a_tie_whatever_the_number_and_the_order(n_members: int) -> None:
    shuffled = np.random.default_rng(0)
    for _ in range(20):
        votes = shuffled.permutation(n_members) % 2
        ballots = np.where(votes[:, None, None] == 0, floats([0.6, 0.4]), floats([0.3, 0.7]))
        assert_array_equal(fuse("vote", ballots).labels, [1])


def test_log_linear_combines_calibrated_probabilities() -> None:
    # At temperature 2, (0.8, 0.2) becomes sqrt(0.8) : sqrt(0.2) = 2 : 1, and (0.5, 0.5) stays what it is.
    probabilities = one_row([0.8, 0.2], [0.5, 0.5])
    fused = fuse("log_linear", probabilities, temperatures=floats([2, 1]))
    assert_allclose(fused.probabilities, [[2**0.5 / (2**0.5 + 1), 1 / (2**0.5 + 1)]], atol=1e-6)


@pytest.mark.parametrize("strategy", [name for name, rule in STRATEGIES.items() if not rule.calibrated])
def test_a_strategy_that_is_not_calibrated_is_deaf_to_temperatures(strategy: str) -> None:
    probabilities = one_row([0.8, 0.2], [0.1, 0.9])
    deaf = fuse(strategy, probabilities, temperatures=floats([20, 0.1]))
    assert_array_equal(deaf.probabilities, fuse(strategy, probabilities).probabilities)


@every_strategy
def test_a_batch_of_no_rows_has_an_answer_of_no_rows(strategy: str) -> None:
    fused = fuse(strategy, np.empty((3, 0, 4), dtype=np.float32))
    assert fused.probabilities.shape == (0, 4)
    assert fused.labels.shape == (0,)


@pytest.mark.parametrize(("task", "strategy"), [(task, name) for task, pools in BY_TASK.items() for name in pools])
def test_every_strategy_says_in_a_line_what_it_does(task: Task, strategy: str) -> None:
    assert BY_TASK[task][strategy].summary.endswith((".", ".)", ";"))


@pytest.mark.parametrize(
    ("strategy", "task"),
    [("oracle", "classification"), ("mean", "classification"), ("vote", "regression"), ("stacking", "regression")],
)
def test_a_strategy_that_is_not_known_is_an_error(strategy: str, task: Task) -> None:
    with pytest.raises(KeyError):
        fuse(strategy, one_row([0.8, 0.2]), task=task)


# Stacking -----------------------------------------------------------------------------------------------------------


def test_stacking_is_what_the_final_estimator_makes_of_all_answers() -> None:
    asked = []

    def final_estimator(answers: Floats) -> Floats:
        asked.append(answers)
        return np.array([[0.25, 0.75], [0.5, 0.5]], dtype=np.float32)

    answers = np.array([[[0.8, 0.2], [0.9, 0.1]], [[0.6, 0.4], [1, 0]]], dtype=np.float32)
    fused = fusion.fuse("stacking", answers, final_estimator=final_estimator, weights=np.array([1, 0]))
    assert_array_equal(fused.probabilities, [[0.25, 0.75], [0.5, 0.5]])
    assert_array_equal(fused.labels, [1, 0])
    (read,) = asked
    assert_array_equal(read, answers)


def test_what_a_final_estimator_leaves_off_a_sum_of_one_is_made_up() -> None:
    fused = fusion.fuse("stacking", one_row([0.8, 0.2]), final_estimator=lambda answers: answers[0] * np.float32(0.999))
    assert_allclose(fused.probabilities, [[0.8, 0.2]], atol=1e-6)


def test_stacking_without_a_final_estimator_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"^strategy 'stacking' expects a final estimator, got none$"):
        fusion.fuse("stacking", one_row([0.8, 0.2]))


@every_pool
def test_a_pool_does_not_ask_the_final_estimator(strategy: str) -> None:
    def final_estimator(answers: Floats) -> Floats:
        raise AssertionError("nobody should ask")

    fusion.fuse(strategy, one_row([0.8, 0.2], [0.1, 0.9]), final_estimator=final_estimator)


# Regression ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("strategy", "members", "weights", "values"),
    [
        ("mean", [[1], [2], [6]], None, [3]),
        ("mean", [[1, -10], [2, 20]], None, [1.5, 5]),
        ("mean", [[1e30], [3e30]], None, [2e30]),
        ("weighted", [[1], [2], [6]], [3, 2, 1], [13 / 6]),
        ("weighted", [[1, 0], [5, 8]], [3, 1], [2, 2]),
        ("weighted", [[1], [5]], [0, 2], [5]),
        ("weighted", [[1], [5]], None, [3]),
        ("median", [[1], [2], [60]], None, [2]),
        ("median", [[1], [2], [6], [60]], None, [4]),
        ("median", [[1, 9], [2, -9], [60, 0]], None, [2, 0]),
    ],
)
def test_a_regression_answers_what_arithmetic_says(
    strategy: str, members: list[list[float]], weights: list[float] | None, values: list[float]
) -> None:
    given_weights = None if weights is None else np.array(weights, dtype=np.float64)
    fused = fuse(strategy, one_row(*members), weights=given_weights, task="regression")
    assert_allclose(fused.probabilities, [values], rtol=1e-6)
    assert fused.probabilities.dtype == np.float32
    assert_array_equal(fused.labels, [0])
    assert fused.labels.dtype == np.intp


@every_regression
def test_a_regression_of_no_rows_has_an_answer_of_no_rows(strategy: str) -> None:
    fused = fuse(strategy, np.empty((3, 0, 2), dtype=np.float32), task="regression")
    assert fused.probabilities.shape == (0, 2)
    assert fused.labels.shape == (0,)


@pytest.mark.parametrize(
    ("strategy", "takes", "reads"),
    [
        ("average", "equal", "members"),
        ("weighted", "fitted", "members"),
        ("vote", "optional", "members"),
        ("log_linear", "fitted", "calibrated"),
        ("median", "equal", "members"),
        ("max", "equal", "members"),
        ("stacking", "equal", "final_estimator"),
    ],
)
def test_a_strategy_says_which_weights_it_takes_and_what_it_reads(strategy: str, takes: str, reads: str) -> None:
    rule = STRATEGIES[strategy]
    assert (rule.weights, rule.reads, rule.calibrated) == (takes, reads, reads == "calibrated")


# Weights ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weights", "shares"),
    [
        ([1], [1]),
        ([3, 1], [0.75, 0.25]),
        ([0, 2, 0], [0, 1, 0]),
        ([5e-324, 5e-324], [0.5, 0.5]),
        ([5e-324, 1.5e-323], [0.25, 0.75]),
        ([1e308, 1e308, 1e308], [1 / 3, 1 / 3, 1 / 3]),
        ([1.7e308, 5e-324], [1, 0]),
        ([5e-324, 0], [1, 0]),
        ([1e308, 1], [1, 0]),
        ([1] * 256, [1 / 256] * 256),
    ],
)
def test_weights_of_any_scale_become_shares(weights: list[float], shares: list[float]) -> None:
    normalised = normalise_weights(weights)
    assert normalised.dtype == np.float32
    assert_allclose(normalised, shares, rtol=1e-6)


@pytest.mark.parametrize("shape", [(), (1,), (1, 1), (3,), (3, 1), (1, 3), (3, 2), (0, 2)])
@pytest.mark.parametrize("n_members", [1, 2, 3, 9, 64])
def test_a_weighted_sum_is_the_same_for_a_number_alone_and_among_others(n_members: int, shape: tuple[int, ...]) -> None:
    """To the bit, whatever the shape and however the numbers lie in memory."""
    rng = np.random.default_rng(n_members)
    weights, values = normalise_weights(rng.random(n_members)), rng.normal(0, 9, (n_members, *shape)).astype(np.float32)
    summed = weighted_sum(weights, values)
    assert summed.dtype == np.float32
    assert summed.shape == shape
    assert_allclose(summed, np.tensordot(weights.astype(np.float64), values, 1), rtol=1e-5, atol=1e-5)
    assert_array_equal(weighted_sum(weights, np.asfortranarray(values)), summed)
    for place in np.ndindex(shape):
        for alone in (values[:, *place], values[:, *place].copy(), values[:, *place].reshape(n_members, 1, 1).copy()):
            assert weighted_sum(weights, alone).item() == summed[place]


# Calibration --------------------------------------------------------------------------------------------------------


def test_calibration_has_a_temperature_for_each_member() -> None:
    calibrated = calibrate(one_row([0.8, 0.2], [0.8, 0.2], [0.8, 0.2]), floats([1, 2, 0.5]))
    assert_allclose(calibrated[:, 0, 0], [0.8, 2 / 3, 16 / 17], atol=1e-6)


# Against scikit-learn -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Case:
    """A VotingClassifier, fitted on half of its rows, and what its own estimators answer."""

    x: NDArray[np.float64]
    voter: Any
    probabilities: Floats


@pytest.fixture(scope="module", params=[load_iris, load_digits], ids=["iris", "digits"])
def case(request: pytest.FixtureRequest) -> Case:
    x, y = request.param(return_X_y=True)
    members = [
        ("linear", make_pipeline(StandardScaler(), LogisticRegression(C=0.1))),
        ("bayes", GaussianNB(var_smoothing=1e-3)),
        ("tree", DecisionTreeClassifier(max_depth=4, random_state=0)),
        ("forest", RandomForestClassifier(8, max_depth=3, random_state=0)),
    ]
    voter = VotingClassifier(members).fit(x[::2], y[::2])
    return Case(x, voter, np.stack([member.predict_proba(x) for member in voter.estimators_]).astype(np.float32))


@pytest.mark.parametrize("weights", [None, [2, 1, 1, 3], [0.1, 0.2, 0.3, 0.0]])
def test_soft_voting_is_scikit_learns(case: Case, weights: list[float] | None) -> None:
    probabilities, voter = case.probabilities, case.voter.set_params(voting="soft", weights=weights)
    strategy = "average" if weights is None else "weighted"
    fused = fuse(strategy, probabilities, weights=None if weights is None else np.array(weights))
    expected = voter.predict_proba(case.x)
    assert_allclose(fused.probabilities, expected, atol=1e-6)
    clear = margin(expected) > 1e-6
    assert clear.mean() > 0.9
    assert_array_equal(fused.labels[clear], voter.predict(case.x)[clear])


@pytest.mark.parametrize("weights", [None, [2, 1, 1, 3], [0.1, 0.2, 0.3, 0.25]])
def test_hard_voting_is_scikit_learns_but_for_ties(case: Case, weights: list[float] | None) -> None:
    probabilities, voter = case.probabilities, case.voter.set_params(voting="hard", weights=weights)
    fused = fuse("vote", probabilities, weights=None if weights is None else np.array(weights))
    votes = voter.transform(case.x)
    assert_array_equal(votes, probabilities.argmax(axis=2).T)
    shares = np.stack([np.average(votes == label, axis=1, weights=weights) for label in voter.classes_], axis=1)
    assert_allclose(fused.probabilities, shares, atol=1e-6)
    clear = margin(shares) > 1e-6
    assert_array_equal(fused.labels[clear], voter.predict(case.x)[clear])
    means = np.average(probabilities, axis=0, weights=weights)
    for row in np.flatnonzero(~clear):
        tied = np.flatnonzero(shares[row] > shares[row].max() - 1e-9)
        assert fused.labels[row] == tied[means[row, tied].argmax()]


@dataclass(frozen=True, slots=True)
class RegressionCase:
    """A VotingRegressor, fitted on half of its rows, and what its own estimators answer."""

    x: NDArray[np.float64]
    voter: Any
    values: Floats


@pytest.fixture(scope="module", params=["diabetes", "friedman"])
def regression_case(request: pytest.FixtureRequest) -> RegressionCase:
    if request.param == "diabetes":
        x, y = load_diabetes(return_X_y=True)
    else:
        x, y = make_friedman1(300, noise=1.0, random_state=0)
    members = [
        ("linear", make_pipeline(StandardScaler(), Ridge(alpha=1.0))),
        ("tree", DecisionTreeRegressor(max_depth=4, random_state=0)),
        ("forest", RandomForestRegressor(8, max_depth=3, random_state=0)),
    ]
    voter = VotingRegressor(members).fit(x[::2], y[::2])
    answers = np.stack([member.predict(x) for member in voter.estimators_])[:, :, None]
    return RegressionCase(x, voter, answers.astype(np.float32))


@pytest.mark.parametrize("weights", [None, [2, 1, 3], [0.1, 0.2, 0.0]])
def test_a_mean_is_scikit_learns(regression_case: RegressionCase, weights: list[float] | None) -> None:
    voter = regression_case.voter.set_params(weights=weights)
    strategy = "mean" if weights is None else "weighted"
    given_weights = None if weights is None else np.array(weights)
    fused = fuse(strategy, regression_case.values, weights=given_weights, task="regression")
    assert_allclose(fused.probabilities[:, 0], voter.predict(regression_case.x), rtol=2e-6)


def test_a_median_is_numpys(regression_case: RegressionCase) -> None:
    values = regression_case.values
    assert_array_equal(fuse("median", values, task="regression").probabilities, np.median(values, axis=0))


def margin(probabilities: NDArray[np.floating]) -> NDArray[np.floating]:
    """`(n_samples,)`: how far the best class lies before the second."""
    ranked = np.sort(probabilities, axis=1)
    return np.asarray(ranked[:, -1] - ranked[:, -2])


# Laws ---------------------------------------------------------------------------------------------------------------


@st.composite
def members_answers(draw: st.DrawFn, *, n_members: int | None = None) -> Floats:
    """`(n_members, n_samples, n_classes)`, of small integers (ties, zeros and certainty are common) or floats."""
    shape = (n_members or draw(st.integers(1, 6)), draw(st.integers(1, 4)), draw(st.integers(2, 4)))
    cells = st.integers(0, 4).map(float) if draw(st.booleans()) else st.floats(0, 1, width=32)
    scores = draw(arrays(np.float64, shape, elements=cells))
    scores[scores.sum(axis=2) < 1e-30] = 1
    return np.asarray(scores / scores.sum(axis=2, keepdims=True), dtype=np.float32)


def numbers_for(probabilities: Floats, elements: st.SearchStrategy[float]) -> st.SearchStrategy[NDArray[np.float64]]:
    return arrays(np.float64, len(probabilities), elements=elements)


def weights_for(probabilities: Floats) -> st.SearchStrategy[NDArray[np.float64]]:
    elements = st.one_of(st.integers(0, 3).map(float), st.floats(0, 1, allow_subnormal=False))
    return numbers_for(probabilities, elements).filter(lambda weights: weights.max() > 1e-3)


def temperatures_for(probabilities: Floats) -> st.SearchStrategy[Floats]:
    return numbers_for(probabilities, st.floats(0.05, 20)).map(lambda values: values.astype(np.float32))


def assert_same(got: Fused, expected: Fused) -> None:
    """Equal to rounding; labels may differ only between classes that rounding alone tells apart."""
    assert_allclose(got.probabilities, expected.probabilities, atol=1e-5)
    for row in np.flatnonzero(got.labels != expected.labels):
        one, other = expected.probabilities[row, [got.labels[row], expected.labels[row]]]
        assert abs(one - other) <= 1e-5


@every_strategy
@laws
@given(data=st.data())
def test_an_answer_is_a_distribution_and_its_label_the_best_class(strategy: str, data: st.DataObject) -> None:
    probabilities = data.draw(members_answers())
    fused = fuse(
        strategy,
        probabilities,
        weights=data.draw(weights_for(probabilities)),
        temperatures=data.draw(temperatures_for(probabilities)),
    )
    _, n_samples, n_classes = probabilities.shape
    assert fused.probabilities.dtype == np.float32
    assert fused.probabilities.shape == (n_samples, n_classes)
    assert fused.labels.dtype == np.intp
    assert fused.labels.shape == (n_samples,)
    assert np.isfinite(fused.probabilities).all()
    assert (fused.probabilities >= 0).all()
    assert_allclose(fused.probabilities.sum(axis=1), 1, atol=1e-5)
    assert ((fused.labels >= 0) & (fused.labels < n_classes)).all()
    of_label = np.take_along_axis(fused.probabilities, fused.labels[:, None], axis=1)[:, 0]
    slack = 1e-5 if strategy in SHARES_OF_VOTES else 0
    assert (of_label >= fused.probabilities.max(axis=1) - slack).all()


@every_pool
@laws
@given(data=st.data())
def test_the_order_of_the_members_does_not_matter(strategy: str, data: st.DataObject) -> None:
    probabilities = data.draw(members_answers())
    weights = data.draw(weights_for(probabilities))
    temperatures = data.draw(temperatures_for(probabilities))
    order = data.draw(st.permutations(range(len(probabilities))))
    assert_same(
        fuse(strategy, probabilities[order], weights=weights[order], temperatures=temperatures[order]),
        fuse(strategy, probabilities, weights=weights, temperatures=temperatures),
    )


@every_strategy
@laws
@given(data=st.data())
def test_the_scale_of_the_weights_does_not_matter(strategy: str, data: st.DataObject) -> None:
    probabilities = data.draw(members_answers())
    weights = data.draw(weights_for(probabilities))
    factor = data.draw(st.sampled_from([1e-280, 1e-30, 0.1, 3, 1e30, 1e300]))
    assert_same(fuse(strategy, probabilities, weights=weights * factor), fuse(strategy, probabilities, weights=weights))


@every_pool
@laws
@given(probabilities=members_answers(n_members=1), temperature=st.floats(0.05, 20))
def test_one_member_alone_is_that_member(strategy: str, probabilities: Floats, temperature: float) -> None:
    temperatures = floats([temperature])
    fused = fuse(strategy, probabilities, temperatures=temperatures)
    own = calibrate(probabilities, temperatures)[0] if STRATEGIES[strategy].calibrated else probabilities[0]
    of_label = np.take_along_axis(own, fused.labels[:, None], axis=1)[:, 0]
    assert_allclose(of_label, own.max(axis=1), atol=1e-6)
    if strategy not in SHARES_OF_VOTES:
        assert_allclose(fused.probabilities, own, atol=2e-6)


@every_pool
@laws
@given(probabilities=members_answers(n_members=1), copies=st.integers(2, 7))
def test_copies_of_one_member_are_that_member(strategy: str, probabilities: Floats, copies: int) -> None:
    assert_same(fuse(strategy, np.repeat(probabilities, copies, axis=0)), fuse(strategy, probabilities))


@every_weighted_strategy
@laws
@given(data=st.data())
def test_a_member_of_no_weight_might_as_well_be_absent(strategy: str, data: st.DataObject) -> None:
    probabilities = data.draw(members_answers())
    weights = data.draw(weights_for(probabilities))
    present = weights > 0
    assume(not present.all())
    assert_same(
        fuse(strategy, probabilities, weights=weights),
        fuse(strategy, probabilities[present], weights=weights[present]),
    )


@every_strategy
@laws
@given(data=st.data())
def test_an_answer_does_not_depend_on_the_rows_beside_it(strategy: str, data: st.DataObject) -> None:
    probabilities = data.draw(members_answers())
    weights = data.draw(weights_for(probabilities))
    temperatures = data.draw(temperatures_for(probabilities))
    order = data.draw(st.permutations(range(probabilities.shape[1])))
    together = fuse(strategy, probabilities, weights=weights, temperatures=temperatures)
    shuffled = fuse(strategy, probabilities[:, order], weights=weights, temperatures=temperatures)
    assert_bitwise(shuffled, Fused(together.probabilities[order], together.labels[order]))


@every_strategy
@pytest.mark.parametrize("n_members", [2, 5, 16])
@pytest.mark.parametrize("n_classes", [2, 3, 10])
def test_an_answer_in_a_slice_of_a_batch_is_the_same_to_the_bit(strategy: str, n_members: int, n_classes: int) -> None:
    rng = np.random.default_rng(n_members * 100 + n_classes)
    probabilities = rng.dirichlet(np.ones(n_classes), (n_members, 37)).astype(np.float32)
    weights, temperatures = rng.random(n_members), rng.uniform(0.5, 2, n_members).astype(np.float32)
    whole = fuse(strategy, probabilities, weights=weights, temperatures=temperatures)
    for size in (1, 2, 3, 8, 17):
        for start in range(37 - size + 1):
            rows = slice(start, start + size)
            part = fuse(strategy, probabilities[:, rows], weights=weights, temperatures=temperatures)
            assert_bitwise(part, Fused(whole.probabilities[rows], whole.labels[rows]))


def assert_bitwise(got: Fused, expected: Fused) -> None:
    assert_array_equal(got.probabilities, expected.probabilities)
    assert_array_equal(got.labels, expected.labels)


@every_strategy
@laws
@given(data=st.data())
def test_what_it_is_given_is_left_as_it_was(strategy: str, data: st.DataObject) -> None:
    probabilities = data.draw(members_answers())
    weights = data.draw(weights_for(probabilities))
    before = probabilities.copy(), weights.copy()
    fuse(strategy, probabilities, weights=weights, temperatures=data.draw(temperatures_for(probabilities)))
    assert_array_equal(probabilities, before[0])
    assert_array_equal(weights, before[1])


@laws
@given(probabilities=members_answers())
def test_calibration_at_temperature_one_changes_nothing_above_the_floor(probabilities: Floats) -> None:
    ones = np.ones(len(probabilities), dtype=np.float32)
    assert_allclose(calibrate(probabilities, ones), probabilities, atol=2e-6)


@laws
@given(data=st.data())
def test_calibration_keeps_the_best_class_best(data: st.DataObject) -> None:
    probabilities = data.draw(members_answers())
    calibrated = calibrate(probabilities, data.draw(temperatures_for(probabilities)))
    best = probabilities.argmax(axis=2)[:, :, None]
    assert_allclose(np.take_along_axis(calibrated, best, axis=2)[:, :, 0], calibrated.max(axis=2), atol=1e-5)
    assert_allclose(calibrated.sum(axis=2), 1, atol=1e-5)


@laws
@given(probabilities=members_answers())
def test_a_high_temperature_makes_all_classes_alike_and_a_low_one_makes_the_best_certain(probabilities: Floats) -> None:
    n_members, _, n_classes = probabilities.shape
    hot = calibrate(probabilities, np.full(n_members, 1e6, dtype=np.float32))
    assert_allclose(hot, 1 / n_classes, atol=1e-4)
    ranked = np.sort(probabilities, axis=2)
    clear = ranked[:, :, -1] > 1.1 * ranked[:, :, -2]
    cold = calibrate(probabilities, np.full(n_members, 1e-3, dtype=np.float32))
    assert_allclose(cold.max(axis=2)[clear], 1, atol=1e-4)


# Laws of regressions ------------------------------------------------------------------------------------------------

numbers = st.one_of(st.integers(-3, 3).map(float), st.floats(-1e6, 1e6, width=32))


@st.composite
def members_values(draw: st.DrawFn, *, n_members: int | None = None) -> Floats:
    """`(n_members, n_samples, n_targets)`, of small integers and of floats."""
    shape = (n_members or draw(st.integers(1, 9)), draw(st.integers(1, 4)), draw(st.integers(1, 3)))
    return draw(arrays(np.float32, shape, elements=numbers))


def regress(strategy: str, values: Floats, weights: NDArray[np.float64] | None = None) -> Floats:
    return fuse(strategy, values, weights=weights, task="regression").probabilities


def assert_close(got: Floats, expected: Floats, values: Floats) -> None:
    """Equal to rounding of numbers as large as the members'."""
    assert_allclose(got, expected, rtol=1e-5, atol=1e-6 * max(1, float(np.abs(values).max())))


@every_regression
@laws
@given(data=st.data())
def test_a_regressions_answer_lies_among_its_members(strategy: str, data: st.DataObject) -> None:
    values = data.draw(members_values())
    weights = data.draw(weights_for(values))
    fused = fuse(strategy, values, weights=weights, task="regression")
    assert fused.probabilities.dtype == np.float32
    assert fused.probabilities.shape == values.shape[1:]
    assert_array_equal(fused.labels, np.zeros(values.shape[1]))
    slack = 1e-6 * max(1, float(np.abs(values).max()))
    voiced = values if strategy != "weighted" else values[weights > 0]
    assert (fused.probabilities >= voiced.min(axis=0) - slack).all()
    assert (fused.probabilities <= voiced.max(axis=0) + slack).all()


@every_regression
@laws
@given(data=st.data())
def test_the_order_of_a_regressions_members_does_not_matter(strategy: str, data: st.DataObject) -> None:
    values = data.draw(members_values())
    weights = data.draw(weights_for(values))
    order = data.draw(st.permutations(range(len(values))))
    assert_close(regress(strategy, values[order], weights[order]), regress(strategy, values, weights), values)


@every_regression
@laws
@given(data=st.data())
def test_the_scale_of_a_regressions_weights_does_not_matter(strategy: str, data: st.DataObject) -> None:
    values = data.draw(members_values())
    weights = data.draw(weights_for(values))
    factor = data.draw(st.sampled_from([1e-280, 1e-30, 0.1, 3, 1e30, 1e300]))
    assert_close(regress(strategy, values, weights * factor), regress(strategy, values, weights), values)


@every_regression
@laws
@given(values=members_values(n_members=1), copies=st.integers(1, 7))
def test_a_regressions_member_alone_or_copied_is_that_member(strategy: str, values: Floats, copies: int) -> None:
    assert_close(regress(strategy, np.repeat(values, copies, axis=0)), values[0], values)
    if copies == 1:
        assert_array_equal(regress(strategy, values), values[0])


@pytest.mark.parametrize("strategy", [name for name, rule in REGRESSION.items() if rule.weights != "equal"])
@laws
@given(data=st.data())
def test_a_regressions_member_of_no_weight_might_as_well_be_absent(strategy: str, data: st.DataObject) -> None:
    values = data.draw(members_values())
    weights = data.draw(weights_for(values))
    present = weights > 0
    assume(not present.all())
    assert_close(regress(strategy, values, weights), regress(strategy, values[present], weights[present]), values)


@every_regression
@laws
@given(data=st.data())
def test_a_regression_in_another_unit_is_answered_in_that_unit(strategy: str, data: st.DataObject) -> None:
    values = data.draw(members_values())
    weights = data.draw(weights_for(values))
    factor, shift = (np.float32(data.draw(st.sampled_from([-2, 0.5, 1, 10]))) for _ in range(2))
    moved = values * factor + shift
    assert_close(regress(strategy, moved, weights), regress(strategy, values, weights) * factor + shift, moved)


@every_regression
@laws
@given(data=st.data())
def test_a_regressions_answer_does_not_depend_on_the_rows_beside_it(strategy: str, data: st.DataObject) -> None:
    values = data.draw(members_values())
    weights = data.draw(weights_for(values))
    together = regress(strategy, values, weights)
    for row in range(values.shape[1]):
        assert_array_equal(regress(strategy, values[:, [row]], weights), together[[row]])
        assert_array_equal(regress(strategy, values[:, row : row + 1], weights), together[[row]])


@every_regression
@pytest.mark.parametrize("n_members", [2, 5, 16])
@pytest.mark.parametrize("n_targets", [1, 2, 10])
def test_a_regressions_answer_in_a_slice_of_a_batch_is_the_same_to_the_bit(
    strategy: str, n_members: int, n_targets: int
) -> None:
    rng = np.random.default_rng(n_members * 100 + n_targets)
    values, weights = rng.normal(0, 100, (n_members, 37, n_targets)).astype(np.float32), rng.random(n_members)
    whole = regress(strategy, values, weights)
    for size in (1, 2, 3, 8, 17):
        for start in range(37 - size + 1):
            rows = slice(start, start + size)
            for part in (values[:, rows], values[:, rows].copy()):
                assert_array_equal(regress(strategy, part, weights), whole[rows])


@every_regression
@laws
@given(data=st.data())
def test_what_a_regression_is_given_is_left_as_it_was(strategy: str, data: st.DataObject) -> None:
    values = data.draw(members_values())
    weights = data.draw(weights_for(values))
    before = values.copy(), weights.copy()
    regress(strategy, values, weights)
    assert_array_equal(values, before[0])
    assert_array_equal(weights, before[1])
