"""Who is asked for which rows, and what is made of the answers: of all, of some, and of none.

Answers are given here as arrays; most of the graphs are there only to be loaded.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from server.ensemble import Ensemble
from server.errors import CommitteeError, DeadlineExceeded, MemberFailed, QuorumMissed
from server.fusion import REGRESSION, STRATEGIES, Fused, calibrate, fuse
from server.plan import Options, make_plan
from server.predicting import Answered, Ask, drive, predict, predicting
from server.prediction import Prediction, Reason
from server.repository import load_version
from tests import tiny

Floats = NDArray[np.float32]
Missing = Mapping[int, Reason]
POOLS = [name for name in STRATEGIES if name != "stacking"]
laws = settings(deadline=None, derandomize=True, max_examples=20)


def play(
    ensemble: Ensemble, answers: Floats, *, missing: Missing | None = None, **options: Any
) -> tuple[Prediction, list[Ask]]:
    """The prediction where the members answer from `answers (n_members, n, n_outputs)`, but for those that are missing;
    and what was asked."""
    steps = predicting(ensemble, make_plan(ensemble, Options(**options)), answers.shape[1])
    asks = [next(steps)]
    while True:
        ask, gone = asks[-1], missing or {}
        have = tuple(member for member in ask.members if member not in gone)
        rows = slice(None) if ask.rows is None else ask.rows
        reasons = {member: gone[member] for member in ask.members if member in gone}
        try:
            asks.append(steps.send(Answered(have, answers[list(have)][:, rows], reasons)))
        except StopIteration as done:
            prediction: Prediction = done.value
            return prediction, asks


def answered(ensemble: Ensemble, answers: Floats, **options: Any) -> Prediction:
    """Where nobody is missing."""
    return play(ensemble, answers, **options)[0]


def floats(*members: Sequence[Sequence[float]]) -> Floats:
    """`(n_members, n_rows, n_outputs)`"""
    return np.array(members, dtype=np.float32)


def random_answers(n_members: int, n_rows: int, n_outputs: int = 3, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).dirichlet(np.ones(n_outputs), (n_members, n_rows)).astype(np.float32)


def random_values(n_members: int, n_rows: int, n_targets: int = 1, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).normal(0, 100, (n_members, n_rows, n_targets)).astype(np.float32)


def asked(asks: Sequence[Ask]) -> list[tuple[tuple[int, ...], list[int] | None]]:
    return [(ask.members, None if ask.rows is None else ask.rows.tolist()) for ask in asks]


def assert_bitwise(got: Fused, expected: Fused) -> None:
    assert_array_equal(got.probabilities, expected.probabilities)
    assert_array_equal(got.labels, expected.labels)


def assert_same(got: Fused, expected: Fused) -> None:
    """Equal to rounding; labels may differ only between classes that rounding alone tells apart."""
    scale = max(1, float(np.abs(expected.probabilities).max()))
    assert_allclose(got.probabilities, expected.probabilities, atol=1e-5 * scale)
    for row in np.flatnonzero(got.labels != expected.labels):
        one, other = expected.probabilities[row, [got.labels[row], expected.labels[row]]]
        assert abs(one - other) <= 1e-5


# One stage ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("members", "chosen"), [(None, (0, 1, 2)), (["m3", "m1"], (0, 2)), (["-m1"], (1, 2))])
def test_a_plan_without_a_cascade_asks_its_members_once_for_all_rows(
    members: list[str] | None, chosen: tuple[int, ...]
) -> None:
    answers = random_answers(3, 4)
    prediction, asks = play(tiny.answering(3), answers, members=members)
    assert asked(asks) == [(chosen, None)]
    assert prediction.members == chosen
    assert_array_equal(prediction.member_probabilities, answers[list(chosen)])
    assert_allclose(prediction.fused.probabilities, answers[list(chosen)].mean(axis=0), atol=1e-6)
    assert_allclose(prediction.weights, 1 / len(chosen))
    assert (prediction.strategy, prediction.missing, prediction.stages) == ("average", {}, None)
    assert (prediction.uncertainty, prediction.contributions, prediction.abstains) == (None, None, None)


@pytest.mark.parametrize("strategy", POOLS)
@pytest.mark.parametrize("members", [None, ["m2"], ["m1", "m4", "m5"]])
def test_a_plan_is_the_fusion_of_its_members(strategy: str, members: list[str] | None) -> None:
    ensemble, answers = tiny.answering(5), random_answers(5, 30)
    prediction = answered(ensemble, answers, strategy=strategy, members=members)
    chosen = list(prediction.members)
    fitted = {"weighted": np.arange(5.0, 0, -1), "log_linear": np.arange(1.0, 6)}.get(strategy, np.ones(5))[chosen]
    assert_allclose(prediction.weights, fitted / fitted.sum(), rtol=1e-6)
    temperatures = (1 + 0.5 * np.arange(5, dtype=np.float32))[chosen]
    expected = fuse(strategy, answers[chosen], weights=prediction.weights, temperatures=temperatures)
    assert_bitwise(prediction.fused, expected)


def test_stacking_is_what_the_final_estimator_makes_of_all_answers() -> None:
    answers = random_answers(3, 30)
    prediction = answered(tiny.answering(3), answers, strategy="stacking")
    assert_allclose(prediction.fused.probabilities, tiny.stacked_answers(answers), atol=1e-6)
    assert_array_equal(prediction.fused.labels, tiny.stacked_answers(answers).argmax(axis=1))
    assert (prediction.strategy, prediction.members) == ("stacking", (0, 1, 2))


@pytest.mark.parametrize("n_targets", [1, 3])
def test_a_regression_is_fused_by_its_own_strategies(n_targets: int) -> None:
    ensemble, values = tiny.answering(3, n_targets, task="regression"), random_values(3, 20, n_targets)
    expected = {
        "mean": values.mean(axis=0),
        "weighted": np.average(values, axis=0, weights=[3, 2, 1]),
        "median": np.median(values, axis=0),
    }
    for strategy in REGRESSION:
        fused = answered(ensemble, values, strategy=strategy).fused
        assert_allclose(fused.probabilities, expected[strategy], rtol=1e-4, atol=1e-4)
        assert_array_equal(fused.labels, np.zeros(20))


@pytest.mark.parametrize("options", [{}, {"strategy": "cascade"}, {"uncertainty": True, "contributions": True}])
def test_no_rows_have_an_answer_of_no_rows(options: dict[str, Any]) -> None:
    ensemble = tiny.answering(3, stages=(("m1",), ("m2", "m3")))
    prediction, asks = play(ensemble, random_answers(3, 0), **options)
    assert len(asks) == 1
    assert prediction.fused.probabilities.shape == (0, 3)
    assert prediction.fused.labels.shape == (0,)


# Cascades by hand ---------------------------------------------------------------------------------------------------

TWO_STAGES = (("m1",), ("m2", "m3"))
THREE_STAGES = (("m3",), ("m1",), ("m2",))


def test_a_row_that_is_sure_enough_goes_no_further() -> None:
    answers = floats(
        # By 0.8 the first and the third are sure.
        [[0.9, 0.1], [0.5, 0.5], [0.2, 0.8], [0.79, 0.21]],
        [[0, 1], [0.1, 0.9], [1, 0], [0.79, 0.21]],
        [[0, 1], [0.3, 0.7], [1, 0], [0.79, 0.21]],
    )
    prediction, asks = play(tiny.answering(3, 2, stages=TWO_STAGES), answers, strategy="cascade")
    assert asked(asks) == [((0,), [0, 1, 2, 3]), ((1, 2), [1, 3])]
    assert_allclose(prediction.fused.probabilities, [[0.9, 0.1], [0.3, 0.7], [0.2, 0.8], [0.79, 0.21]], atol=1e-6)
    assert_array_equal(prediction.fused.labels, [0, 1, 1, 0])
    assert prediction.stages is not None
    assert_array_equal(prediction.stages, [1, 2, 1, 2])
    assert prediction.members == (0, 1, 2)
    assert_allclose(prediction.weights, [1 / 3] * 3)
    nan = [np.nan, np.nan]
    assert_array_equal(
        prediction.member_probabilities,
        floats(answers[0].tolist(), [nan, [0.1, 0.9], nan, [0.79, 0.21]], [nan, [0.3, 0.7], nan, [0.79, 0.21]]),
    )
    assert (prediction.strategy, prediction.plan.rule, prediction.missing) == ("cascade", "average", {})


def test_every_answer_so_far_counts_and_stages_need_not_be_in_the_manifests_order() -> None:
    answers = floats(
        [[0.5, 0.5], [1, 0], [0.9, 0.1]],
        [[1, 0], [1, 0], [0, 1]],
        [[0.9, 0.1], [0.7, 0.3], [0.5, 0.5]],
    )
    prediction, asks = play(tiny.answering(3, 2, stages=THREE_STAGES), answers, strategy="cascade")
    # m3 is sure of the first row, m3 and m1 of the second: (0.7 + 1) / 2; of the third nobody is: (0.5 + 0.9) / 2.
    assert asked(asks) == [((2,), [0, 1, 2]), ((0,), [1, 2]), ((1,), [2])]
    assert_allclose(prediction.fused.probabilities, [[0.9, 0.1], [0.85, 0.15], [1.4 / 3, 1.6 / 3]], atol=1e-6)
    assert prediction.stages is not None
    assert_array_equal(prediction.stages, [1, 2, 3])
    asked_for = ~np.isnan(prediction.member_probabilities[:, :, 0])
    assert_array_equal(asked_for, [[False, True, True], [False, False, True], [True, True, True]])


def test_a_cascade_stops_when_no_row_is_left() -> None:
    answers = floats([[0.9, 0.1], [0.2, 0.8]], [[0, 1], [0, 1]], [[0, 1], [0, 1]])
    prediction, asks = play(tiny.answering(3, 2, stages=TWO_STAGES), answers, strategy="cascade")
    assert asked(asks) == [((0,), [0, 1])]
    assert prediction.members == (0,)
    assert_array_equal(prediction.weights, [1])
    assert_array_equal(prediction.member_probabilities, answers[:1])
    assert_array_equal(prediction.fused.probabilities, answers[0])


def test_agreement_is_the_share_of_members_that_say_the_same() -> None:
    stages = (("m1", "m2"), ("m3",))
    answers = floats([[0.6, 0.4], [0.6, 0.4]], [[0.51, 0.49], [0.2, 0.8]], [[0, 1], [0, 1]])
    prediction, asks = play(tiny.answering(3, 2, stages=stages, measure="agreement"), answers, strategy="cascade")
    assert asked(asks) == [((0, 1), [0, 1]), ((2,), [1])]
    assert_allclose(prediction.fused.probabilities, [[0.555, 0.445], [0.8 / 3, 2.2 / 3]], atol=1e-6)
    # By confidence neither would have stopped, at a threshold of a half both.
    by_confidence = tiny.answering(3, 2, stages=stages)
    assert asked(play(by_confidence, answers, strategy="cascade")[1])[1:] == [((2,), [0, 1])]
    half = tiny.answering(3, 2, stages=stages, measure="agreement", threshold=0.5)
    assert asked(play(half, answers, strategy="cascade")[1]) == [((0, 1), [0, 1])]


def test_the_answer_of_a_stage_is_the_cascades_strategys() -> None:
    stages = (("m1", "m2"), ("m3",))
    answers = floats([[0.9, 0.1], [0.9, 0.1]], [[0.6, 0.4], [0.4, 0.6]], [[0, 1], [0, 1]])
    ensemble = tiny.answering(3, 2, stages=stages, rule="vote")
    prediction, asks = play(ensemble, answers, strategy="cascade")
    assert asked(asks) == [((0, 1), [0, 1]), ((2,), [1])]
    assert_allclose(prediction.fused.probabilities, [[1.0, 0.0], [1 / 3, 2 / 3]], atol=1e-6)


@pytest.mark.parametrize(("members", "chosen"), [(["m1"], (0,)), (["m2", "m3"], (1, 2))])
def test_a_cascade_of_one_stage_is_its_strategy(members: list[str], chosen: tuple[int, ...]) -> None:
    ensemble, answers = tiny.answering(3, stages=TWO_STAGES), random_answers(3, 20)
    prediction, asks = play(ensemble, answers, strategy="cascade", members=members)
    assert asked(asks) == [(chosen, None)]
    assert_bitwise(prediction.fused, answered(ensemble, answers, strategy="average", members=members).fused)
    assert prediction.strategy == "cascade"


@pytest.mark.parametrize("rule", POOLS)
@pytest.mark.parametrize("stages", [TWO_STAGES, THREE_STAGES])
def test_a_threshold_of_zero_stops_every_row_in_the_first_stage(rule: str, stages: tuple[tuple[str, ...], ...]) -> None:
    ensemble, answers = tiny.answering(3, stages=stages, rule=rule), random_answers(3, 20)
    prediction, asks = play(ensemble, answers, strategy="cascade", cascade_threshold=0.0)
    assert len(asks) == 1
    assert_bitwise(prediction.fused, answered(ensemble, answers, strategy=rule, members=stages[0]).fused)
    assert prediction.stages is not None
    assert_array_equal(prediction.stages, np.ones(20))


@pytest.mark.parametrize("rule", POOLS)
@pytest.mark.parametrize("n_outputs", [2, 3, 10])
@pytest.mark.parametrize("stages", [TWO_STAGES, THREE_STAGES, (("m2", "m3"), ("m1",))])
def test_a_threshold_that_no_row_reaches_makes_it_the_fusion_of_all(
    rule: str, n_outputs: int, stages: tuple[tuple[str, ...], ...]
) -> None:
    ensemble, answers = tiny.answering(3, n_outputs, stages=stages, rule=rule), random_answers(3, 20, n_outputs)
    prediction, asks = play(ensemble, answers, strategy="cascade", cascade_threshold=1.5)
    assert [ask.rows.tolist() for ask in asks if ask.rows is not None] == [list(range(20))] * len(stages)
    full = answered(ensemble, answers, strategy=rule)
    assert_bitwise(prediction.fused, full.fused)
    assert_array_equal(prediction.weights, full.weights)
    assert_array_equal(prediction.member_probabilities, answers)


def test_a_threshold_of_one_forgives_what_rounding_takes_off() -> None:
    answers = floats([[1, 0], [0.9999995, 5e-7], [0.99999, 1e-5]], [[0, 1]] * 3, [[0, 1]] * 3)
    prediction = answered(tiny.answering(3, 2, stages=TWO_STAGES), answers, strategy="cascade", cascade_threshold=1.0)
    assert prediction.stages is not None
    assert_array_equal(prediction.stages, [1, 1, 2])


# Some are missing ---------------------------------------------------------------------------------------------------

REASONS: list[Reason] = ["raised", "invalid", "deadline", "not_started", "hanging", "circuit_open"]


@pytest.mark.parametrize("strategy", POOLS)
@pytest.mark.parametrize("gone", [(0,), (2,), (1, 3)])
def test_without_some_members_it_is_the_answer_of_the_others(strategy: str, gone: tuple[int, ...]) -> None:
    ensemble, answers = tiny.answering(5), random_answers(5, 20)
    extra = {"uncertainty": True, "contributions": True, "strategy": strategy}
    prediction, asks = play(ensemble, answers, missing=dict.fromkeys(gone, "raised"), **extra)
    assert asked(asks) == [((0, 1, 2, 3, 4), None)]
    others = answered(ensemble, answers, members=[f"-m{k + 1}" for k in gone], **extra)
    assert_bitwise(prediction.fused, others.fused)
    assert_array_equal(prediction.weights, others.weights)
    assert_allclose(prediction.weights.sum(), 1, atol=1e-6)
    assert prediction.members == others.members
    assert prediction.strategy == strategy
    assert_array_equal(prediction.member_probabilities, others.member_probabilities)
    assert prediction.contributions is not None
    assert others.contributions is not None
    assert_array_equal(prediction.contributions, others.contributions)
    assert prediction.missing == {f"m{k + 1}": "raised" for k in gone}
    assert others.missing == {}


def test_a_requests_weights_are_scaled_to_those_that_answered() -> None:
    weights = {"m1": 2.0, "m2": 5.0, "m3": 6.0}
    prediction, _ = play(
        tiny.answering(3), random_answers(3, 4), missing={1: "invalid"}, strategy="weighted", weights=weights
    )
    assert_array_equal(prediction.weights, [0.25, 0.75])


@pytest.mark.parametrize("reason", REASONS)
def test_the_reason_is_kept_by_name(reason: Reason) -> None:
    prediction, _ = play(tiny.answering(3), random_answers(3, 4), missing={1: reason})
    assert prediction.missing == {"m2": reason}


def test_reasons_come_in_the_manifests_order() -> None:
    ensemble = tiny.answering(3, stages=THREE_STAGES)
    missing: Missing = {2: "hanging", 0: "deadline"}
    prediction, _ = play(ensemble, random_answers(3, 4), missing=missing, strategy="cascade")
    assert list(prediction.missing.items()) == [("m1", "deadline"), ("m3", "hanging")]


@pytest.mark.parametrize("gone", [(0,), (1,), (0, 2)])
def test_without_a_member_stacking_falls_back_and_says_so(gone: tuple[int, ...]) -> None:
    ensemble, answers = tiny.answering(3), random_answers(3, 20)
    missing: Missing = dict.fromkeys(gone, "deadline")
    prediction, _ = play(ensemble, answers, missing=missing, strategy="stacking", quorum=1, uncertainty=True)
    others = answered(ensemble, answers, strategy="log_linear", members=[f"-m{k + 1}" for k in gone], uncertainty=True)
    assert (prediction.plan.strategy, prediction.strategy) == ("stacking", "log_linear")
    assert_bitwise(prediction.fused, others.fused)
    assert_array_equal(prediction.weights, others.weights)
    assert prediction.missing == {f"m{k + 1}": "deadline" for k in gone}
    assert prediction.uncertainty is not None
    assert others.uncertainty is not None
    for figure in type(prediction.uncertainty).__slots__:
        assert_array_equal(getattr(prediction.uncertainty, figure), getattr(others.uncertainty, figure))


def test_a_regression_without_a_member_is_that_of_the_others() -> None:
    ensemble, values = tiny.answering(3, 2, task="regression"), random_values(3, 20, 2)
    for strategy in REGRESSION:
        prediction, _ = play(ensemble, values, missing={0: "invalid"}, strategy=strategy)
        assert_bitwise(prediction.fused, answered(ensemble, values, strategy=strategy, members=["-m1"]).fused)


# Too many are missing -----------------------------------------------------------------------------------------------


def refusal(kind: type[CommitteeError], ensemble: Ensemble, missing: Missing, **options: Any) -> str:
    with pytest.raises(CommitteeError) as caught:
        play(ensemble, random_answers(len(ensemble.names), 4), missing=missing, **options)
    assert type(caught.value) is kind
    return caught.value.message


@pytest.mark.parametrize(
    ("missing", "options", "kind", "message"),
    [
        (
            {0: "raised", 2: "invalid"},
            {},
            QuorumMissed,
            "expected answers of at least 2 of 3 members; got 1 (m1: raised, m3: invalid)",
        ),
        (
            {0: "circuit_open", 2: "hanging"},
            {},
            QuorumMissed,
            "expected answers of at least 2 of 3 members; got 1 (m1: circuit_open, m3: hanging)",
        ),
        (
            {0: "raised", 2: "deadline"},
            {},
            DeadlineExceeded,
            "expected answers of at least 2 of 3 members; got 1 (m1: raised, m3: deadline)",
        ),
        (
            {0: "not_started", 1: "not_started", 2: "not_started"},
            {"quorum": 1},
            DeadlineExceeded,
            "expected answers of at least 1 of 3 members; got 0 (m1: not_started, m2: not_started, m3: not_started)",
        ),
        (
            {0: "raised"},
            {"quorum": 3},
            QuorumMissed,
            "expected answers of at least 3 of 3 members; got 2 (m1: raised)",
        ),
        (
            {1: "raised"},
            {"members": ["m1", "m2"], "quorum": 3},
            QuorumMissed,
            "expected answers of at least 2 of 2 members; got 1 (m2: raised)",
        ),
        (
            {1: "raised"},
            {"on_failure": "fail"},
            QuorumMissed,
            "expected answers of at least 3 of 3 members; got 2 (m2: raised)",
        ),
        (
            {1: "deadline"},
            {"on_failure": "fail", "quorum": 1},
            DeadlineExceeded,
            "expected answers of at least 3 of 3 members; got 2 (m2: deadline)",
        ),
    ],
)
def test_too_few_answers_are_an_error_that_says_why(
    missing: Missing, options: dict[str, Any], kind: type[CommitteeError], message: str
) -> None:
    assert refusal(kind, tiny.answering(3), missing, **options) == message


def test_a_quorum_of_one_is_enough_if_it_is_asked_for() -> None:
    answers = random_answers(3, 4)
    prediction, _ = play(tiny.answering(3), answers, missing={0: "raised", 1: "deadline"}, quorum=1)
    assert prediction.members == (2,)
    assert_allclose(prediction.fused.probabilities, answers[2], atol=1e-6)


# Cascades whose members are missing ---------------------------------------------------------------------------------

UNSURE = random_answers(3, 6) * np.float32(0.3) + np.float32(0.7 / 3)
"""No answer is sure by more than 0.54."""


def test_without_the_first_stage_every_row_goes_to_the_second() -> None:
    ensemble = tiny.answering(3, stages=TWO_STAGES)
    prediction, asks = play(ensemble, UNSURE, missing={0: "raised"}, strategy="cascade", cascade_threshold=0.0)
    assert asked(asks) == [((0,), list(range(6))), ((1, 2), list(range(6)))]
    assert prediction.stages is not None
    assert_array_equal(prediction.stages, [2] * 6)
    assert prediction.members == (1, 2)
    assert prediction.missing == {"m1": "raised"}
    assert_bitwise(prediction.fused, answered(ensemble, UNSURE, strategy="average", members=["m2", "m3"]).fused)


def test_where_later_stages_are_late_the_answers_so_far_stand() -> None:
    ensemble, answers = tiny.answering(3, stages=THREE_STAGES), UNSURE.copy()
    answers[2, 0] = [0, 0, 1]
    missing: Missing = {0: "deadline", 1: "not_started"}
    prediction, asks = play(ensemble, answers, missing=missing, strategy="cascade")
    assert asked(asks) == [((2,), [0, 1, 2, 3, 4, 5]), ((0,), [1, 2, 3, 4, 5]), ((1,), [1, 2, 3, 4, 5])]
    assert_bitwise(prediction.fused, answered(ensemble, answers, members=["m3"]).fused)
    assert prediction.stages is not None
    assert_array_equal(prediction.stages, [1] * 6)
    assert prediction.members == (2,)
    assert prediction.missing == {"m1": "deadline", "m2": "not_started"}


def test_a_stage_that_is_missing_is_left_out_of_the_next_ones_answer() -> None:
    ensemble = tiny.answering(3, stages=THREE_STAGES)
    prediction, _ = play(ensemble, UNSURE, missing={0: "hanging"}, strategy="cascade")
    assert_bitwise(prediction.fused, answered(ensemble, UNSURE, strategy="average", members=["m2", "m3"]).fused)
    assert prediction.stages is not None
    assert_array_equal(prediction.stages, [3] * 6)


def test_a_stage_that_is_missing_in_part_answers_by_the_rest() -> None:
    ensemble = tiny.answering(3, stages=(("m1", "m2"), ("m3",)))
    prediction, asks = play(ensemble, UNSURE, missing={0: "invalid"}, strategy="cascade", cascade_threshold=0.0)
    assert len(asks) == 1
    assert_bitwise(prediction.fused, answered(ensemble, UNSURE, strategy="average", members=["m2"]).fused)
    assert prediction.missing == {"m1": "invalid"}


@pytest.mark.parametrize(
    ("missing", "options", "kind", "message"),
    [
        (
            {0: "raised", 1: "raised", 2: "invalid"},
            {},
            QuorumMissed,
            "expected answers of at least 1 of 3 members; got 0 (m1: raised, m2: raised, m3: invalid)",
        ),
        (
            {0: "raised", 1: "deadline", 2: "deadline"},
            {},
            DeadlineExceeded,
            "expected answers of at least 1 of 3 members; got 0 (m1: raised, m2: deadline, m3: deadline)",
        ),
        (
            {0: "raised"},
            {"on_failure": "fail"},
            QuorumMissed,
            "expected answers of at least 1 of 1 members; got 0 (m1: raised)",
        ),
        (
            {2: "deadline"},
            {"on_failure": "fail"},
            DeadlineExceeded,
            "expected answers of at least 3 of 3 members; got 2 (m3: deadline)",
        ),
        (
            {1: "raised", 2: "raised"},
            {"quorum": 2},
            QuorumMissed,
            "expected answers of at least 2 of 3 members; got 1 (m2: raised, m3: raised)",
        ),
    ],
)
def test_a_cascade_of_too_few_answers_is_an_error_that_says_why(
    missing: Missing, options: dict[str, Any], kind: type[CommitteeError], message: str
) -> None:
    ensemble = tiny.answering(3, stages=TWO_STAGES, threshold=1.0)
    assert refusal(kind, ensemble, missing, strategy="cascade", **options) == message


def test_a_stage_of_fewer_than_the_quorum_answers_no_row() -> None:
    ensemble = tiny.answering(3, stages=(("m1", "m2"), ("m3",)), threshold=0.0)
    assert refusal(QuorumMissed, ensemble, {0: "raised"}, strategy="cascade", quorum=2) == (
        "expected answers of at least 2 of 2 members; got 1 (m1: raised)"
    )
    # A quorum of one has answered.
    prediction, _ = play(ensemble, random_answers(3, 4), missing={0: "raised"}, strategy="cascade", quorum=1)
    assert prediction.members == (1,)


def test_where_none_may_fail_a_cascade_asks_nobody_after_the_first_that_does() -> None:
    ensemble = tiny.answering(3, stages=THREE_STAGES)
    steps = predicting(ensemble, make_plan(ensemble, Options(strategy="cascade", on_failure="fail")), 2)
    ask = next(steps)
    assert ask.members == (2,)
    with pytest.raises(QuorumMissed):
        steps.send(Answered((), np.empty((0, 2, 3), dtype=np.float32), {2: "raised"}))


def test_members_that_no_row_needs_may_be_broken_even_where_none_may_fail() -> None:
    prediction, _ = play(
        tiny.answering(3, stages=TWO_STAGES),
        UNSURE,
        missing={1: "raised"},
        strategy="cascade",
        cascade_threshold=0.0,
        on_failure="fail",
    )
    assert (prediction.members, prediction.missing) == ((0,), {})


# Whoever runs the members -------------------------------------------------------------------------------------------


def test_members_that_just_run_answer_the_same(tmp_path: Path) -> None:
    ensemble, x = load_version(tiny.write_cascade(tmp_path)), tiny.rows(40)
    for strategy in ensemble.strategies:
        plan = make_plan(ensemble, Options(strategy=strategy))
        asks: list[Ask] = []

        def answer(ask: Ask, asks: list[Ask] = asks) -> Floats:
            asks.append(ask)
            answers = tiny.answers(x, 3)[list(ask.members)]
            return answers if ask.rows is None else answers[:, ask.rows]

        driven, ran = drive(ensemble, plan, len(x), answer), predict(ensemble, x, plan)
        assert_same(ran.fused, driven.fused)
        assert_allclose(ran.member_probabilities, driven.member_probabilities, atol=1e-5)
        assert len(asks) == len(plan.stages)
        if strategy == "cascade":
            assert driven.stages is not None
            assert ran.stages is not None
            assert_array_equal(ran.stages, driven.stages)
            assert set(driven.stages.tolist()) == {1, 2}


def test_a_member_that_fails_where_members_just_run_is_an_error(tmp_path: Path) -> None:
    ensemble = load_version(tiny.write_ensemble(tmp_path))
    with pytest.raises(MemberFailed, match=r"m1\.onnx"):
        predict(ensemble, np.zeros((2, 5), dtype=np.float32), make_plan(ensemble, Options()))


# Laws ---------------------------------------------------------------------------------------------------------------


@st.composite
def members_answers(draw: st.DrawFn, *, least: int = 1) -> Floats:
    """`(n_members, n_rows, n_classes)`, of small integers (ties, zeros and certainty are common) or floats."""
    shape = (draw(st.integers(least, 5)), draw(st.integers(1, 5)), draw(st.integers(2, 4)))
    cells = st.integers(0, 4).map(float) if draw(st.booleans()) else st.floats(0, 1, width=32)
    scores = draw(arrays(np.float64, shape, elements=cells))
    scores[scores.sum(axis=2) < 1e-30] = 1
    return np.asarray(scores / scores.sum(axis=2, keepdims=True), dtype=np.float32)


@st.composite
def members_values(draw: st.DrawFn) -> Floats:
    """`(n_members, n_rows, n_targets)` of a regression."""
    shape = (draw(st.integers(1, 5)), draw(st.integers(1, 5)), draw(st.integers(1, 3)))
    return draw(arrays(np.float32, shape, elements=st.floats(-1e6, 1e6, width=32)))


def cascade_of(answers: Floats, cut: int, *, rule: str = "average", measure: str = "confidence") -> Ensemble:
    """Its first stage is of the members from `cut` on, its second of those before; `0 < cut < n_members`."""
    n_members, _, n_classes = answers.shape
    names = tuple(f"m{k + 1}" for k in range(n_members))
    return tiny.answering(n_members, n_classes, stages=(names[cut:], names[:cut]), rule=rule, measure=measure)


thresholds = st.sampled_from([0.0, 0.4, 0.5, 0.75, 1.0])
POOLS_OF_TASKS = [*((name, "classification") for name in POOLS), *((name, "regression") for name in REGRESSION)]
every_kind = pytest.mark.parametrize(("strategy", "task"), [*POOLS_OF_TASKS, ("stacking", "classification")])
every_pool = pytest.mark.parametrize(("strategy", "task"), POOLS_OF_TASKS)
"""Not stacking, whose final estimator knows the members by their places."""
every_rule = pytest.mark.parametrize("rule", POOLS)


def drawn(data: st.DataObject, task: str) -> tuple[Ensemble, Floats]:
    answers = data.draw(members_answers() if task == "classification" else members_values())
    return tiny.answering(len(answers), answers.shape[2], task=task), answers


def assert_rows(part: Prediction, whole: Prediction, rows: slice) -> None:
    """To the bit, in every figure of a row."""
    assert_bitwise(part.fused, Fused(whole.fused.probabilities[rows], whole.fused.labels[rows]))
    if part.stages is not None:
        assert whole.stages is not None
        assert_array_equal(part.stages, whole.stages[rows])
    for number, member in enumerate(part.members):
        place = whole.members.index(member)
        assert_array_equal(part.member_probabilities[number], whole.member_probabilities[place, rows])
        if part.contributions is not None:
            assert whole.contributions is not None
            assert_array_equal(part.contributions[number], whole.contributions[place, rows])
    if part.uncertainty is not None:
        for figure in type(part.uncertainty).__slots__:
            assert_array_equal(getattr(part.uncertainty, figure), getattr(whole.uncertainty, figure)[rows])


@every_kind
@laws
@given(data=st.data())
def test_a_rows_answer_is_the_same_alone_to_the_bit(strategy: str, task: str, data: st.DataObject) -> None:
    ensemble, answers = drawn(data, task)
    options = {"strategy": strategy, "uncertainty": True, "contributions": strategy != "stacking"}
    whole = answered(ensemble, answers, **options)
    for row in range(answers.shape[1]):
        rows = slice(row, row + 1)
        assert_rows(answered(ensemble, answers[:, rows].copy(), **options), whole, rows)


@every_rule
@pytest.mark.parametrize("measure", ["confidence", "agreement"])
@laws
@given(data=st.data())
def test_a_rows_way_through_a_cascade_is_the_same_alone_to_the_bit(
    rule: str, measure: str, data: st.DataObject
) -> None:
    answers = data.draw(members_answers(least=2))
    ensemble = cascade_of(answers, data.draw(st.integers(1, len(answers) - 1)), rule=rule, measure=measure)
    options = {
        "strategy": "cascade",
        "cascade_threshold": data.draw(thresholds),
        "uncertainty": True,
        "contributions": True,
    }
    whole = answered(ensemble, answers, **options)
    for row in range(answers.shape[1]):
        rows = slice(row, row + 1)
        assert_rows(answered(ensemble, answers[:, rows].copy(), **options), whole, rows)


@pytest.mark.parametrize("n_members", [2, 5, 16])
@pytest.mark.parametrize("n_outputs", [2, 3, 10, 19])
@pytest.mark.parametrize("strategy", [*STRATEGIES, *(f"cascade of {rule}" for rule in POOLS)])
def test_a_slice_of_a_batch_is_answered_the_same_to_the_bit(strategy: str, n_members: int, n_outputs: int) -> None:
    answers = random_answers(n_members, 23, n_outputs, seed=n_members * 100 + n_outputs)
    strategy, _, rule = strategy.partition(" of ")
    ensemble = cascade_of(answers, n_members // 2, rule=rule or "average")
    options: dict[str, Any] = {"strategy": strategy, "uncertainty": True, "contributions": strategy != "stacking"}
    if rule:
        options["cascade_threshold"] = 0.3
    assert_slices(ensemble, answers, options)


@pytest.mark.parametrize("n_members", [2, 5, 16])
@pytest.mark.parametrize("n_targets", [1, 2, 10])
@pytest.mark.parametrize("strategy", REGRESSION)
def test_a_slice_of_a_regressions_batch_is_answered_the_same_to_the_bit(
    strategy: str, n_members: int, n_targets: int
) -> None:
    ensemble = tiny.answering(n_members, n_targets, task="regression")
    values = random_values(n_members, 23, n_targets, seed=n_members * 100 + n_targets)
    assert_slices(ensemble, values, {"strategy": strategy, "uncertainty": True, "contributions": True})


def assert_slices(ensemble: Ensemble, answers: Floats, options: dict[str, Any]) -> None:
    """Views into the batch, and copies."""
    n_rows = answers.shape[1]
    whole = answered(ensemble, answers, **options)
    for size in (1, 2, 8, 17):
        for start in range(0, n_rows - size + 1, 2):
            rows = slice(start, start + size)
            for part in (answers[:, rows], answers[:, rows].copy()):
                assert_rows(answered(ensemble, part, **options), whole, rows)


@every_rule
@pytest.mark.parametrize("measure", ["confidence", "agreement"])
@laws
@given(data=st.data())
def test_a_cascade_asks_nobody_twice_and_stops_a_row_where_it_is_sure(
    rule: str, measure: str, data: st.DataObject
) -> None:
    answers = data.draw(members_answers(least=3))
    n_members, n_rows, n_classes = answers.shape
    cuts = sorted(data.draw(st.sets(st.integers(1, n_members - 1), min_size=1)))
    parts = np.split(np.arange(n_members)[:: data.draw(st.sampled_from([1, -1]))], cuts)
    stages = tuple(tuple(f"m{k + 1}" for k in part) for part in parts)
    ensemble = tiny.answering(n_members, n_classes, stages=stages, rule=rule, measure=measure)
    threshold = data.draw(thresholds)
    prediction, asks = play(ensemble, answers, strategy="cascade", cascade_threshold=threshold)
    times = np.zeros((n_members, n_rows), dtype=int)
    for ask in asks:
        assert ask.rows is not None
        assert len(ask.rows) > 0
        times[np.ix_(np.array(ask.members), ask.rows)] += 1
    assert times.max() == 1
    assert prediction.stages is not None
    for row, stage in enumerate(prediction.stages):
        had = sorted(int(k) for part in parts[:stage] for k in part)
        assert_array_equal(np.flatnonzero(times[:, row]), had)
        alone = answers[:, row : row + 1]
        for number in range(1, stage + 1):
            have = [f"m{k + 1}" for part in parts[:number] for k in part]
            fused = answered(ensemble, alone, strategy=rule, members=have).fused
            sure = fused.probabilities[0, fused.labels[0]]
            if measure == "agreement":
                chosen = [int(name[1:]) - 1 for name in have]
                sure = np.float32((alone[chosen, 0].argmax(axis=1) == fused.labels[0]).mean())
            if number < stage:
                assert sure < threshold
            elif number < len(parts):
                assert sure >= threshold - 2e-6
        assert_array_equal(prediction.fused.probabilities[row], fused.probabilities[0])
        assert prediction.fused.labels[row] == fused.labels[0]
    asked_for = times[list(prediction.members)].astype(bool)
    assert_array_equal(np.isnan(prediction.member_probabilities).any(axis=2), ~asked_for)
    assert_array_equal(prediction.member_probabilities[asked_for], answers[list(prediction.members)][asked_for])


@every_pool
@laws
@given(data=st.data())
def test_the_order_of_the_members_does_not_matter(strategy: str, task: str, data: st.DataObject) -> None:
    ensemble, answers = drawn(data, task)
    order = tuple(data.draw(st.permutations(range(len(answers)))))
    other = tiny.answering(len(answers), answers.shape[2], task=task, order=order)
    assert other.names == [f"m{k + 1}" for k in order]
    one, two = (
        answered(served, given_answers, strategy=strategy)
        for served, given_answers in ((ensemble, answers), (other, answers[list(order)]))
    )
    assert_same(two.fused, one.fused)
    assert_allclose(two.weights, one.weights[list(order)], rtol=1e-6)


@every_pool
@laws
@given(data=st.data())
def test_a_plan_of_some_members_is_the_fusion_of_theirs(strategy: str, task: str, data: st.DataObject) -> None:
    ensemble, answers = drawn(data, task)
    chosen = sorted(data.draw(st.sets(st.integers(0, len(answers) - 1), min_size=1)))
    prediction = answered(ensemble, answers, strategy=strategy, members=[ensemble.names[k] for k in chosen])
    expected = fuse(
        strategy,
        answers[chosen],
        weights=prediction.plan.weights,
        temperatures=ensemble.temperatures[chosen],
        task=ensemble.manifest.task,
    )
    assert_bitwise(prediction.fused, expected)
    missing: Missing = {k: "raised" for k in range(len(answers)) if k not in chosen}
    degraded, _ = play(ensemble, answers, missing=missing, strategy=strategy, quorum=1)
    assert_bitwise(degraded.fused, prediction.fused)


@every_pool
@laws
@given(data=st.data())
def test_one_member_alone_is_that_member(strategy: str, task: str, data: st.DataObject) -> None:
    ensemble, answers = drawn(data, task)
    chosen = data.draw(st.integers(0, len(answers) - 1))
    fused = answered(ensemble, answers, strategy=strategy, members=[ensemble.names[chosen]]).fused
    own = answers[[chosen]]
    if strategy == "log_linear":
        own = calibrate(own, ensemble.temperatures[[chosen]])
    if strategy == "vote":
        assert_array_equal(fused.labels, own[0].argmax(axis=1))
    else:
        assert_allclose(fused.probabilities, own[0], rtol=1e-6, atol=2e-6)


weighted_kinds = pytest.mark.parametrize(
    ("strategy", "task"),
    [
        *((name, "classification") for name, rule in STRATEGIES.items() if rule.weights != "equal"),
        *((name, "regression") for name, rule in REGRESSION.items() if rule.weights != "equal"),
        ("cascade", "classification"),
    ],
)


def weighing(
    data: st.DataObject, strategy: str, task: str
) -> tuple[Ensemble, Floats, dict[str, float], dict[str, Any]]:
    """An ensemble, answers, weights that are not all zero, and the options."""
    if strategy == "cascade":
        answers = data.draw(members_answers(least=2))
        ensemble = cascade_of(answers, data.draw(st.integers(1, len(answers) - 1)), rule="weighted")
        options: dict[str, Any] = {"strategy": strategy, "cascade_threshold": 1.5}
    else:
        ensemble, answers = drawn(data, task)
        options = {"strategy": strategy}
    numbers = data.draw(st.lists(st.sampled_from([0.0, 0.25, 1.0, 3.0]), min_size=len(answers), max_size=len(answers)))
    assume(any(numbers))
    return ensemble, answers, dict(zip(ensemble.names, numbers, strict=True)), options


@weighted_kinds
@laws
@given(data=st.data())
def test_the_scale_of_the_weights_does_not_matter(strategy: str, task: str, data: st.DataObject) -> None:
    ensemble, answers, weights, options = weighing(data, strategy, task)
    factor = data.draw(st.sampled_from([1e-280, 1e-30, 0.1, 3, 1e30, 1e300]))
    scaled = {name: weight * factor for name, weight in weights.items()}
    one, two = (answered(ensemble, answers, weights=given_weights, **options) for given_weights in (weights, scaled))
    assert_same(two.fused, one.fused)
    assert_allclose(two.weights, one.weights, rtol=1e-6)


@weighted_kinds
@laws
@given(data=st.data())
def test_a_member_of_no_weight_might_as_well_be_absent(strategy: str, task: str, data: st.DataObject) -> None:
    ensemble, answers, weights, options = weighing(data, strategy, task)
    present = {name: weight for name, weight in weights.items() if weight}
    assume(len(present) < len(weights))
    with_them = answered(ensemble, answers, weights=weights, **options)
    without = answered(ensemble, answers, weights=present, members=list(present), **options)
    assert_same(with_them.fused, without.fused)
