from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.progress import Progress

from export.errors import Mismatch
from export.evaluating import asked
from export.evaluating.record import evaluate_ensemble
from export.own.rows import OwnRows
from server.ensemble import Ensemble
from server.fusion import fuse
from server.manifest import InputSpec
from server.repository import load_version
from tests import tiny

X = tiny.rows(300, seed=5)
PROBABILITIES = tiny.answers(X, 3)
Y = np.where(np.arange(300) % 3 == 0, np.arange(300) % 7 % 3, PROBABILITIES.mean(axis=0).argmax(axis=1))


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asked, "REPEATS", 5)


def _own(y: Any = Y, classes: list[str] | None = None) -> OwnRows:
    specs = [InputSpec(name="x", shape=[4])]
    return OwnRows(Path("t.npz"), specs, X, y, tiny.CLASSES if classes is None else classes, "t.npz: the labels")


def _evaluate(ensemble: Ensemble, progress: Progress, own: OwnRows | None = None, **options: Any) -> dict[str, Any]:
    return evaluate_ensemble(ensemble, own or _own(), progress=progress, **options)


def _answer(record: dict[str, Any], kind: str, name: str) -> Any:
    return next(one for one in record["answers"] if (one["kind"], one["name"]) == (kind, name))


def test_every_strategy_has_the_figures_of_its_fusion(tmp_path: Path, progress: Progress) -> None:
    ensemble = load_version(tiny.write_ensemble(tmp_path))
    record = _evaluate(ensemble, progress)
    for strategy in ("average", "vote", "median", "max"):
        scores = _answer(record, "strategy", strategy)["scores"]
        labels = fuse(strategy, PROBABILITIES).labels
        assert scores["accuracy"]["value"] == pytest.approx((labels == Y).mean(), abs=1e-6)
        assert scores["accuracy"]["low"] <= scores["accuracy"]["value"] <= scores["accuracy"]["high"]
    for k, member in enumerate(ensemble.names):
        found = _answer(record, "member", member)
        assert found["scores"]["accuracy"]["value"] == pytest.approx((PROBABILITIES[k].argmax(axis=1) == Y).mean())
        assert found["members"] == [member]
    assert all(one["cost_us"] > 0 for one in record["answers"])
    assert record["data"] == {"path": "t.npz", "rows": 300, "outputs": tiny.CLASSES}
    assert "against" not in record


def test_fewer_rows_are_answered_the_surer_it_has_to_be(tmp_path: Path, progress: Progress) -> None:
    record = _evaluate(load_version(tiny.write_ensemble(tmp_path)), progress)
    fused = fuse("average", PROBABILITIES)
    confidence = fused.probabilities.max(axis=1)
    assert record["selective"][0]["answered"] == 1
    assert record["selective"][0]["accuracy"] == _answer(record, "strategy", "average")["scores"]["accuracy"]["value"]
    for one in record["selective"]:
        answered = confidence >= np.float32(one["abstain_below"])
        assert one["answered"] == pytest.approx(answered.mean(), abs=1e-6)
        assert one["accuracy"] == pytest.approx((fused.labels == Y)[answered].mean(), abs=1e-6)
    shares = [one["answered"] for one in record["selective"]]
    assert shares == sorted(set(shares), reverse=True)


def test_a_cascade_asks_more_of_later_stages_the_surer_it_has_to_be(tmp_path: Path, progress: Progress) -> None:
    record = _evaluate(load_version(tiny.write_cascade(tmp_path)), progress, thresholds=[0.75])
    thresholds = [one for one in record["answers"] if one["kind"] == "cascade"]
    firsts = [one["answered_by_stage"][0] for one in thresholds]
    assert 0.75 in [one["threshold"] for one in thresholds]
    assert firsts == sorted(firsts, reverse=True)
    assert all(sum(one["answered_by_stage"]) == pytest.approx(1, abs=1e-5) for one in thresholds)
    published = _answer(record, "strategy", "cascade")
    assert published["answered_by_stage"] == _answer(record, "cascade", "cascade 0.8")["answered_by_stage"]
    assert record["subset_strategy"] == "average"


