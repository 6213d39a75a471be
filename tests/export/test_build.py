"""Ensembles of tiny linear members, built for real."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import orjson
import pytest
from rich.progress import Progress

from export.build import build, fuse_all
from export.candidate import Candidate
from export.datasets import Dataset, Split
from export.errors import Mismatch
from export.fusing.fit import Fitted, fit_fusion
from export.parity import ParityReport
from server.manifest import InputSpec
from server.plan import Options, make_plan
from server.predicting import predict
from server.repository import load_version
from tests import tiny

N = 3
NAMES = [f"m{k + 1}" for k in range(N)]


def _split(n: int, seed: int) -> Split:
    """Labels drawn from the mean of the members' answers, so that every member knows something."""
    x = tiny.rows(n, seed)
    mean = tiny.answers(x, N).mean(axis=0)
    y = (mean.cumsum(axis=1) < np.random.default_rng(seed).random((n, 1))).sum(axis=1).clip(0, len(tiny.CLASSES) - 1)
    return Split(x, y)


@pytest.fixture(name="dataset")
def _dataset() -> Dataset:
    splits = (_split(n, seed) for seed, n in enumerate((50, 400, 300, 500)))
    return Dataset("rows", tiny.CLASSES, [InputSpec(name="X", shape=[tiny.N_FEATURES])], *splits)


@pytest.fixture(name="candidates")
def _candidates() -> list[Candidate]:
    return [
        Candidate(name, "by hand", onnx.load_from_string(tiny.linear_member(w)), ParityReport(name, {}, 0.0, 0.0, 0))
        for name, w in zip(NAMES, tiny.coefficients(N), strict=True)
    ]


def _fit(dataset: Dataset, names: list[str]) -> Fitted:
    validation, calibration = (tiny.answers(split.x, N) for split in (dataset.validation, dataset.calibration))
    return fit_fusion(
        names, validation, dataset.validation.y, calibration, dataset.calibration.y, costs_us=[1.0] * len(names)
    )


def _build(candidates: list[Candidate], dataset: Dataset, out: Path, progress: Progress, **more: Any) -> Path:
    about: dict[str, Any] = {"name": "tiny", "description": "Tiny.", "max_batch_size": 64, "seed": 1}
    return build(candidates, dataset, **about, out=out, progress=progress, **more)


