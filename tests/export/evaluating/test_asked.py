from pathlib import Path

import numpy as np
import pytest

from export.errors import Mismatch
from export.evaluating import asked as module
from export.evaluating.asked import Asked, Subject, answer, asked_of, default_of, measure, record, subset_strategy
from server.ensemble import Ensemble
from server.predicting import predict
from server.repository import load_version
from tests import tiny

X = tiny.rows(150)


@pytest.fixture(scope="module", name="root")
def _root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module", name="ensemble")
def _ensemble(root: Path) -> Ensemble:
    return load_version(tiny.write_ensemble(root, default_strategy="log_linear"))


@pytest.fixture(scope="module", name="cascade")
def _cascade(root: Path) -> Ensemble:
    return load_version(tiny.write_cascade(root))


def _recorded(ensemble: Ensemble) -> Subject:
    return record(ensemble, X, lambda _: None)


def _names(asked: list[Asked], kind: str) -> list[str]:
    return [one.name for one in asked if one.kind == kind]


def test_every_strategy_member_and_subset_is_asked(ensemble: Ensemble) -> None:
    asked = asked_of(ensemble)
    assert _names(asked, "strategy") == ensemble.strategies
    assert _names(asked, "member") == ["m1", "m2", "m3"]
    assert _names(asked, "subset") == ["m1", "m2", "m3", "m1 + m2", "m1 + m3", "m2 + m3"]
    assert _names(asked, "cascade") == []
    assert {one.plan.strategy for one in asked if one.kind == "subset"} == {"log_linear"}
    assert len({one.key for one in asked}) == len(asked)


def test_of_many_members_each_is_left_out_and_each_is_alone(root: Path) -> None:
    asked = asked_of(load_version(tiny.write_ensemble(root, n_members=7, name="seven")))
    subsets = [one.plan.members for one in asked if one.kind == "subset"]
    assert [len(members) for members in subsets] == [1] * 7 + [6] * 7
    assert len(set(subsets)) == 14


def test_of_one_member_there_are_no_subsets(root: Path) -> None:
    assert _names(asked_of(load_version(tiny.write_ensemble(root, n_members=1, name="one"))), "subset") == []


def test_named_subsets_take_the_place_of_the_usual_ones(ensemble: Ensemble) -> None:
    asked = asked_of(ensemble, [["m3", "m1"], ["-m1"], ["m1", "m3"]])
    assert _names(asked, "subset") == ["m1 + m3", "m2 + m3"]
    with pytest.raises(Mismatch) as caught:
        asked_of(ensemble, [["m1", "m9"]])
    assert caught.value.message == (
        f"--members m1,m9: {ensemble.where}: members: expected some of m1, m2, m3; got 'm9'"
    )


def test_thresholds_come_beside_the_usual_ones(cascade: Ensemble, ensemble: Ensemble) -> None:
    asked = [one for one in asked_of(cascade, thresholds=[0.85, 0.9]) if one.kind == "cascade"]
    assert [one.threshold for one in asked] == [0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.99]
    assert asked[4].name == "cascade 0.85"
    assert asked[4].plan.stages[0].threshold == 0.85
    with pytest.raises(Mismatch) as caught:
        asked_of(ensemble, thresholds=[0.9])
    assert caught.value.message == f"--threshold: expected an ensemble with a cascade; {ensemble.where} has none"


def test_subsets_are_fused_by_the_default_or_by_what_stands_in(
    root: Path, ensemble: Ensemble, cascade: Ensemble
) -> None:
    stacked = load_version(tiny.write_stacked(root, default_strategy="stacking"))
    assert subset_strategy(ensemble) == "log_linear"
    assert subset_strategy(cascade) == "average"
    assert subset_strategy(stacked) == "log_linear"
    assert "stacking" in _names(asked_of(stacked), "strategy")
    assert default_of(stacked).key == "strategy:stacking"


def test_members_are_run_once_in_batches_and_told_of(ensemble: Ensemble) -> None:
    done: list[int] = []
    subject = record(ensemble, X, done.append)
    assert done == [64, 64, 22]
    np.testing.assert_allclose(subject.answers, tiny.answers(X, 3), atol=1e-6)


def test_answers_of_what_is_recorded_are_those_of_the_server(cascade: Ensemble) -> None:
    subject = _recorded(cascade)
    for one in asked_of(cascade):
        recorded, run = answer(subject, one.plan), predict(cascade, X, one.plan)
        np.testing.assert_allclose(recorded.fused.probabilities, run.fused.probabilities, atol=1e-6, err_msg=one.key)
        np.testing.assert_array_equal(recorded.fused.labels, run.fused.labels)
        if one.plan.strategy == "cascade":
            np.testing.assert_array_equal(recorded.stages, run.stages)


def test_a_member_alone_answers_as_it_is(ensemble: Ensemble) -> None:
    subject = _recorded(ensemble)
    alone = next(one for one in asked_of(ensemble) if one.key == "member:m2")
    np.testing.assert_allclose(answer(subject, alone.plan).fused.probabilities, subject.answers[1], atol=1e-6)


def test_costs_are_of_batch_after_batch(ensemble: Ensemble, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REPEATS", 6)
    subject, told = _recorded(ensemble), []
    plans = {one.key: (subject, one.plan) for one in asked_of(ensemble)}
    times = measure(plans, seed=0, advance=lambda: told.append(1))
    assert times.keys() == plans.keys()
    assert {len(taken) for taken in times.values()} == {6}
    assert all((taken > 0).all() for taken in times.values())
    assert len(told) == 7


def test_costs_are_of_few_batches_where_these_take_long(ensemble: Ensemble, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SECONDS", 0.0)
    default = default_of(ensemble)
    few = Subject(ensemble, X[:3], tiny.answers(X[:3], 3))
    times = measure({default.key: (few, default.plan)}, seed=0)
    assert len(times[default.key]) == module.LEAST_REPEATS
