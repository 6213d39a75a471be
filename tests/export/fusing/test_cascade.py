"""The search is fast and knows no ensemble; what it finds is asked of the code that serves."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from export.fusing.cascade import MOST_CUTS, POOLS, Found, find_cascades, fit_cascade
from export.fusing.replay import expected_cost, replay
from server.ensemble import Ensemble
from server.manifest import CascadeSpec
from server.plan import Options
from server.repository import load_version
from tests import tiny

Answers = NDArray[np.float32]
Labels = NDArray[np.int64]
COSTS = [7.0, 1.0, 20.0]
"""The first member is not the cheapest."""


def _world(n: int, sharpness: list[float], seed: int = 0) -> tuple[Answers, Labels]:
    """Members that see the truth, one of three classes, through noise of their own, the sharper the better."""
    generator = np.random.default_rng(seed)
    y = generator.integers(0, 3, n)
    truth = np.eye(3)[y]
    exponentials = np.exp([sharp * truth + generator.normal(0, 1, truth.shape) for sharp in sharpness])
    return (exponentials / exponentials.sum(axis=2, keepdims=True)).astype(np.float32), y


def _ensemble(root: Path, n_members: int, costs: list[float]) -> Ensemble:
    """Fitted weights and temperatures, and these costs."""
    members = tiny.manifest(n_members)["members"]
    for member, cost in zip(members, costs, strict=True):
        member["cost_us"] = cost
    return load_version(tiny.write_ensemble(root, n_members=n_members, members=members))


def _with(ensemble: Ensemble, spec: CascadeSpec, root: Path, number: int) -> Ensemble:
    members = [member.model_dump(exclude_none=True) for member in ensemble.manifest.members]
    cascade = spec.model_dump(exclude_none=True)
    return load_version(
        tiny.write_ensemble(root, n_members=len(members), version=number, members=members, cascade=cascade)
    )


def _find(ensemble: Ensemble, answers: Answers, y: Labels, strategy: str, tolerance: float) -> list[Found]:
    return find_cascades(
        ensemble.names,
        [member.cost_us or 0.0 for member in ensemble.manifest.members],
        answers,
        y,
        strategy=strategy,
        weights=ensemble.weights(strategy),
        temperatures=ensemble.temperatures,
        tolerance=tolerance,
    )


@pytest.mark.parametrize("strategy", POOLS)
def test_the_server_finds_the_same_cost_and_accuracy_as_the_search(strategy: str, tmp_path: Path) -> None:
    ensemble = _ensemble(tmp_path / "plain", 3, COSTS)
    answers, y = _world(400, [1.5, 1.0, 2.5])
    found = _find(ensemble, answers, y, strategy, tolerance=0.02)
    assert found
    assert {one.spec.measure for one in found} >= {"confidence"}
    for number, one in enumerate(found, start=1):
        served = replay(_with(ensemble, one.spec, tmp_path, number), answers, Options(strategy="cascade"))
        assert (served.fused.labels == y).mean() == pytest.approx(one.accuracy, abs=1e-12)
        assert expected_cost(served) == pytest.approx(one.cost_us, rel=1e-9)


@pytest.mark.parametrize("tolerance", [0.0, 0.005, 0.05])
@pytest.mark.parametrize("strategy", ["average", "log_linear"])
def test_what_is_kept_is_accurate_enough_and_the_cheapest(strategy: str, tolerance: float, tmp_path: Path) -> None:
    ensemble = _ensemble(tmp_path / "plain", 3, COSTS)
    answers, y = _world(600, [2.0, 1.5, 2.5])
    everyone = replay(ensemble, answers, Options(strategy=strategy))
    found = _find(ensemble, answers, y, strategy, tolerance)
    least = (everyone.fused.labels == y).mean() - tolerance
    assert all(one.accuracy >= least - 1e-9 for one in found)
    best = fit_cascade(
        ensemble.names,
        COSTS,
        answers,
        y,
        strategy=strategy,
        weights=ensemble.weights(strategy),
        temperatures=ensemble.temperatures,
        tolerance=tolerance,
    )
    assert best is not None
    assert best.tolerance == tolerance
    served = replay(_with(ensemble, best, tmp_path, 1), answers, Options(strategy="cascade"))
    assert expected_cost(served) == pytest.approx(min(one.cost_us for one in found))
    assert expected_cost(served) < sum(COSTS)


def test_of_two_members_no_threshold_is_cheaper_that_is_accurate_enough(tmp_path: Path) -> None:
    answers, y = _world(150, [1.5, 2.5])
    ensemble = _ensemble(tmp_path / "plain", 2, [1.0, 10.0])
    everyone = replay(ensemble, answers, Options(strategy="average"))
    least = (everyone.fused.labels == y).mean() - 0.01
    best = min(_find(ensemble, answers, y, "average", 0.01), key=lambda one: one.rank)
    staged = _with(ensemble, best.spec, tmp_path, 1)
    costs = []
    for threshold in np.unique(answers[0].max(axis=1)):
        served = replay(staged, answers, Options(strategy="cascade", cascade_threshold=float(threshold)))
        if (served.fused.labels == y).mean() >= least:
            costs.append(expected_cost(served))
    assert best.cost_us == pytest.approx(min(costs), abs=0.07)  # a row is a fifteenth of it


def test_more_tolerance_is_never_dearer() -> None:
    answers, y = _world(800, [1.0, 1.5, 2.5])
    costs = []
    for tolerance in (0.0, 0.01, 0.05, 1.0):
        found = find_cascades(
            ["a", "b", "c"],
            COSTS,
            answers,
            y,
            strategy="average",
            weights=None,
            temperatures=np.ones(3, dtype=np.float32),
            tolerance=tolerance,
        )
        costs.append(min((one.cost_us for one in found), default=sum(COSTS)))
    assert costs == sorted(costs, reverse=True)
    assert costs[-1] == pytest.approx(1.0), "whatever it answers, the cheapest alone will do"


def _fit(answers: Answers, y: Labels, costs: list[float], **more: NDArray[np.float64]) -> CascadeSpec | None:
    n = len(answers)
    names = [f"m{k}" for k in range(n)]
    weights = more.get("weights")
    ones = np.ones(n, dtype=np.float32)
    return fit_cascade(names, costs, answers, y, strategy="weighted", weights=weights, temperatures=ones)


def test_members_run_by_cost_and_those_without_weight_do_not() -> None:
    answers, y = _world(800, [2.0, 3.0, 1.5, 2.0])
    spec = _fit(answers, y, [8.0, 30.0, 1.0, 4.0], weights=np.array([0.3, 0.4, 0.2, 0.0]))
    assert spec is not None
    assert [name for stage in spec.stages for name in stage.members] == ["m2", "m0", "m1"]
    assert all(0 <= stage.threshold <= 1 for stage in spec.stages)
    assert all(stage.threshold == float(f"{stage.threshold:.6g}") for stage in spec.stages)


def test_one_member_makes_no_cascade_and_nor_do_two_of_which_one_has_no_weight() -> None:
    answers, y = _world(100, [2.0, 1.0])
    assert _fit(answers[:1], y, [1.0]) is None
    assert _fit(answers, y, [1.0, 2.0], weights=np.array([0.0, 1.0])) is None


def test_there_is_none_where_nothing_is_saved() -> None:
    """The cheap member is never surer than where it is wrong."""
    answers, y = _world(300, [3.0])
    wrong = np.eye(3, dtype=np.float32)[(answers[0].argmax(axis=1) + 1) % 3]
    assert _fit(np.stack([wrong, answers[0]]), y, [1.0, 9.0], weights=np.array([0.01, 0.99])) is None
    assert _fit(answers[[0, 0]], y, [0.0, 0.0]) is None


def test_the_dearer_of_many_members_run_together() -> None:
    answers, y = _world(300, [0.5] * 12 + [2.0])
    spec = _fit(answers, y, [1.0] * 12 + [500.0])
    assert spec is None or len(spec.stages[-1].members) >= 13 - MOST_CUTS
    found = find_cascades(
        [f"m{k}" for k in range(13)],
        [float(k + 1) for k in range(13)],
        answers,
        y,
        strategy="average",
        weights=None,
        temperatures=np.ones(13, dtype=np.float32),
        tolerance=0.2,
    )
    assert found
    assert max(len(one.spec.stages) for one in found) <= MOST_CUTS + 1
    assert all(len(one.spec.stages[-1].members) >= 13 - MOST_CUTS for one in found)
