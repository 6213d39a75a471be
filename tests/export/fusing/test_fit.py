import numpy as np
import orjson
import pytest
from numpy.typing import NDArray

from export.fusing import fit
from export.fusing.cascade import POOLS, TOLERANCE
from server.fusion import STRATEGIES, calibrate, fuse
from server.manifest import CascadeSpec

N_CLASSES = 4


POOLS_ALONE = [name for name in STRATEGIES if name != "stacking"]


def _world(n: int, sharpness: list[float], seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Members that see the truth through noise of their own, the sharper the better: `(n_members, n, 4)`, `(n,)`."""
    generator = np.random.default_rng(seed)
    y = generator.integers(0, N_CLASSES, n)
    truth = np.eye(N_CLASSES)[y]
    logits = np.stack([sharp * truth + generator.normal(0, 1, truth.shape) for sharp in sharpness])
    exponentials = np.exp(logits)
    return (exponentials / exponentials.sum(axis=2, keepdims=True)).astype(np.float32), y


def _log_loss(probabilities: NDArray[np.float32], y: NDArray[np.int64]) -> float:
    return float(-np.log(probabilities[np.arange(len(y)), y].astype(np.float64)).mean())


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_the_temperature_undoes_the_one_that_was_put_in(temperature: float) -> None:
    """Labels drawn from the very probabilities are calibrated; raised to a power they need that power's inverse."""
    generator = np.random.default_rng(1)
    honest = generator.dirichlet(np.ones(N_CLASSES), 20_000).astype(np.float32)
    y = (honest.cumsum(axis=1) < generator.random((len(honest), 1))).sum(axis=1).clip(0, N_CLASSES - 1)
    distorted = calibrate(honest[None], np.array([1 / temperature], dtype=np.float32))[0]
    assert fit.fit_temperature(distorted, y) == pytest.approx(temperature, rel=0.06)


def test_the_temperature_of_a_member_that_is_sure_and_wrong_is_bounded() -> None:
    sure = np.tile(np.array([[1, 0, 0, 0]], dtype=np.float32), (10, 1))
    assert fit.fit_temperature(sure, np.ones(10, dtype=np.int64)) == pytest.approx(fit.HIGHEST_TEMPERATURE, rel=0.01)


@pytest.mark.parametrize("strategy", ["weighted", "log_linear"])
def test_no_other_weights_on_the_simplex_do_better(strategy: str) -> None:
    probabilities, y = _world(2000, [2.0, 1.0, 0.3])
    fitting = {"weighted": fit.fit_linear_pool, "log_linear": fit.fit_log_linear_pool}[strategy]
    found = fitting(probabilities, y)
    assert found.weights.sum() == pytest.approx(1)
    assert (found.weights >= 0).all()
    assert found.log_loss == pytest.approx(
        _log_loss(fuse(strategy, probabilities, weights=found.weights).probabilities, y), abs=1e-5
    )
    for other in np.random.default_rng(3).dirichlet(np.ones(3), 200):
        assert _log_loss(fuse(strategy, probabilities, weights=other).probabilities, y) >= found.log_loss - 1e-6


def test_better_members_weigh_more() -> None:
    probabilities, y = _world(3000, [1.3, 1.0, 0.1])
    weights = fit.fit_linear_pool(probabilities, y).weights
    assert weights[0] > weights[1] > weights[2]


def test_the_weights_of_one_member_are_one() -> None:
    probabilities, y = _world(100, [1.0])
    for fitting in (fit.fit_linear_pool, fit.fit_log_linear_pool, fit.select_greedily):
        np.testing.assert_allclose(fitting(probabilities, y).weights, [1.0])


def test_weights_are_found_though_a_member_answers_zeros_and_ones() -> None:
    probabilities, y = _world(500, [2.0, 1.0])
    hard = np.eye(N_CLASSES, dtype=np.float32)[probabilities[1].argmax(axis=1)]
    for fitting in (fit.fit_linear_pool, fit.fit_log_linear_pool, fit.select_greedily):
        weights = fitting(np.stack([probabilities[0], hard]), y).weights
        assert np.isfinite(weights).all()
        assert weights.sum() == pytest.approx(1)


def test_greedy_selection_takes_the_best_member_first_and_never_loses_to_it() -> None:
    probabilities, y = _world(2000, [0.5, 2.0, 1.0])
    alone = [_log_loss(member, y) for member in probabilities]
    first = fit.select_greedily(probabilities, y, rounds=1)
    assert first.weights.tolist() == [0, 1, 0]
    assert first.log_loss == pytest.approx(min(alone), abs=1e-6)
    assert fit.select_greedily(probabilities, y).log_loss <= min(alone)


def test_greedy_selection_comes_close_to_the_optimum_and_not_below_it() -> None:
    probabilities, y = _world(2000, [2.0, 1.5, 1.0])
    optimum, greedy = fit.fit_linear_pool(probabilities, y), fit.select_greedily(probabilities, y)
    assert optimum.log_loss - 1e-6 <= greedy.log_loss <= optimum.log_loss + 1e-3


def test_greedy_selection_tells_its_way_up_to_the_round_it_keeps() -> None:
    probabilities, y = _world(500, [2.0, 1.5, 1.0])
    found = fit.select_greedily(probabilities, y)
    members = [member for member, _ in found.path]
    np.testing.assert_allclose(np.bincount(members, minlength=3) / len(members), found.weights)
    assert members[0] == 0
    assert found.path[0][1] == pytest.approx(_log_loss(probabilities[0], y), abs=1e-6)
    assert found.path[-1][1] == found.log_loss == min(loss for _, loss in found.path)


def test_greedy_selection_starts_from_the_best_ones() -> None:
    """The second best is the best one's twin, and would bring nothing."""
    probabilities, y = _world(2000, [1.0, 1.1])
    twins = np.stack([probabilities[0], probabilities[1], probabilities[1]])
    assert [member for member, _ in fit.select_greedily(twins, y, rounds=2).path] == [1, 0]
    taken = fit.select_greedily(twins, y, start=3).path[:3]
    assert [member for member, _ in taken] == [1, 2, 0]


def test_greedy_selection_adds_only_what_it_may() -> None:
    probabilities, y = _world(1000, [2.0, 1.9, 1.8])
    asked: list[list[bool]] = []

    def may_add(chosen: NDArray[np.bool_]) -> NDArray[np.bool_]:
        asked.append(chosen.tolist())
        return np.array([not chosen[2], False, True])

    found = fit.select_greedily(probabilities, y, rounds=20, start=2, may_add=may_add)
    assert found.weights[1] == 0
    assert found.weights[2] > 0
    assert asked[:3] == [[False, False, False], [True, False, False], [True, False, True]]


def _fit(n: int, sharpness: list[float], **more: float) -> fit.Fitted:
    """On the first and the second third of so many rows; costs rise with the members."""
    probabilities, y = _world(n, sharpness)
    a, b = n // 3, 2 * n // 3
    return fit.fit_fusion(
        ["a", "b", "c"][: len(sharpness)],
        probabilities[:, :a],
        y[:a],
        probabilities[:, a:b],
        y[a:b],
        costs_us=[10.0**k for k in range(len(sharpness))],
        **more,
    )


def test_fitting_finds_weights_that_win_on_rows_they_have_not_seen() -> None:
    probabilities, y = _world(6000, [2.0, 1.5, 0.2])
    fitted = _fit(6000, [2.0, 1.5, 0.2])
    unseen, y_unseen = probabilities[:, 4000:], y[4000:]
    weights = np.array([fitted.weights[name]["weighted"] for name in fitted.names])
    weighted = _log_loss(fuse("weighted", unseen, weights=weights).probabilities, y_unseen)
    assert weighted < min(_log_loss(member, y_unseen) for member in unseen)
    assert weighted < _log_loss(fuse("average", unseen).probabilities, y_unseen)
    assert fitted.names == list(fitted.weights) == ["a", "b", "c"]
    assert fitted.default_strategy == "stacking"  # it knows of the classes what no pool knows
    assert set(fitted.choice["fits"]) == {"simplex", "greedy"}
    assert fitted.choice["kept"] in fitted.choice["fits"]


def test_stacking_stands_for_election_by_what_it_answers_out_of_its_folds() -> None:
    fitted = _fit(900, [2.0, 1.5])
    assert fitted.stacking is not None
    assert set(fitted.validation.names) == set(STRATEGIES)
    stood = fitted.validation.scores("stacking")["log_loss"].value
    _, y = _world(900, [2.0, 1.5])
    assert stood == pytest.approx(_log_loss(fitted.stacking.out_of_fold[:300], y[:300]), abs=1e-6)


def test_members_whose_classes_are_in_another_order_make_stacking_the_default() -> None:
    probabilities, y = _world(1200, [2.0, 2.0])
    turned = probabilities[:, :, ::-1]
    fitted = fit.fit_fusion(["a", "b"], turned[:, :600], y[:600], turned[:, 600:], y[600:], costs_us=[1.0, 2.0])
    assert fitted.default_strategy == "stacking"


def test_stacking_that_is_better_by_chance_is_not_the_default() -> None:
    """The pools can leave a member out; stacking must be surely better to be worth that."""
    chances = 0
    for n in range(600, 1200, 60):
        fitted = _fit(n, [2.0, 1.5])
        gain = fitted.validation.difference("stacking", fitted.validation.best(POOLS_ALONE, "log_loss"), "log_loss")
        chances += gain.value < 0 < gain.high
        assert (fitted.default_strategy == "stacking") == (gain.high < 0)
    assert chances


def test_the_cascade_is_fused_by_the_best_pool_and_is_not_the_default() -> None:
    fitted = _fit(3000, [1.5, 2.5])
    assert fitted.cascade is not None
    assert fitted.cascade.strategy == fitted.validation.best(POOLS, "log_loss")
    assert fitted.cascade.tolerance == TOLERANCE
    assert [stage.members for stage in fitted.cascade.stages] == [["a"], ["b"]]
    assert "cascade" not in fitted.validation.names
    assert fitted.notes == ()


def test_its_tolerance_is_the_one_that_is_asked_for() -> None:
    fitted = _fit(900, [1.5, 2.5], cascade_tolerance=0.05)
    assert fitted.cascade is not None
    assert fitted.cascade.tolerance == 0.05


def test_what_there_is_not_is_told() -> None:
    probabilities, y = _world(400, [2.0])
    known = y != 1
    answers, truth = probabilities[:, known], y[known]
    fitted = fit.fit_fusion(["a"], answers, truth, answers, truth, costs_us=[1.0])
    assert fitted.stacking is None
    assert fitted.cascade is None
    assert "stacking" not in fitted.validation.names
    assert fitted.notes[0].startswith("no stacking: ")
    assert fitted.notes[1] == "no cascade: it takes two members"
    same = fit.fit_fusion(["a", "b"], answers[[0, 0]], truth, answers[[0, 0]], truth, costs_us=[0.0, 0.0])
    assert same.notes[1] == "no cascade: none costs less and comes within 0.0005 of the accuracy of all members"
    record = orjson.loads(orjson.dumps(same.to_json()))
    assert record["stacking"] is None
    assert record["cascade"] is None
    assert record["notes"] == list(same.notes)


def test_a_fit_is_ready_for_json() -> None:
    fitted = _fit(900, [2.0, 1.5])
    record = orjson.loads(orjson.dumps(fitted.to_json()))
    assert list(record["members"]) == ["a", "b"]
    assert record["members"]["b"] == {"temperature": fitted.temperatures["b"], "weights": fitted.weights["b"]}
    assert set(record["members"]["a"]["weights"]) == {"weighted", "log_linear"}
    scores = {name: metrics["log_loss"]["value"] for name, metrics in record["validation"].items()}
    assert scores.keys() == STRATEGIES.keys()
    assert record["default_strategy"] == fitted.default_strategy
    assert set(record["choice"]) == {"kept", "fits"}
    assert record["stacking"]["rows"] == 600
    assert CascadeSpec.model_validate(record["cascade"]) == fitted.cascade
