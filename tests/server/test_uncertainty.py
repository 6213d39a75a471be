import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from server import fusion
from server.fusion import STRATEGIES, Fused, normalise_weights
from server.uncertainty import entropy, measure, spread
from tests import tiny

Floats = NDArray[np.float32]
every_strategy = pytest.mark.parametrize("strategy", STRATEGIES)
laws = settings(deadline=None, derandomize=True, max_examples=30)


def floats(values: Sequence[float] | Sequence[Sequence[float]]) -> Floats:
    return np.array(values, dtype=np.float32)


def one_row(*members: list[float]) -> Floats:
    """`(n_members, 1, n_classes)`."""
    return np.array(members, dtype=np.float32)[:, None, :]


def fuse(strategy: str, probabilities: Floats, *, weights: Floats | None = None) -> Fused:
    """The server's, with a final estimator for a strategy that wants one."""
    return fusion.fuse(strategy, probabilities, weights=weights, final_estimator=tiny.stacked_answers)


def plogp(*probabilities: float) -> float:
    return -sum(p * math.log(p) for p in probabilities if p)


@pytest.mark.parametrize(
    ("probabilities", "nats"),
    [
        ([1, 0], 0),
        ([0.5, 0.5], math.log(2)),
        ([0.25, 0.25, 0.25, 0.25], math.log(4)),
        ([0.5, 0.25, 0.25], 1.5 * math.log(2)),
        ([0.9, 0.1, 0], plogp(0.9, 0.1)),
    ],
)
def test_entropy_is_shannons_in_nats(probabilities: list[float], nats: float) -> None:
    assert_allclose(entropy(np.array([probabilities], dtype=np.float32)), [nats], atol=1e-6)


def test_certainty_has_an_entropy_of_plain_zero() -> None:
    (nought,) = entropy(floats([[0, 1, 0]]))
    assert str(nought) == "0.0"


def test_an_entropy_is_one_figure_a_row() -> None:
    assert entropy(np.full((2, 5, 3), 1 / 3, dtype=np.float32)).shape == (2, 5)


@pytest.mark.parametrize(
    ("members", "weights", "information", "disagreement"),
    [
        # Each is certain of another class: all the doubt is from their differing.
        ([[1, 0], [0, 1]], [0.5, 0.5], math.log(2), 0.5),
        ([[1, 0], [0, 1]], [0.75, 0.25], plogp(0.75, 0.25), 0.5),
        # Each doubts as much as can be, and they agree: none of the doubt is from their differing.
        ([[0.5, 0.5], [0.5, 0.5]], [0.5, 0.5], 0, 0),
        ([[0.8, 0.2], [0.8, 0.2], [0.8, 0.2]], [0.2, 0.3, 0.5], 0, 0),
        ([[0.8, 0.2], [0.4, 0.6]], [0.5, 0.5], plogp(0.6, 0.4) - (plogp(0.8, 0.2) + plogp(0.4, 0.6)) / 2, 0.5),
        # A member of no weight has no part in the information, and counts as one that disagrees.
        ([[0.9, 0.1], [0.9, 0.1], [0, 1]], [0.5, 0.5, 0], 0, 1 / 3),
    ],
)
def test_a_measure_is_what_arithmetic_says(
    members: list[list[float]], weights: list[float], information: float, disagreement: float
) -> None:
    probabilities, shares = one_row(*members), np.array(weights, dtype=np.float32)
    fused = fuse("weighted", probabilities, weights=shares)
    measured = measure(probabilities, shares, fused)
    assert_allclose(measured.entropy, [plogp(*fused.probabilities[0].tolist())], atol=1e-6)
    assert_allclose(measured.mutual_information, [information], atol=1e-6)
    assert_allclose(measured.disagreement, [disagreement], atol=1e-6)


