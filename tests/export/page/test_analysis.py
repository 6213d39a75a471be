import numpy as np
import pytest

from export.evaluate import evaluate
from export.page import analysis
from export.page.analysis import confusion, reliability, subsets
from server.fusion import STRATEGIES, Fused, fuse

Y = np.array([0, 1, 2, 1])
CERTAIN = np.array([[0.9, 0.1, 0.0], [0.2, 0.7, 0.1], [0.6, 0.2, 0.2], [0.1, 0.9, 0.0]], dtype=np.float32)
UNSURE = np.array([[0.4, 0.3, 0.3], [0.3, 0.4, 0.3], [0.3, 0.3, 0.4], [0.4, 0.3, 0.3]], dtype=np.float32)


def _fused(probabilities: np.ndarray) -> Fused:
    return Fused(probabilities, probabilities.argmax(axis=1))


def test_confusion_counts_rows_by_truth_and_answer() -> None:
    counts = np.array(confusion(_fused(CERTAIN).labels, Y, 3))
    assert counts.sum() == 4
    np.testing.assert_array_equal(counts, [[1, 0, 0], [0, 2, 0], [1, 0, 0]])


def test_reliability_adds_up_to_the_expected_calibration_error() -> None:
    generator = np.random.default_rng(3)
    p = generator.dirichlet(np.ones(3), 500).astype(np.float32)
    y = generator.integers(0, 3, 500)
    bins = reliability(_fused(p), y)
    assert sum(entry["count"] for entry in bins) == 500
    ece = sum(abs(entry["confidence"] - entry["accuracy"]) * entry["count"] / 500 for entry in bins)
    assert ece == pytest.approx(evaluate({"p": _fused(p)}, y).scores("p")["ece"].value, abs=1e-6)


def test_every_subset_is_fused_as_the_server_would() -> None:
    answers = np.stack([CERTAIN, UNSURE])
    weights = {"weighted": np.array([0.75, 0.25]), "log_linear": np.array([1.0, 0.0])}
    temperatures = np.array([1.0, 2.0], dtype=np.float32)
    found = subsets(
        ["sure", "unsure"],
        answers,
        Y,
        costs=[10.0, 1.0],
        weights={name: weights.get(name) for name in STRATEGIES},
        temperatures=temperatures,
    )
    told = {(tuple(entry["members"]), entry["strategy"]): entry for entry in found}
    both = told[("sure", "unsure"), "weighted"]
    fused = fuse("weighted", answers, weights=weights["weighted"], temperatures=temperatures)
    assert both["cost_us"] == 11
    assert both["accuracy"] == pytest.approx((fused.labels == Y).mean())
    scores = evaluate({"both": fused}, Y).scores("both")
    assert both["log_loss"] == pytest.approx(scores["log_loss"].value, abs=1e-6)
    assert told[("sure",), "average"]["cost_us"] == 10
    assert (("unsure",), "log_linear") not in told, "all its weights are zero"


def _scored(answers: np.ndarray, y: np.ndarray) -> list[dict[str, object]]:
    """By equal weights."""
    n = len(answers)
    return subsets([f"m{k}" for k in range(n)], answers, y, [1.0] * n, {}, np.ones(n, dtype=np.float32))


def test_of_many_members_there_are_only_the_small_subsets_and_all() -> None:
    found = _scored(np.stack([CERTAIN] * 9), Y)
    sizes = [len(entry["members"]) for entry in found if entry["strategy"] == "average"]  # type: ignore[arg-type]
    assert sizes == [1] * 9 + [2] * 36 + [3] * 84 + [9]


def test_of_many_rows_evenly_spaced_ones_are_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(analysis, "MOST_ROWS", 4)
    answers, y = np.repeat(CERTAIN[None], 5, axis=1), np.repeat(Y, 5)
    assert len(_scored(answers, y)) == 2
    assert _scored(answers, y)[0]["accuracy"] == pytest.approx(0.75)


def test_a_bin_without_rows_is_left_out() -> None:
    assert [entry["count"] for entry in reliability(_fused(CERTAIN), Y)] == [1, 1, 2]
