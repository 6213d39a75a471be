import dataclasses

import numpy as np
import pytest
from sklearn.metrics import log_loss, mean_absolute_error, r2_score, root_mean_squared_error

from export.evaluate import METRICS, VALUE_METRICS, bootstrap_p_value, evaluate, evaluate_values, mcnemar
from server.fusion import Fused

Y = np.array([0, 1, 1, 2])
BY_HAND = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.6, 0.3, 0.1], [0.2, 0.2, 0.6]], dtype=np.float32)


def _fused(probabilities: np.ndarray) -> Fused:
    return Fused(probabilities.astype(np.float32), probabilities.argmax(axis=1))


def _noisy(n: int, strength: float, seed: int) -> tuple[Fused, np.ndarray]:
    generator = np.random.default_rng(seed)
    y = np.random.default_rng(99).integers(0, 3, n)
    logits = strength * np.eye(3)[y] + generator.normal(0, 1, (n, 3))
    exponentials = np.exp(logits)
    return _fused(exponentials / exponentials.sum(axis=1, keepdims=True)), y


def test_the_metrics_of_four_rows_are_those_worked_out_by_hand() -> None:
    scores = evaluate({"a": _fused(BY_HAND)}, Y).scores("a")
    assert scores["accuracy"].value == 0.75
    assert scores["log_loss"].value == pytest.approx(-(np.log([0.7, 0.8, 0.3, 0.6])).mean(), abs=1e-6)
    # (.3² + .2² + .1²) + (.1² + .2² + .1²) + (.6² + .7² + .1²) + (.2² + .2² + .4²), over four
    assert scores["brier"].value == pytest.approx((0.14 + 0.06 + 0.86 + 0.24) / 4, abs=1e-6)
    # bins of 1/15: .7 right in [.667, .733), .8 right in [.8, .867), .6 wrong and .6 right in [.6, .667)
    assert scores["ece"].value == pytest.approx((0.3 + 0.2 + abs(1.2 - 1)) / 4, abs=1e-6)


def test_log_loss_is_scikit_learns() -> None:
    answer, y = _noisy(500, 1.0, 0)
    value = evaluate({"a": answer}, y).scores("a")["log_loss"].value
    assert value == pytest.approx(log_loss(y, answer.probabilities, labels=[0, 1, 2]), abs=1e-5)


def test_accuracy_goes_by_the_labels_for_a_vote_breaks_its_ties_elsewhere() -> None:
    halves = np.array([[0.5, 0.5]], dtype=np.float32)
    answers = {"first": Fused(halves, np.array([0])), "second": Fused(halves, np.array([1]))}
    scored = evaluate(answers, np.array([1]))
    assert [scored.scores(name)["accuracy"].value for name in answers] == [0, 1]


def test_a_probability_of_zero_for_the_truth_costs_much_but_not_infinity() -> None:
    sure = np.array([[1, 0]], dtype=np.float32)
    assert evaluate({"a": _fused(sure)}, np.array([1])).scores("a")["log_loss"].value == pytest.approx(16.118, abs=1e-3)


def test_intervals_hold_the_value_and_narrow_with_more_rows() -> None:
    widths = []
    for n in (200, 5000):
        answer, y = _noisy(n, 1.0, 0)
        accuracy = evaluate({"a": answer}, y).scores("a")["accuracy"]
        assert accuracy.low <= accuracy.value <= accuracy.high
        widths.append(accuracy.high - accuracy.low)
    assert widths[1] < widths[0] / 3


def test_the_interval_of_an_accuracy_is_the_binomials() -> None:
    answer, y = _noisy(2000, 1.0, 0)
    accuracy = evaluate({"a": answer}, y).scores("a")["accuracy"]
    error = 1.96 * np.sqrt(accuracy.value * (1 - accuracy.value) / len(y))
    assert accuracy.low == pytest.approx(accuracy.value - error, abs=0.004)
    assert accuracy.high == pytest.approx(accuracy.value + error, abs=0.004)


def test_differences_are_paired() -> None:
    answer, y = _noisy(300, 1.0, 0)
    better, _ = _noisy(300, 3.0, 1)
    scored = evaluate({"a": answer, "twin": answer, "better": better}, y)
    assert dataclasses.astuple(scored.difference("a", "twin", "log_loss")) == pytest.approx((0, 0, 0), abs=1e-6)
    gain = scored.difference("better", "a", "accuracy")
    assert gain.low > 0
    assert gain.excludes_zero
    assert scored.difference("better", "a", "log_loss").high < 0


def test_best_is_highest_accuracy_and_lowest_of_all_else() -> None:
    answer, y = _noisy(300, 1.0, 0)
    better, _ = _noisy(300, 3.0, 1)
    scored = evaluate({"a": answer, "better": better}, y)
    assert [scored.best(["a", "better"], metric) for metric in METRICS[:3]] == ["better"] * 3


def test_the_same_seed_gives_the_same_intervals() -> None:
    answer, y = _noisy(100, 1.0, 0)
    first, second = (evaluate({"a": answer}, y, seed=5) for _ in range(2))
    assert first.scores("a") == second.scores("a")