@pytest.mark.parametrize(
    ("members", "votes", "divergence"),
    [
        ([[1, 0], [0, 1]], plogp(0.5, 0.5), math.log(2)),
        ([[1, 0, 0], [0, 1, 0], [0, 0, 1]], math.log(3), math.log(3)),
        ([[0.8, 0.2], [0.8, 0.2], [0.8, 0.2]], 0, 0),
        # They say the same with more and with less doubt: nothing of it shows in their votes.
        ([[0.9, 0.1], [0.6, 0.4]], 0, plogp(0.75, 0.25) - (plogp(0.9, 0.1) + plogp(0.6, 0.4)) / 2),
        # Two votes against one.
        (
            [[0.9, 0.1], [0.8, 0.2], [0.1, 0.9]],
            plogp(2 / 3, 1 / 3),
            plogp(0.6, 0.4) - (2 * plogp(0.9, 0.1) + plogp(0.8, 0.2)) / 3,
        ),
        # Who cannot choose votes for the first of the best classes.
        ([[0.5, 0.5], [0.2, 0.8]], plogp(0.5, 0.5), plogp(0.35, 0.65) - (plogp(0.5, 0.5) + plogp(0.2, 0.8)) / 2),
        ([[0.3, 0.7]], 0, 0),
    ],
)
@pytest.mark.parametrize("first", [0.0, 0.3, 1.0])
def test_votes_and_divergence_are_what_arithmetic_says_whatever_the_weights(
    members: list[list[float]], votes: float, divergence: float, first: float
) -> None:
    probabilities = one_row(*members)
    others = len(members) - 1
    shares = floats([first if others else 1.0] + [(1 - first) / others for _ in range(others)])
    measured = measure(probabilities, shares, fuse("weighted", probabilities, weights=shares))
    assert_allclose(measured.vote_entropy, [votes], atol=1e-6)
    assert_allclose(measured.jensen_shannon, [divergence], atol=1e-6)


def test_entropy_is_of_the_answer_and_not_of_the_mean() -> None:
    probabilities, shares = one_row([0.6, 0.4], [0.6, 0.4]), floats([0.5, 0.5])
    assert_array_equal(measure(probabilities, shares, fuse("vote", probabilities)).entropy, [0])


def test_rows_are_measured_apart() -> None:
    probabilities = np.concatenate([one_row([1, 0], [0, 1]), one_row([1, 0], [1, 0])], axis=1)
    shares = floats([0.5, 0.5])
    measured = measure(probabilities, shares, fuse("average", probabilities))
    assert_allclose(measured.entropy, [math.log(2), 0], atol=1e-6)
    assert_allclose(measured.mutual_information, [math.log(2), 0], atol=1e-6)
    assert_allclose(measured.disagreement, [0.5, 0], atol=1e-6)
    assert_allclose(measured.vote_entropy, [math.log(2), 0], atol=1e-6)
    assert_allclose(measured.jensen_shannon, [math.log(2), 0], atol=1e-6)


@st.composite
def members_answers(draw: st.DrawFn) -> Floats:
    shape = (draw(st.integers(1, 5)), draw(st.integers(1, 4)), draw(st.integers(2, 5)))
    cells = st.integers(0, 3).map(float) if draw(st.booleans()) else st.floats(0, 1, width=32)
    scores = draw(arrays(np.float64, shape, elements=cells))
    scores[scores.sum(axis=2) < 1e-30] = 1
    return np.asarray(scores / scores.sum(axis=2, keepdims=True), dtype=np.float32)


@every_strategy
@laws
@given(data=st.data())
def test_every_figure_is_in_its_range(strategy: str, data: st.DataObject) -> None:
    probabilities = data.draw(members_answers())
    n_members, n_samples, n_classes = probabilities.shape
    raw = data.draw(st.lists(st.floats(0.01, 1), min_size=n_members, max_size=n_members))
    weights = normalise_weights(raw)
    measured = measure(probabilities, weights, fuse(strategy, probabilities, weights=weights))
    for name in type(measured).__slots__:
        figure = getattr(measured, name)
        assert figure.shape == (n_samples,)
        assert figure.dtype == np.float32
        assert (figure >= 0).all()
    assert (measured.entropy <= math.log(n_classes) + 1e-6).all()
    assert (measured.mutual_information <= math.log(min(n_classes, n_members)) + 1e-5).all()
    assert (measured.disagreement <= 1).all()
    assert (measured.vote_entropy <= math.log(min(n_classes, n_members)) + 1e-6).all()
    assert (measured.jensen_shannon <= math.log(min(n_classes, n_members)) + 1e-5).all()


