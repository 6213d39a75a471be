import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from server.fusion import STRATEGIES, Fused, fuse, normalise_weights
from server.uncertainty import entropy, measure

Floats = NDArray[np.float32]
every_strategy = pytest.mark.parametrize("strategy", STRATEGIES)
laws = settings(deadline=None, derandomize=True, max_examples=30)


def floats(values: Sequence[float] | Sequence[Sequence[float]]) -> Floats:
    return np.array(values, dtype=np.float32)


def one_row(*members: list[float]) -> Floats:
    """`(n_members, 1, n_classes)`."""
    return np.array(members, dtype=np.float32)[:, None, :]


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
    for figure in (measured.entropy, measured.mutual_information, measured.disagreement):
        assert figure.shape == (n_samples,)
        assert figure.dtype == np.float32
        assert (figure >= 0).all()
    assert (measured.entropy <= math.log(n_classes) + 1e-6).all()
    assert (measured.mutual_information <= math.log(min(n_classes, n_members)) + 1e-5).all()
    assert (measured.disagreement <= 1).all()


@every_strategy
@laws
@given(probabilities=members_answers(), copies=st.integers(1, 5))
def test_members_that_agree_have_nothing_to_tell_each_other(strategy: str, probabilities: Floats, copies: int) -> None:
    same = np.repeat(probabilities[:1], copies, axis=0)
    weights = normalise_weights(np.ones(copies))
    measured = measure(same, weights, fuse(strategy, same, weights=weights))
    assert_allclose(measured.mutual_information, 0, atol=1e-6)


@laws
@given(probabilities=members_answers(), data=st.data())
def test_a_measure_does_not_depend_on_the_rows_beside_it(probabilities: Floats, data: st.DataObject) -> None:
    weights = normalise_weights(np.arange(1.0, len(probabilities) + 1))
    fused = fuse("weighted", probabilities, weights=weights)
    together = measure(probabilities, weights, fused)
    row = data.draw(st.integers(0, probabilities.shape[1] - 1))
    alone = measure(probabilities[:, [row]], weights, Fused(fused.probabilities[[row]], fused.labels[[row]]))
    assert_array_equal(alone.entropy, together.entropy[[row]])
    assert_allclose(alone.mutual_information, together.mutual_information[[row]], atol=1e-6)
    assert_array_equal(alone.disagreement, together.disagreement[[row]])