def _report(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads((folder / "report.json").read_bytes())
    return found


def test_it_fits_by_itself_what_was_not_fitted_before(
    candidates: list[Candidate], dataset: Dataset, tmp_path: Path, progress: Progress
) -> None:
    manifest = load_version(_build(candidates, dataset, tmp_path, progress)).manifest
    fitted = _fit(dataset, NAMES)
    assert manifest.default_strategy == fitted.default_strategy
    for spec in manifest.members:
        assert spec.temperature == pytest.approx(fitted.temperatures[spec.name], rel=1e-3)
        assert spec.weights == pytest.approx(fitted.weights[spec.name], abs=1e-3)


def test_what_was_fitted_before_is_published_as_it_is(
    candidates: list[Candidate], dataset: Dataset, tmp_path: Path, progress: Progress
) -> None:
    backwards = Dataset(
        dataset.name,
        dataset.classes,
        dataset.inputs,
        dataset.train,
        dataset.calibration,
        dataset.validation,
        dataset.test,
    )
    fitted = _fit(backwards, NAMES)
    folder = _build(candidates, dataset, tmp_path, progress, fitted=fitted)
    manifest = load_version(folder).manifest
    assert {spec.name: spec.temperature for spec in manifest.members} == fitted.temperatures
    assert {spec.name: spec.weights for spec in manifest.members} == fitted.weights
    assert manifest.default_strategy == fitted.default_strategy
    report = _report(folder)
    assert report["weights"] == fitted.choice
    told = {name: strategy["validation_log_loss"] for name, strategy in report["strategies"].items()}
    assert set(told) - set(fitted.validation.names) == {"cascade"}, "which is never the default"
    for name in fitted.validation.names:
        loss = fitted.validation.scores(name)["log_loss"].value
        assert told[name] == pytest.approx(loss, abs=1e-6)


@pytest.mark.parametrize("names", [["m1", "m2", "other"], ["m2", "m1", "m3"]])
def test_a_fit_of_other_members_is_refused(
    candidates: list[Candidate], dataset: Dataset, tmp_path: Path, progress: Progress, names: list[str]
) -> None:
    message = f"^ensemble 'tiny': expected a fit of m1, m2, m3, got one of {', '.join(names)}$"
    with pytest.raises(Mismatch, match=message):
        _build(candidates, dataset, tmp_path / "models", progress, fitted=_fit(dataset, names))
    assert not (tmp_path / "models").exists()


def test_costs_are_measured_of_each_member(
    candidates: list[Candidate], dataset: Dataset, tmp_path: Path, progress: Progress
) -> None:
    manifest = load_version(_build(candidates, dataset, tmp_path, progress)).manifest
    assert all(spec.cost_us is not None and spec.cost_us > 0 for spec in manifest.members)


def test_the_report_and_the_card_compare_the_default_strategy_with_scikit_learns_fusers(
    candidates: list[Candidate], dataset: Dataset, tmp_path: Path, progress: Progress
) -> None:
    folder = _build(candidates, dataset, tmp_path, progress)
    report = _report(folder)
    assert list(report["baselines"]) == ["soft voting", "hard voting", "soft voting by accuracy", "stacking"]
    ours = report["strategies"][report["default_strategy"]]["test"]
    for baseline in report["baselines"].values():
        for metric, difference in baseline["difference"].items():
            assert difference["low"] <= difference["value"] <= difference["high"]
            gap = ours[metric]["value"] - baseline["test"][metric]["value"]
            assert difference["value"] == pytest.approx(gap, abs=3e-6)
    # Soft voting is our average, on the very same resamples.
    average = report["strategies"]["average"]["test"]["accuracy"]
    assert report["baselines"]["soft voting"]["test"]["accuracy"] == average
    card = (folder / "README.md").read_text()
    table = card[card.index("## Against scikit-learn") :]
    for name, baseline in report["baselines"].items():
        (line,) = (line for line in table.splitlines() if line.startswith(f"| {name} |"))
        assert f"{baseline['test']['accuracy']['value']:.4f}" in line
        assert f"{baseline['difference']['log_loss']['value']:+.4f}" in line


def test_without_test_rows_nothing_is_fitted_and_nothing_compared(
    candidates: list[Candidate], dataset: Dataset, tmp_path: Path, progress: Progress
) -> None:
    none = Split(dataset.test.x[:0], dataset.test.y[:0])
    bare = Dataset(dataset.name, dataset.classes, dataset.inputs, none, dataset.validation, none, none)
    folder = _build(candidates, bare, tmp_path, progress)
    assert not (folder / "report.json").exists()
    assert all(spec.weights == {} and spec.temperature == 1 for spec in load_version(folder).manifest.members)
    assert "scikit-learn" not in (folder / "README.md").read_text()


def test_final_estimator_and_cascade_are_published_and_serve_what_was_scored(
    candidates: list[Candidate], dataset: Dataset, tmp_path: Path, progress: Progress
) -> None:
    folder = _build(candidates, dataset, tmp_path, progress)
    ensemble, report = load_version(folder), _report(folder)
    assert ensemble.strategies[-2:] == ["stacking", "cascade"]
    assert list(report["strategies"]) == ensemble.strategies
    test = dataset.test
    answers = fuse_all(ensemble, ensemble.run(test.x))
    for strategy in ensemble.strategies:
        served = predict(ensemble, test.x, make_plan(ensemble, Options(strategy=strategy)))
        np.testing.assert_allclose(served.fused.probabilities, answers[strategy].probabilities, atol=1e-6)
        accuracy = report["strategies"][strategy]["test"]["accuracy"]["value"]
        assert (served.fused.labels == test.y).mean() == pytest.approx(accuracy, abs=1e-6)


def test_the_packed_graph_stacks_for_a_host_that_feeds_rows_alone(
    candidates: list[Candidate], dataset: Dataset, tmp_path: Path, progress: Progress
) -> None:
    import onnxruntime

    folder = _build(candidates, dataset, tmp_path, progress)
    session = onnxruntime.InferenceSession(folder / "ensemble.onnx", providers=["CPUExecutionProvider"])
    (stacked,) = session.run(["stacked"], {"X": dataset.test.x})
    ensemble = load_version(folder)
    ours = fuse_all(ensemble, ensemble.run(dataset.test.x))["stacking"]
    np.testing.assert_allclose(stacked, ours.probabilities, atol=1e-6)


def test_the_report_and_the_card_tell_of_cascade_and_of_abstaining(
    candidates: list[Candidate], dataset: Dataset, tmp_path: Path, progress: Progress
) -> None:
    folder = _build(candidates, dataset, tmp_path, progress)
    report, card, manifest = _report(folder), (folder / "README.md").read_text(), load_version(folder).manifest
    assert manifest.cascade is not None
    cascade = report["cascade"]
    assert [stage["members"] for stage in cascade["stages"]] == [stage.members for stage in manifest.cascade.stages]
    assert [stage["threshold"] for stage in cascade["stages"][:-1]] == [
        stage.threshold for stage in manifest.cascade.stages[:-1]
    ]
    assert sum(stage["share"] for stage in cascade["stages"]) == pytest.approx(1, abs=1e-5)
    assert 0 < cascade["cost_us"] <= cascade["all_members_us"]
    fused_alike, staged = (report["strategies"][name]["test"] for name in (cascade["strategy"], "cascade"))
    gap = staged["accuracy"]["value"] - fused_alike["accuracy"]["value"]
    assert cascade["over_all_members"]["accuracy"]["value"] == pytest.approx(gap, abs=3e-6)
    assert report["stacking"]["C"] > 0
    default = report["strategies"][report["default_strategy"]]["test"]["accuracy"]["value"]
    assert report["selective"][0] == {"threshold": 0.0, "share": 1.0, "accuracy": pytest.approx(default, abs=1e-6)}
    assert "## Cascade" in card
    assert f"Expected {cascade['cost_us']:.1f} µs a row" in card
    assert "## Answering less" in card
    for name in report["strategies"]:
        assert any(line.startswith((f"| {name} |", f"| **{name}** |")) for line in card.splitlines())


def test_what_cannot_be_fitted_is_told_and_the_rest_is_published(
    candidates: list[Candidate], dataset: Dataset, tmp_path: Path, progress: Progress
) -> None:
    """One member makes no cascade; a class without rows no final estimator."""
    validation, calibration = (
        Split(split.x[split.y != 2], split.y[split.y != 2]) for split in (dataset.validation, dataset.calibration)
    )
    lacking = dataclasses.replace(dataset, validation=validation, calibration=calibration)
    folder = _build(candidates[:1], lacking, tmp_path, progress)
    ensemble, report = load_version(folder), _report(folder)
    assert "stacking" not in ensemble.strategies
    assert "cascade" not in ensemble.strategies
    assert report["stacking"] is None
    assert report["cascade"] is None
    assert "no cascade: it takes two members" in report["notes"]
    assert any(note.startswith("no stacking: ") and note.endswith("class 2 has 0") for note in report["notes"])
    assert "## Cascade" not in (folder / "README.md").read_text()


def test_a_cascade_may_be_told_to_be_less_accurate(
    candidates: list[Candidate], dataset: Dataset, tmp_path: Path, progress: Progress
) -> None:
    manifest = load_version(_build(candidates, dataset, tmp_path, progress, cascade_tolerance=1.0)).manifest
    assert manifest.cascade is not None
    assert manifest.cascade.tolerance == 1.0
    assert len(manifest.cascade.stages) == 2
    cheapest = min(manifest.members, key=lambda member: member.cost_us or 0.0)
    assert manifest.cascade.stages[0].members == [cheapest.name]