@every_strategy
@laws
@given(probabilities=members_answers(), copies=st.integers(1, 5))
def test_members_that_agree_have_nothing_to_tell_each_other(strategy: str, probabilities: Floats, copies: int) -> None:
    same = np.repeat(probabilities[:1], copies, axis=0)
    weights = normalise_weights(np.ones(copies))
    measured = measure(same, weights, fuse(strategy, same, weights=weights))
    assert_allclose(measured.mutual_information, 0, atol=1e-6)
    assert_allclose(measured.jensen_shannon, 0, atol=1e-6)
    assert_array_equal(measured.vote_entropy, np.zeros(probabilities.shape[1]))


@laws
@given(probabilities=members_answers())
def test_of_equal_weights_the_divergence_is_the_mutual_information(probabilities: Floats) -> None:
    weights = normalise_weights(np.ones(len(probabilities)))
    measured = measure(probabilities, weights, fuse("average", probabilities))
    assert_array_equal(measured.jensen_shannon, measured.mutual_information)


@laws
@given(probabilities=members_answers())
def test_votes_have_no_entropy_just_where_all_have_the_same_best_class(probabilities: Floats) -> None:
    weights = normalise_weights(np.ones(len(probabilities)))
    measured = measure(probabilities, weights, fuse("vote", probabilities))
    votes = probabilities.argmax(axis=2)
    assert_array_equal(measured.vote_entropy == 0, (votes == votes[0]).all(axis=0))
    # Nobody then disagrees with their label; and the shares of equal votes have this entropy.
    assert_array_equal(measured.vote_entropy == 0, measured.disagreement == 0)
    assert_allclose(measured.vote_entropy, measured.entropy, atol=1e-6)


@pytest.mark.parametrize("n_members", [1, 10, 11, 12, 49, 256])
def test_votes_of_one_mind_have_no_entropy_however_many_they_are(n_members: int) -> None:
    probabilities = np.repeat(one_row([0.2, 0.5, 0.3]), n_members, axis=0)
    weights = normalise_weights(np.ones(n_members))
    (nought,) = measure(probabilities, weights, fuse("average", probabilities)).vote_entropy
    assert str(nought) == "0.0"


@laws
@given(data=st.data())
def test_neither_votes_nor_divergence_hear_the_weights_or_the_order(data: st.DataObject) -> None:
    probabilities = data.draw(members_answers())
    n_members = len(probabilities)
    weights = normalise_weights(data.draw(st.lists(st.floats(0.01, 1), min_size=n_members, max_size=n_members)))
    order = data.draw(st.permutations(range(n_members)))
    fused = fuse("average", probabilities)
    equal = measure(probabilities, normalise_weights(np.ones(n_members)), fused)
    other = measure(probabilities[order], weights, fused)
    assert_allclose(other.vote_entropy, equal.vote_entropy, atol=1e-6)
    assert_allclose(other.jensen_shannon, equal.jensen_shannon, atol=1e-6)


@laws
@given(probabilities=members_answers(), data=st.data())
def test_a_measure_does_not_depend_on_the_rows_beside_it(probabilities: Floats, data: st.DataObject) -> None:
    weights = normalise_weights(np.arange(1.0, len(probabilities) + 1))
    fused = fuse("weighted", probabilities, weights=weights)
    together = measure(probabilities, weights, fused)
    row = data.draw(st.integers(0, probabilities.shape[1] - 1))
    alone = measure(probabilities[:, [row]], weights, Fused(fused.probabilities[[row]], fused.labels[[row]]))
    assert_array_equal(alone.entropy, together.entropy[[row]])
    assert_array_equal(alone.mutual_information, together.mutual_information[[row]])
    assert_array_equal(alone.disagreement, together.disagreement[[row]])
    assert_array_equal(alone.vote_entropy, together.vote_entropy[[row]])
    assert_array_equal(alone.jensen_shannon, together.jensen_shannon[[row]])