# ---- McNemar --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("only_first", "only_second", "p_value"),
    [
        (1, 7, 2 * (1 + 8) / 2**8),  # of 8 tosses 0 or 1 heads, and as many tails
        (7, 1, 2 * (1 + 8) / 2**8),
        (10, 0, 2 / 2**10),
        (5, 5, 1),
        (0, 0, 1),
    ],
)
def test_mcnemar_is_the_exact_binomial_of_the_discordant_rows(
    only_first: int, only_second: int, p_value: float
) -> None:
    first = np.array([True] * only_first + [False] * only_second + [True, False] * 20)
    second = np.array([False] * only_first + [True] * only_second + [True, False] * 20)
    found = mcnemar(first, second)
    assert (found.only_first, found.only_second) == (only_first, only_second)
    assert found.p_value == pytest.approx(p_value, rel=1e-9)


@pytest.mark.parametrize(
    ("differences", "p_value"),
    [
        ([1.0] * 1999, 2 / 2000),  # none is beyond zero, but no bootstrap shows that nothing ever is
        ([-1.0] * 1999, 2 / 2000),
        ([1.0] * 90 + [-1.0] * 9, 2 * 10 / 100),
        ([0.0] * 9, 1),
    ],
)
def test_the_p_value_of_a_bootstrap_counts_what_lies_beyond_zero(differences: list[float], p_value: float) -> None:
    assert bootstrap_p_value(np.array(differences)) == pytest.approx(p_value)


def test_an_answer_does_not_differ_from_its_twin() -> None:
    answer, y = _noisy(300, 1.0, 0)
    scored = evaluate({"a": answer, "twin": answer}, y)
    for metric in METRICS:
        assert dataclasses.astuple(scored.difference("a", "twin", metric)) == (0, 0, 0)
        assert scored.p_value("a", "twin", metric) == 1


def test_a_clear_difference_has_a_small_p_value_and_a_slight_one_a_large() -> None:
    answer, y = _noisy(300, 1.0, 0)
    scored = evaluate({"a": answer, "better": _noisy(300, 3.0, 1)[0], "alike": _noisy(300, 1.0, 2)[0]}, y)
    assert scored.p_value("better", "a", "log_loss") < 0.01
    assert scored.p_value("alike", "a", "accuracy") > 0.05


# ---- Regression -----------------------------------------------------------------------------------------------------


def _values(values: list[list[float]]) -> Fused:
    return Fused(np.array(values, dtype=np.float32), np.zeros(len(values), dtype=np.intp))


def test_the_metrics_of_values_are_those_worked_out_by_hand() -> None:
    y = np.array([[1.0], [2.0], [3.0], [6.0]])
    scored = evaluate_values({"a": _values([[1.0], [4.0], [3.0], [4.0]])}, y)
    assert scored.metrics == VALUE_METRICS
    scores = scored.scores("a")
    assert scores["rmse"].value == pytest.approx(np.sqrt(8 / 4))
    assert scores["mae"].value == pytest.approx(1)
    assert scores["r2"].value == pytest.approx(1 - 8 / 14)  # the mean is 3: 4 + 1 + 0 + 9


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_the_metrics_of_several_targets_are_scikit_learns(offset: float) -> None:
    generator = np.random.default_rng(0)
    y = generator.normal(0, [1, 50], (200, 2)) + offset
    answer = Fused((y + generator.normal(0, [1, 5], y.shape)).astype(np.float32), np.zeros(200, dtype=np.intp))
    scores = evaluate_values({"a": answer}, y).scores("a")
    assert scores["rmse"].value == pytest.approx(root_mean_squared_error(y, answer.probabilities), rel=1e-6)
    assert scores["mae"].value == pytest.approx(mean_absolute_error(y, answer.probabilities), rel=1e-6)
    assert scores["r2"].value == pytest.approx(r2_score(y, answer.probabilities), rel=1e-6)


@pytest.mark.parametrize(("answered", "r2"), [(5.0, 1.0), (6.0, 0.0)])
def test_a_target_that_does_not_vary_is_explained_or_it_is_not(answered: float, r2: float) -> None:
    scores = evaluate_values({"a": _values([[answered]] * 4)}, np.full((4, 1), 5.0)).scores("a")
    assert dataclasses.astuple(scores["r2"]) == (r2, r2, r2)


def test_resamples_of_values_hold_the_figure_and_are_paired() -> None:
    generator = np.random.default_rng(0)
    y = generator.normal(0, 1, (400, 1))
    near, far = (_values((y + generator.normal(0, noise, y.shape)).tolist()) for noise in (0.5, 0.6))
    scored = evaluate_values({"near": near, "far": far}, y)
    for interval in scored.scores("near").values():
        assert interval.low < interval.value < interval.high
    assert scored.difference("near", "far", "rmse").high < 0
    assert scored.difference("near", "far", "r2").low > 0
    assert [scored.best(["near", "far"], metric) for metric in VALUE_METRICS] == ["near"] * 3
