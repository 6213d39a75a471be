import numpy as np
import pytest
from numpy.typing import NDArray

from export.fusing.selective import N_SHARES, selective
from server.fusion import Fused, by_highest


def _answers(n: int, seed: int = 0) -> tuple[Fused, NDArray[np.int64]]:
    """Labels drawn from the very probabilities: the confidence is honest."""
    generator = np.random.default_rng(seed)
    p = generator.dirichlet(np.full(4, 0.4), n).astype(np.float32)
    y = (p.cumsum(axis=1) < generator.random((n, 1))).sum(axis=1).clip(0, 3)
    return by_highest(p), y


def test_the_first_point_is_all_rows_and_thresholds_rise() -> None:
    fused, y = _answers(2000)
    points = selective(fused, y)
    assert points[0] == {"threshold": 0.0, "share": 1.0, "accuracy": pytest.approx((fused.labels == y).mean())}
    assert len(points) == N_SHARES
    thresholds, shares = ([point[key] for point in points] for key in ("threshold", "share"))
    assert thresholds == sorted(set(thresholds))
    assert shares == sorted(shares, reverse=True)
    np.testing.assert_allclose(shares, np.arange(N_SHARES, 0, -1) / N_SHARES, atol=0.01)


def test_of_honest_confidence_the_surer_are_right_more_often() -> None:
    accuracies = [point["accuracy"] for point in selective(*_answers(20_000))]
    assert (np.diff(accuracies) > -0.005).all()
    assert accuracies[-1] > accuracies[0] + 0.2


def test_each_point_is_what_abstaining_below_its_threshold_leaves() -> None:
    fused, y = _answers(300)
    confidence = fused.probabilities.max(axis=1)
    for point in selective(fused, y):
        left = ~(confidence < point["threshold"])
        assert point["share"] == pytest.approx(left.mean())
        assert point["accuracy"] == pytest.approx((fused.labels == y)[left].mean())


def test_confidence_that_is_always_the_same_makes_one_or_two_points() -> None:
    fused = Fused(np.tile(np.array([[1, 0]], dtype=np.float32), (10, 1)), np.zeros(10, dtype=np.intp))
    points = selective(fused, np.array([0] * 7 + [1] * 3))
    assert {point["share"] for point in points} == {1.0}
    assert {point["accuracy"] for point in points} == {0.7}
