import numpy as np
import pytest
from numpy.typing import NDArray

from export import fit
from server.fusion import calibrate, fuse
from server.manifest import MemberSpec

N_CLASSES = 4


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


def test_fitting_writes_members_that_win_on_rows_they_have_not_seen() -> None:
    probabilities, y = _world(6000, [2.0, 1.5, 0.2])
    members = [MemberSpec(name=f"m{k}", file="f.onnx", output="p", gate=k) for k in range(3)]
    fitted = fit.fit_fusion(members, probabilities[:, :2000], y[:2000], probabilities[:, 2000:4000], y[2000:4000])
    unseen, y_unseen = probabilities[:, 4000:], y[4000:]
    weights = np.array([member.weights["weighted"] for member in fitted.members])
    weighted = _log_loss(fuse("weighted", unseen, weights=weights).probabilities, y_unseen)
    assert weighted < min(_log_loss(member, y_unseen) for member in unseen)
    assert weighted < _log_loss(fuse("average", unseen).probabilities, y_unseen)
    assert [member.name for member in fitted.members] == ["m0", "m1", "m2"]
    assert fitted.default_strategy == fitted.validation.best(fitted.validation.names, "log_loss")
    assert set(fitted.choice["fits"]) == {"simplex", "greedy"}
    assert fitted.choice["kept"] in fitted.choice["fits"]
