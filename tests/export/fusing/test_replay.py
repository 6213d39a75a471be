from pathlib import Path

import numpy as np
import pytest

from export.fusing.replay import SWEEP, expected_cost, replay, stages, sweep
from server.ensemble import Ensemble
from server.plan import Options, make_plan
from server.predicting import predict
from server.repository import load_version
from tests import tiny

N = 3
CASCADE = {
    "strategy": "log_linear",
    "stages": [{"members": ["m2"], "threshold": 0.7}, {"members": ["m1"], "threshold": 0.6}, {"members": ["m3"]}],
}


@pytest.fixture(name="ensemble")
def _ensemble(tmp_path: Path) -> Ensemble:
    members = tiny.manifest(N)["members"]
    for cost, member in zip((2.0, 1.0, 10.0), members, strict=True):
        member["cost_us"] = cost
    return load_version(tiny.write_ensemble(tmp_path, n_members=N, members=members, cascade=CASCADE))


@pytest.mark.parametrize("strategy", ["average", "log_linear", "vote", "cascade"])
def test_recorded_answers_are_fused_as_those_of_members_that_run(ensemble: Ensemble, strategy: str) -> None:
    x = tiny.rows(200)
    told, ran = (
        replay(ensemble, ensemble.run(x), Options(strategy=strategy)),
        predict(ensemble, x, make_plan(ensemble, Options(strategy=strategy))),
    )
    np.testing.assert_allclose(told.fused.probabilities, ran.fused.probabilities, atol=1e-6)
    np.testing.assert_array_equal(told.fused.labels, ran.fused.labels)
    if strategy == "cascade":
        np.testing.assert_array_equal(told.stages, ran.stages)


def test_a_row_costs_the_stages_that_it_came_to(ensemble: Ensemble) -> None:
    answers = ensemble.run(tiny.rows(200))
    prediction = replay(ensemble, answers, Options(strategy="cascade"))
    assert prediction.stages is not None
    counts = np.bincount(prediction.stages, minlength=4)[1:]
    assert (counts > 0).all()
    assert expected_cost(prediction) == pytest.approx((counts @ [1, 3, 13]) / 200)
    told = stages(prediction)
    assert [stage["members"] for stage in told] == [["m2"], ["m1"], ["m3"]]
    assert [stage["threshold"] for stage in told] == [0.7, 0.6, None]
    assert [stage["cost_us"] for stage in told] == [1, 2, 10]
    np.testing.assert_allclose([stage["share"] for stage in told], counts / 200)


def test_without_a_cascade_every_row_costs_all_members(ensemble: Ensemble) -> None:
    prediction = replay(ensemble, ensemble.run(tiny.rows(5)), Options(strategy="average"))
    assert expected_cost(prediction) == 13
    assert stages(prediction) == []


def test_the_higher_the_threshold_the_dearer(ensemble: Ensemble) -> None:
    answers = ensemble.run(tiny.rows(300))
    y = replay(ensemble, answers, Options(strategy="log_linear")).fused.labels.astype(np.int64)
    found = sweep(ensemble, answers, y)
    assert [point["threshold"] for point in found] == list(SWEEP)
    costs = [point["cost_us"] for point in found]
    assert costs == sorted(costs)
    assert costs[0] == pytest.approx(1)
    # Of threshold 1 next to no row stops early: the answer is that of all members.
    assert found[-1]["accuracy"] == pytest.approx(1, abs=0.02)
    assert found[0]["accuracy"] < 0.9
