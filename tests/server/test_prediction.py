"""What a prediction tells beside its answer, against arithmetic done by hand."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from server import uncertainty
from server.ensemble import Ensemble
from server.fusion import REGRESSION, STRATEGIES, Fused, fuse
from server.plan import Options, make_plan
from server.predicting import Ask, drive
from server.prediction import Group, Prediction, Together, conclude, conclude_together, confidence, fuse_by, rule_of
from server.uncertainty import Spread, Uncertainty
from tests import tiny

Floats = NDArray[np.float32]
NAN = float("nan")
POOLS = [name for name in STRATEGIES if name != "stacking"]
TWO_STAGES = (("m1",), ("m2", "m3"))
laws = settings(deadline=None, derandomize=True, max_examples=25)


def floats(*members: Sequence[Sequence[float]]) -> Floats:
    """`(n_members, n_rows, n_outputs)`"""
    return np.array(members, dtype=np.float32)


def predicted(ensemble: Ensemble, answers: Floats, **options: Any) -> Prediction:
    def answer(ask: Ask) -> Floats:
        chosen = answers[list(ask.members)]
        return chosen if ask.rows is None else chosen[:, ask.rows]

    return drive(ensemble, make_plan(ensemble, Options(**options)), answers.shape[1], answer)


def by_request(found: Sequence[Together]) -> list[Prediction]:
    numbered = dict(pair for together in found for pair in together.apart())
    return [numbered[index] for index in range(len(numbered))]


def contributions(ensemble: Ensemble, answers: Floats, **options: Any) -> Floats:
    prediction = predicted(ensemble, answers, contributions=True, **options)
    assert prediction.contributions is not None
    assert prediction.contributions.dtype == np.float32
    assert prediction.contributions.shape == prediction.member_probabilities.shape
    return prediction.contributions


def random_answers(n_members: int, n_rows: int, n_outputs: int = 3, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).dirichlet(np.ones(n_outputs), (n_members, n_rows)).astype(np.float32)


# Contributions ------------------------------------------------------------------------------------------------------

FOUR = floats([[0.8, 0.2]], [[0.4, 0.6]], [[0.9, 0.1]], [[0.1, 0.9]])


@pytest.mark.parametrize(
    ("options", "first_class"),
    [
        # Of (0.8, 0.4) the mean is 0.6; without the first it is 0.4, without the second 0.8.
        ({"members": ["m1", "m2"]}, [0.2, -0.2]),
        # Of (0.8, 0.4, 0.9) the mean is 0.7, without each 0.65, 0.85 and 0.6.
        ({"members": ["m1", "m2", "m3"]}, [0.05, -0.15, 0.1]),
        # Three quarters of 0.8 and a quarter of 0.4 are 0.7.
        ({"strategy": "weighted", "members": ["m1", "m2"], "weights": {"m1": 3, "m2": 1}}, [0.3, -0.1]),
        # Half of 0.8 and a quarter of 0.4 and of 0.9 are 0.725; without each 0.65, 2.5 / 3 and 2 / 3.
        (
            {"strategy": "weighted", "members": ["m1", "m2", "m3"], "weights": {"m1": 2, "m2": 1, "m3": 1}},
            [0.075, 0.725 - 2.5 / 3, 0.725 - 2 / 3],
        ),
        # A member of no weight moves nothing; without the only one that has any, the others count alike.
        (
            {"strategy": "weighted", "members": ["m1", "m2", "m3"], "weights": {"m1": 1, "m2": 0, "m3": 0}},
            [0.15, 0, 0],
        ),
        # Two votes of three; without either of the two, one of two; without the third, all.
        ({"strategy": "vote", "members": ["m1", "m2", "m3"]}, [1 / 6, -1 / 3, 1 / 6]),
        # The median of (0.4, 0.8, 0.9) is 0.8; without each 0.65, 0.85, 0.6.
        ({"strategy": "median", "members": ["m1", "m2", "m3"]}, [0.15, -0.05, 0.2]),
        # 0.9 : 0.6 = 0.6; without each 0.6, 0.9 : 0.2, 0.8 : 0.6.
        ({"strategy": "max", "members": ["m1", "m2", "m3"]}, [0, 0.6 - 9 / 11, 0.6 - 8 / 14]),
    ],
)
def test_a_contribution_is_the_answer_less_the_answer_of_the_others(
    options: dict[str, Any], first_class: list[float]
) -> None:
    moved = contributions(tiny.answering(4, 2), FOUR, **options)
    assert_allclose(moved[:, 0, 0], first_class, atol=1e-6)
    assert_allclose(moved[:, 0, 1], [-share for share in first_class], atol=1e-6)


@pytest.mark.parametrize("strategy", POOLS)
def test_without_a_member_the_others_count_by_their_own_weights_and_temperatures(strategy: str) -> None:
    ensemble, answers = tiny.answering(4), random_answers(4, 9)
    moved = contributions(ensemble, answers, strategy=strategy)
    fitted = {"weighted": np.array([4.0, 3, 2, 1]), "log_linear": np.array([1.0, 2, 3, 4])}.get(strategy, np.ones(4))
    temperatures = np.array([1, 1.5, 2, 2.5], dtype=np.float32)
    whole = fuse(strategy, answers, weights=fitted, temperatures=temperatures).probabilities
    for member in range(4):
        others = [k for k in range(4) if k != member]
        rest = fuse(strategy, answers[others], weights=fitted[others], temperatures=temperatures[others])
        assert_allclose(moved[member], whole - rest.probabilities, atol=1e-6)


@pytest.mark.parametrize(
    ("strategy", "own"), [("average", [0.5, 0.3, 0.2]), ("max", [0.5, 0.3, 0.2]), ("vote", [1, 0, 0])]
)
def test_one_member_alone_is_held_against_knowing_nothing(strategy: str, own: list[float]) -> None:
    answers = floats([[0.5, 0.3, 0.2]], [[1, 0, 0]])
    moved = contributions(tiny.answering(2), answers, strategy=strategy, members=["m1"])
    assert_allclose(moved, [[[share - 1 / 3 for share in own]]], atol=1e-6)


@pytest.mark.parametrize("strategy", POOLS)
@laws
@given(data=st.data())
def test_what_a_member_gives_one_class_it_takes_from_the_others(strategy: str, data: st.DataObject) -> None:
    n_members = data.draw(st.integers(1, 5))
    answers = random_answers(n_members, 4, data.draw(st.integers(2, 5)), seed=data.draw(st.integers(0, 99)))
    moved = contributions(tiny.answering(n_members, answers.shape[2]), answers, strategy=strategy)
    assert_allclose(moved.sum(axis=2), 0, atol=2e-6)
    assert (np.abs(moved) <= 1).all()


@laws
@given(data=st.data())
def test_contributions_to_a_mean_cancel_out(data: st.DataObject) -> None:
    """Without member m, the mean moves by its weight w over 1 - w, times how far it lies from the mean."""
    n_members = data.draw(st.integers(2, 6))
    answers = random_answers(n_members, 4, seed=data.draw(st.integers(0, 99)))
    ensemble = tiny.answering(n_members)
    prediction = predicted(ensemble, answers, strategy="weighted", contributions=True)
    assert prediction.contributions is not None
    weights = prediction.weights[:, None, None]
    expected = weights / (1 - weights) * (answers - prediction.fused.probabilities)
    assert_allclose(prediction.contributions, expected, atol=1e-5)
    assert_allclose(((1 - weights) * prediction.contributions).sum(axis=0), 0, atol=1e-5)
    assert_allclose(contributions(ensemble, answers, strategy="average").sum(axis=0), 0, atol=1e-5)


@laws
@given(seed=st.integers(0, 99), strategy=st.sampled_from(["average", "vote", "median", "max"]))
def test_members_that_say_the_same_contribute_the_same(seed: int, strategy: str) -> None:
    one, two = random_answers(2, 4, seed=seed)
    moved = contributions(tiny.answering(3), np.stack([one, two, one]), strategy=strategy)
    assert_allclose(moved[0], moved[2], atol=1e-6)


@pytest.mark.parametrize("strategy", REGRESSION)
def test_contributions_to_a_regression_are_in_its_unit(strategy: str) -> None:
    values = floats([[10, -1]], [[20, -2]], [[60, -9]])
    moved = contributions(tiny.answering(3, 2, task="regression"), values, strategy=strategy)
    expected: dict[str, list[list[float]]] = {
        # Of means 30 and -4; without each (40, -5.5), (35, -5), (15, -1.5).
        "mean": [[-10, 1.5], [-5, 1], [15, -2.5]],
        # Of weights 3, 2, 1: 130 / 6 and -16 / 6; without each 100 / 3, 90 / 4, 70 / 5 and -13 / 3, -12 / 4, -7 / 5.
        "weighted": [
            [130 / 6 - 100 / 3, -16 / 6 + 13 / 3],
            [130 / 6 - 90 / 4, -16 / 6 + 12 / 4],
            [130 / 6 - 70 / 5, -16 / 6 + 7 / 5],
        ],
        # Of medians 20 and -2; without each (40, -5.5), (35, -5), (15, -1.5).
        "median": [[-20, 3.5], [-15, 3], [5, -0.5]],
    }
    assert_allclose(moved[:, 0], expected[strategy], atol=1e-5)


@pytest.mark.parametrize("strategy", REGRESSION)
def test_one_member_of_a_regression_is_held_against_nought(strategy: str) -> None:
    values = floats([[10, -1], [3, 5]], [[20, -2], [0, 0]])
    moved = contributions(tiny.answering(2, 2, task="regression"), values, strategy=strategy, members=["m1"])
    assert_allclose(moved, values[:1])


def test_contributions_to_a_cascade_are_of_those_that_were_asked_for_the_row() -> None:
    answers = floats([[0.9, 0.1], [0.5, 0.5]], [[0, 1], [0.2, 0.8]], [[0, 1], [0.8, 0.2]])
    moved = contributions(tiny.answering(3, 2, stages=TWO_STAGES), answers, strategy="cascade")
    # m1 alone answers the first row; all three the second, by 0.5: without each 0.5, 0.65 and 0.35.
    assert_allclose(moved[:, 0], [[0.4, -0.4], [NAN, NAN], [NAN, NAN]], atol=1e-6)
    assert_allclose(moved[:, 1], [[0.0, 0.0], [-0.15, 0.15], [0.15, -0.15]], atol=1e-6)


def test_contributions_are_told_only_if_asked_for() -> None:
    assert predicted(tiny.answering(4, 2), FOUR).contributions is None


# Abstaining ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "abstains"),
    [
        ({"abstain_below": 0.0}, [False, False, False]),
        ({"abstain_below": 0.6}, [False, False, True]),
        # An answer that is as sure as asked for stands, though 0.7 is no float.
        ({"abstain_below": 0.7}, [False, False, True]),
        ({"abstain_below": 0.75}, [False, True, True]),
        ({"abstain_below": 1.0}, [False, True, True]),
        ({"abstain_below": 0.7, "strategy": "vote"}, [False, False, False]),
    ],
)
def test_an_answer_abstains_where_it_is_less_sure_than_asked_for(options: dict[str, Any], abstains: list[bool]) -> None:
    answers = floats([[1, 0, 0], [0.1, 0.7, 0.2], [0.3, 0.3, 0.4]])
    prediction = predicted(tiny.answering(1), answers, **options)
    assert prediction.abstains is not None
    assert_array_equal(prediction.abstains, abstains)
    # It is told apart from the answer, which is there all the same.
    assert_array_equal(prediction.fused.labels, [0, 1, 2])


def test_nothing_abstains_unless_asked_to() -> None:
    assert predicted(tiny.answering(1), floats([[0.3, 0.3, 0.4]])).abstains is None


def test_confidence_is_the_probability_of_the_label() -> None:
    """Which, after a tie of votes, need not be the first of the highest."""
    fused = Fused(floats([[0.5, 0.5], [0.1, 0.9], [0.6, 0.4]])[0], np.array([1, 1, 0]))
    assert_array_equal(confidence(fused), np.array([0.5, 0.9, 0.6], dtype=np.float32))


# Uncertainty --------------------------------------------------------------------------------------------------------


def figures(measured: Uncertainty | Spread | None) -> Mapping[str, Floats]:
    assert measured is not None
    return {field.name: getattr(measured, field.name) for field in fields(measured)}


@pytest.mark.parametrize("strategy", [*POOLS, "stacking"])
def test_uncertainty_is_of_those_that_took_part_and_by_their_weights(strategy: str) -> None:
    ensemble, answers = tiny.answering(3), random_answers(3, 20)
    prediction = predicted(ensemble, answers, strategy=strategy, uncertainty=True)
    expected = figures(uncertainty.measure(answers, prediction.weights, prediction.fused))
    for name, figure in figures(prediction.uncertainty).items():
        assert_array_equal(figure, expected[name])


@pytest.mark.parametrize("strategy", REGRESSION)
def test_uncertainty_of_a_regression_is_a_spread(strategy: str) -> None:
    values = floats([[1, 10], [5, 7]], [[3, 10], [5, 7]])
    prediction = predicted(tiny.answering(2, 2, task="regression"), values, strategy=strategy, uncertainty=True)
    assert isinstance(prediction.uncertainty, Spread)
    # By weights of 2 to 1: the mean is 5 / 3, and the deviations 2 / 3 and 4 / 3.
    first = math.sqrt((2 * (2 / 3) ** 2 + (4 / 3) ** 2) / 3) if strategy == "weighted" else 1
    assert_allclose(prediction.uncertainty.spread, [[first, 0.0], [0.0, 0.0]], atol=1e-6)


def test_uncertainty_of_a_cascade_is_each_rows_own() -> None:
    ensemble, answers = tiny.answering(3, stages=TWO_STAGES), random_answers(3, 40)
    prediction = predicted(ensemble, answers, strategy="cascade", cascade_threshold=0.6, uncertainty=True)
    assert prediction.stages is not None
    early, late = (np.flatnonzero(prediction.stages == stage) for stage in (1, 2))
    assert len(early) > 5
    assert len(late) > 5
    measured = figures(prediction.uncertainty)
    # One member has nobody to differ from.
    for name in ("mutual_information", "disagreement", "vote_entropy", "jensen_shannon"):
        assert_allclose(measured[name][early], 0, atol=1e-6)
    assert_allclose(measured["entropy"][early], uncertainty.entropy(answers[0, early]), atol=1e-6)
    fused = Fused(prediction.fused.probabilities[late], prediction.fused.labels[late])
    third = np.full(3, 1 / 3, dtype=np.float32)
    for name, figure in figures(uncertainty.measure(answers[:, late], third, fused)).items():
        assert_array_equal(measured[name][late], figure)


# Stages -------------------------------------------------------------------------------------------------------------


def test_answers_of_members_that_a_cascade_did_not_ask_are_not_made_up() -> None:
    answers = random_answers(3, 40)
    prediction = predicted(
        tiny.answering(3, stages=TWO_STAGES), answers, strategy="cascade", cascade_threshold=0.6, contributions=True
    )
    assert prediction.stages is not None
    assert prediction.contributions is not None
    unasked = np.zeros((3, 40), dtype=bool)
    unasked[1:] = prediction.stages == 1
    for array in (prediction.member_probabilities, prediction.contributions):
        assert_array_equal(np.isnan(array), np.repeat(unasked[:, :, None], 3, axis=2))
    assert_array_equal(prediction.member_probabilities[~unasked], answers[~unasked])


def test_only_a_cascade_has_stages() -> None:
    ensemble = tiny.answering(3, stages=TWO_STAGES)
    for strategy in (*POOLS, "stacking"):
        prediction = predicted(ensemble, random_answers(3, 5), strategy=strategy)
        assert prediction.stages is None
        assert not np.isnan(prediction.member_probabilities).any()


# Groups -------------------------------------------------------------------------------------------------------------


def test_groups_of_rows_are_put_where_they_belong() -> None:
    ensemble, answers = tiny.answering(3, stages=TWO_STAGES), random_answers(3, 5)
    plan = make_plan(ensemble, Options(strategy="cascade"))
    groups = []
    for members, rows in (((1, 2), [4, 0]), ((0,), [2]), ((0, 1, 2), [3, 1])):
        own = answers[list(members)][:, rows]
        groups.append(Group(np.array(rows), members, own, fuse_by(ensemble, plan, members, own)))
    prediction = conclude(ensemble, plan, 5, groups, {}, np.array([2, 2, 1, 2, 2]))
    assert prediction.members == (0, 1, 2)
    for rows, chosen in (([0, 4], [1, 2]), ([2], [0]), ([1, 3], [0, 1, 2])):
        expected = answers[chosen][:, rows].mean(axis=0)
        assert_allclose(prediction.fused.probabilities[rows], expected, atol=1e-6)
        assert_array_equal(prediction.fused.labels[rows], expected.argmax(axis=1))
        assert_array_equal(prediction.member_probabilities[np.ix_(chosen, rows)], answers[np.ix_(chosen, rows)])
        others = [member for member in range(3) if member not in chosen]
        assert np.isnan(prediction.member_probabilities[np.ix_(others, rows)]).all()


def test_only_stacking_without_all_members_is_another_rule() -> None:
    ensemble = tiny.answering(3)
    for strategy in (*POOLS, "stacking"):
        plan = make_plan(ensemble, Options(strategy=strategy))
        assert rule_of(ensemble, plan, (0, 1, 2)) == strategy
        assert rule_of(ensemble, plan, (0, 2)) == ("log_linear" if strategy == "stacking" else strategy)


# Together -----------------------------------------------------------------------------------------------------------


def assert_same(got: Prediction, expected: Prediction) -> None:
    """To the bit, whatever a prediction tells."""
    assert (got.plan, got.strategy, got.members, got.missing) == (
        expected.plan,
        expected.strategy,
        expected.members,
        expected.missing,
    )
    assert (got.stages, got.uncertainty, got.contributions) == (None, None, None)
    assert_array_equal(got.weights, expected.weights)
    assert_array_equal(got.fused.probabilities, expected.fused.probabilities)
    assert_array_equal(got.fused.labels, expected.fused.labels)
    assert_array_equal(got.member_probabilities, expected.member_probabilities)


@laws
@given(data=st.data())
def test_requests_that_share_a_batch_get_what_each_would_alone(data: st.DataObject) -> None:
    n_members = data.draw(st.integers(1, 4), label="members")
    ensemble = tiny.answering(n_members)
    strategies = [name for name in ensemble.strategies if name != "cascade"]
    plans = [
        make_plan(ensemble, Options(strategy=strategy, abstain_below=0.5))
        for strategy in data.draw(st.lists(st.sampled_from(strategies), min_size=1, max_size=4), label="plans")
    ]
    sizes = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=8), label="sizes")
    answers = random_answers(n_members, sum(sizes), seed=data.draw(st.integers(0, 99)))
    ends = np.cumsum(sizes).tolist()
    places = [slice(end - size, end) for size, end in zip(sizes, ends, strict=True)]
    requests = [(data.draw(st.sampled_from(plans)), place) for place in places]
    members = tuple(range(n_members))
    together = by_request(conclude_together(ensemble, members, answers, requests))
    assert len(together) == len(requests)
    for got, (plan, place) in zip(together, requests, strict=True):
        own = answers[:, place]
        assert_same(got, drive(ensemble, plan, own.shape[1], lambda _, own=own: own))  # type: ignore[misc]


def test_a_batch_may_hold_rows_of_others() -> None:
    ensemble = tiny.answering(2)
    answers = random_answers(2, 6)
    plan, other = make_plan(ensemble, Options()), make_plan(ensemble, Options(strategy="vote"))
    requests = [(plan, slice(4, 6)), (other, slice(0, 1))]
    last, first = by_request(conclude_together(ensemble, (0, 1), answers, requests))
    assert_same(last, drive(ensemble, plan, 2, lambda _: answers[:, 4:]))
    assert_same(first, drive(ensemble, other, 1, lambda _: answers[:, :1]))


def test_where_one_plan_holds_some_of_the_rows_it_is_fused_over_those_alone() -> None:
    ensemble = tiny.answering(2)
    answers = random_answers(2, 6)
    plan = make_plan(ensemble, Options())
    [only] = by_request(conclude_together(ensemble, (0, 1), answers, [(plan, slice(2, 5))]))
    assert_same(only, drive(ensemble, plan, 3, lambda _: answers[:, 2:5]))