def test_against_another_both_are_scored_on_the_same_rows(tmp_path: Path, progress: Progress) -> None:
    ensemble = load_version(tiny.write_ensemble(tmp_path))
    other = load_version(tiny.write_ensemble(tmp_path, n_members=1, version=2))
    against = _evaluate(ensemble, progress, other=other)["against"]
    first, second = fuse("average", PROBABILITIES).labels == Y, PROBABILITIES[0].argmax(axis=1) == Y
    assert against["mcnemar"]["only_first"] == (first & ~second).sum()
    assert against["mcnemar"]["only_second"] == (second & ~first).sum()
    accuracy = against["differences"]["accuracy"]
    assert accuracy["difference"]["value"] == pytest.approx(first.mean() - second.mean(), abs=1e-6)
    assert accuracy["p_value"] == pytest.approx(against["mcnemar"]["p_value"], rel=1e-3)
    assert accuracy["verdict"] == "better"
    assert (against["version"], against["strategy"], against["members"]) == (2, "average", ["m1"])


def test_another_order_of_the_classes_is_no_difference(tmp_path: Path, progress: Progress) -> None:
    order = [2, 0, 1]
    ensemble = load_version(tiny.write_ensemble(tmp_path, n_members=1))
    files = {"m1.onnx": tiny.linear_member(tiny.coefficients(1)[0][:, order])}
    x = tiny.rows(16, seed=1)
    files["vectors.npz"] = tiny.vectors(x, tiny.answers(x, 1)[:, :, order])
    contents = tiny.manifest(1, version=2, classes=[tiny.CLASSES[k] for k in order])
    other = load_version(tiny.write_version(tmp_path, contents, files))
    against = _evaluate(ensemble, progress, other=other)["against"]
    assert against["mcnemar"] == {"only_first": 0, "only_second": 0, "p_value": 1.0}
    assert against["differences"]["log_loss"]["verdict"] == "no real difference"
    assert against["differences"]["log_loss"]["difference"]["value"] == pytest.approx(0, abs=1e-6)


def test_an_ensemble_of_other_classes_is_no_match(tmp_path: Path, progress: Progress) -> None:
    ensemble = load_version(tiny.write_ensemble(tmp_path))
    other = load_version(tiny.write_ensemble(tmp_path, name="other", classes=["red", "green", "pink"]))
    with pytest.raises(Mismatch) as caught:
        _evaluate(ensemble, progress, other=other)
    assert caught.value.message == (
        f"--against {other.where}: expected a classification with the classes or targets of {ensemble.where}, "
        "red, green, blue; got a classification with red, green, pink"
    )


def test_a_regression_is_scored_by_its_errors(tmp_path: Path, progress: Progress) -> None:
    ensemble = load_version(tiny.write_regression(tmp_path))
    other = load_version(tiny.write_regression(tmp_path, n_members=1, version=2))
    values = tiny.values(X, 3)
    y = values.mean(axis=0).astype(np.float64) + np.random.default_rng(0).normal(0, 1, (300, 1))
    record = _evaluate(ensemble, progress, _own(y, []), other=other)
    assert [one["name"] for one in record["answers"] if one["kind"] == "strategy"] == ["mean", "weighted", "median"]
    scores = _answer(record, "strategy", "mean")["scores"]
    assert scores["rmse"]["value"] == pytest.approx(np.sqrt(((values.mean(axis=0) - y) ** 2).mean()), rel=1e-4)
    alone = _answer(record, "member", "m2")["scores"]
    assert alone["mae"]["value"] == pytest.approx(np.abs(values[1] - y).mean(), rel=1e-4)
    assert not record.keys() & {"selective", "reliability", "confusion"}
    assert record["against"]["differences"]["rmse"]["verdict"] == "better"
    assert "mcnemar" not in record["against"]


def test_the_same_seed_gives_the_same_figures(tmp_path: Path, progress: Progress) -> None:
    ensemble = load_version(tiny.write_ensemble(tmp_path, n_members=2))
    first, second, third = (_evaluate(ensemble, progress, seed=seed) for seed in (1, 1, 2))
    scores = [[one["scores"] for one in record["answers"]] for record in (first, second, third)]
    assert scores[0] == scores[1] != scores[2]
