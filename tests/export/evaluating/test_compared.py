import numpy as np
import pytest

from export.evaluate import Interval, McNemar, evaluate, evaluate_values
from export.evaluating.compared import compare, decide
from server.fusion import Fused

Y = np.random.default_rng(1).integers(0, 3, 400)


def _fused(strength: float, seed: int) -> Fused:
    exponentials = np.exp(strength * np.eye(3)[Y] + np.random.default_rng(seed).normal(0, 1, (len(Y), 3)))
    probabilities = (exponentials / exponentials.sum(axis=1, keepdims=True)).astype(np.float32)
    return Fused(probabilities, probabilities.argmax(axis=1))


def _costs(median: float, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(median, 0.01 * median, 30)


@pytest.mark.parametrize(
    ("interval", "p_value", "higher", "verdict"),
    [
        (Interval(0.02, 0.01, 0.03), 0.01, True, "better"),
        (Interval(0.02, 0.01, 0.03), 0.01, False, "worse"),
        (Interval(-0.02, -0.03, -0.01), 0.01, True, "worse"),
        (Interval(-0.02, -0.03, -0.01), 0.01, False, "better"),
        (Interval(0.02, -0.01, 0.03), 0.01, True, "no real difference"),
        (Interval(0.02, 0.01, 0.03), 0.05, True, "no real difference"),
    ],
)
def test_a_difference_counts_where_interval_and_p_value_agree(
    interval: Interval, p_value: float, higher: bool, verdict: str
) -> None:
    assert decide(interval, p_value, higher=higher).verdict == verdict


def test_a_better_and_dearer_one_is_better_in_all_but_its_cost() -> None:
    scored = evaluate({"good": _fused(3, 0), "poor": _fused(1, 1)}, Y)
    found = compare(scored, "good", "poor", (_costs(40, 0), _costs(20, 1)), McNemar(80, 10, 1e-9), seed=0)
    assert list(found) == ["accuracy", "log_loss", "brier", "ece", "cost_us"]
    assert {metric: found[metric].verdict for metric in ("accuracy", "log_loss", "brier", "cost_us")} == {
        "accuracy": "better",
        "log_loss": "better",
        "brier": "better",
        "cost_us": "worse",
    }
    assert found["accuracy"].p_value == 1e-9
    assert found["cost_us"].interval.low < 20 < found["cost_us"].interval.high
    said = found["accuracy"].to_json()
    assert said["p_value"] == 1e-9
    assert said["difference"].keys() == {"value", "low", "high"}


def test_turned_around_every_verdict_is_the_opposite() -> None:
    scored = evaluate({"good": _fused(3, 0), "poor": _fused(1, 1)}, Y)
    costs = _costs(40, 0), _costs(20, 1)
    there = compare(scored, "good", "poor", costs, McNemar(80, 10, 1e-9), seed=0)
    back = compare(scored, "poor", "good", costs[::-1], McNemar(10, 80, 1e-9), seed=0)
    opposite = {"better": "worse", "worse": "better", "no real difference": "no real difference"}
    for metric, difference in there.items():
        assert back[metric].verdict == opposite[difference.verdict]
        assert back[metric].interval.value == pytest.approx(-difference.interval.value)


def test_one_does_not_differ_from_itself() -> None:
    answer = _fused(2, 0)
    scored = evaluate({"a": answer, "b": answer}, Y)
    found = compare(scored, "a", "b", (_costs(40, 0), _costs(40, 0)), McNemar(0, 0, 1), seed=0)
    assert {difference.verdict for difference in found.values()} == {"no real difference"}
    assert {difference.p_value for difference in found.values()} == {1.0}


def test_a_slight_difference_in_cost_is_none_however_steady() -> None:
    answer = _fused(2, 0)
    scored = evaluate({"a": answer, "b": answer}, Y)
    found = compare(scored, "a", "b", (np.full(30, 40.7), np.full(30, 40.0)), None, seed=0)
    assert found["cost_us"].verdict == "no real difference"
    found = compare(scored, "a", "b", (np.full(30, 41.0), np.full(30, 40.0)), None, seed=0)
    assert found["cost_us"].verdict == "worse"


def test_values_are_compared_by_the_bootstrap_alone() -> None:
    generator = np.random.default_rng(0)
    y = generator.normal(0, 1, (300, 1))
    answers = {
        name: Fused((y + generator.normal(0, noise, y.shape)).astype(np.float32), np.zeros(300, dtype=np.intp))
        for name, noise in (("near", 0.2), ("far", 0.8))
    }
    found = compare(evaluate_values(answers, y), "near", "far", (_costs(9, 0), _costs(9, 0)), None, seed=0)
    assert {metric: difference.verdict for metric, difference in found.items()} == {
        "rmse": "better",
        "mae": "better",
        "r2": "better",
        "cost_us": "no real difference",
    }
