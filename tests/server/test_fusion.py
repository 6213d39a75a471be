"""Strategies against arithmetic done by hand, against scikit-learn, and against the laws that every fusion obeys.

The laws run over `STRATEGIES`: a strategy that is added there is tested without another line here.
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
from sklearn.datasets import load_digits, load_iris
from sklearn.ensemble import RandomForestClassifier, VotingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from server.fusion import FLOOR, STRATEGIES, Fused, calibrate, fuse, normalise_weights

SHARES_OF_VOTES = {"vote"}
"""Strategies whose probabilities are not those of one member when there is but one."""

Floats = NDArray[np.float32]
every_strategy = pytest.mark.parametrize("strategy", STRATEGIES)
every_weighted_strategy = pytest.mark.parametrize(
    "strategy", [name for name, rule in STRATEGIES.items() if rule.weights != "equal"]
)
laws = settings(deadline=None, derandomize=True, max_examples=25)


def floats(values: Sequence[float]) -> Floats:
    return np.array(values, dtype=np.float32)


def one_row(*members: Sequence[float]) -> Floats:
    """`(n_members, 1, n_classes)`."""
    return np.array(members, dtype=np.float32)[:, None, :]


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


@every_strategy
def test_every_strategy_says_in_a_line_what_it_does(strategy: str) -> None:
    assert STRATEGIES[strategy].summary.endswith((".", ".)", ";"))


def test_a_strategy_that_is_not_known_is_an_error() -> None:
    with pytest.raises(KeyError):
        fuse("oracle", one_row([0.8, 0.2]))


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


@every_strategy
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


@every_strategy
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


@every_strategy
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