# Of a regression ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("members", "weights", "deviations"),
    [
        ([[1], [3]], [0.5, 0.5], [1]),
        ([[1, 10], [3, 10]], [0.5, 0.5], [1, 0]),
        # The mean is 2.5: a quarter of 1.5 squared, three quarters of 0.5 squared.
        ([[1], [3]], [0.25, 0.75], [0.75**0.5]),
        ([[1], [3], [999]], [0.5, 0.5, 0], [1]),
        ([[1], [3]], [1, 0], [0]),
        ([[7, -7]], [1], [0, 0]),
        ([[1e6], [1e6 + 2]], [0.5, 0.5], [1]),
        ([[-5], [0], [5]], [1 / 3, 1 / 3, 1 / 3], [(50 / 3) ** 0.5]),
    ],
)
def test_a_spread_is_the_weighted_standard_deviation(
    members: list[list[float]], weights: list[float], deviations: list[float]
) -> None:
    measured = spread(one_row(*members), floats(weights)).spread
    assert measured.dtype == np.float32
    assert_allclose(measured, [deviations], atol=1e-6, rtol=1e-6)


numbers = st.one_of(st.integers(-3, 3).map(float), st.floats(-1e6, 1e6, width=32))


@st.composite
def members_values(draw: st.DrawFn) -> Floats:
    shape = (draw(st.integers(1, 9)), draw(st.integers(1, 4)), draw(st.integers(1, 3)))
    return draw(arrays(np.float32, shape, elements=numbers))


def weights_for(values: Floats) -> st.SearchStrategy[Floats]:
    return st.lists(st.floats(0.01, 1), min_size=len(values), max_size=len(values)).map(normalise_weights)


@laws
@given(data=st.data())
def test_a_spread_is_nought_just_where_the_members_are_equal(data: st.DataObject) -> None:
    values = data.draw(members_values())
    weights = data.draw(weights_for(values))
    same = data.draw(st.booleans())
    if same:
        values = np.repeat(values[:1], len(values), axis=0)
    measured = spread(values, weights).spread
    assert measured.shape == values.shape[1:]
    assert np.isfinite(measured).all()
    assert_array_equal(measured[(values == values[0]).all(axis=0)], 0)
    apart = np.ptp(values, axis=0)
    assert (measured[apart > 1e-3] > 0).all()
    assert (measured <= apart / 2 * (1 + 1e-5)).all()


@laws
@given(data=st.data())
def test_a_spread_is_numpys_and_deaf_to_the_order(data: st.DataObject) -> None:
    values = data.draw(members_values())
    weights = data.draw(weights_for(values))
    exact = values.astype(np.float64)
    mean = np.average(exact, axis=0, weights=weights)
    expected = np.sqrt(np.average((exact - mean) ** 2, axis=0, weights=weights))
    slack = 1e-6 * max(1, float(np.abs(values).max()))
    assert_allclose(spread(values, weights).spread, expected, rtol=1e-4, atol=slack)
    order = data.draw(st.permutations(range(len(values))))
    assert_allclose(spread(values[order], weights[order]).spread, expected, rtol=1e-4, atol=slack)


@laws
@given(data=st.data())
def test_a_spread_does_not_depend_on_the_rows_beside_it(data: st.DataObject) -> None:
    values = data.draw(members_values())
    weights = data.draw(weights_for(values))
    together = spread(values, weights).spread
    for row in range(values.shape[1]):
        assert_array_equal(spread(values[:, [row]], weights).spread, together[[row]])
        assert_array_equal(spread(values[:, row : row + 1], weights).spread, together[[row]])
