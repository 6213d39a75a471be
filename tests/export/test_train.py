"""The whole way, for real: train, convert, gate, pack, fit, score, publish, load, answer."""

from pathlib import Path

import numpy as np
import orjson
import pytest
from rich.progress import Progress

from export.build import fuse_all
from export.datasets import load_dataset
from export.errors import DatasetNotFound, InvalidRecipe
from export.recipe import load_recipe
from export.run import Run
from server.repository import Repository
from tests.export.conftest import DIGITS
from tests.export.interruption import interrupt


def test_the_published_version_loads_and_answers_the_test_rows_well(published: Path) -> None:
    ensemble = Repository.load(published.parents[1]).get("digits", 1)
    test = load_dataset("digits", seed=load_recipe(DIGITS).seed).test
    answers = fuse_all(ensemble, ensemble.run(test.x))
    accuracy = (answers[ensemble.manifest.default_strategy].labels == test.y).mean()
    assert accuracy > 0.95
    report = orjson.loads((published / "report.json").read_bytes())
    reported = report["strategies"][ensemble.manifest.default_strategy]["test"]["accuracy"]
    assert accuracy == pytest.approx(reported["value"], abs=1e-6)
    assert reported["low"] <= accuracy <= reported["high"]


def test_its_manifest_says_what_was_trained_and_fitted(published: Path) -> None:
    manifest = Repository.load(published.parents[1]).get("digits").manifest
    assert [member.name for member in manifest.members] == [member.name for member in load_recipe(DIGITS).members]
    assert {member.framework.split()[0] for member in manifest.members} == {"keras", "scikit-learn", "xgboost"}
    for strategy in ("weighted", "log_linear"):
        assert sum(member.weights[strategy] for member in manifest.members) == pytest.approx(1, abs=1e-5)
    assert all(member.cost_us is not None and member.cost_us > 0 for member in manifest.members)
    assert {file.name for file in manifest.files} == {"ensemble.onnx", "vectors.npz", "report.json", "README.md"}


def test_its_graph_answers_the_average_in_any_other_host(published: Path) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(published / "ensemble.onnx", providers=["CPUExecutionProvider"])
    x = load_dataset("digits", seed=0).test.x[:20]
    (mean,) = session.run(["probabilities"], {"image": x})
    ensemble = Repository.load(published.parents[1]).get("digits")
    np.testing.assert_allclose(mean, ensemble.run(x).mean(axis=0), atol=1e-6)
    (stacked,) = session.run(["stacked"], {"image": x})
    ours = fuse_all(ensemble, ensemble.run(x))["stacking"]
    np.testing.assert_allclose(stacked, ours.probabilities, atol=1e-6)


def test_its_report_compares_every_strategy_with_the_best_member(published: Path) -> None:
    report = orjson.loads((published / "report.json").read_bytes())
    losses = {name: member["test"]["log_loss"]["value"] for name, member in report["members"].items()}
    for strategy in report["strategies"].values():
        gain = strategy["over_best_member"]["log_loss"]
        assert gain["member"] == min(losses, key=losses.__getitem__)
        assert gain["value"] == pytest.approx(strategy["test"]["log_loss"]["value"] - min(losses.values()), abs=3e-6)
        assert gain["low"] <= gain["value"] <= gain["high"]
    validation = {name: strategy["validation_log_loss"] for name, strategy in report["strategies"].items()}
    cheap = validation.pop("cascade")
    assert cheap > 0
    assert report["default_strategy"] == min(validation, key=validation.__getitem__)
    assert sum(report["dataset"]["rows"].values()) == 1797


def test_its_card_holds_the_tables(published: Path) -> None:
    text = (published / "README.md").read_text()
    report = orjson.loads((published / "report.json").read_bytes())
    for name in (*report["members"], *report["strategies"]):
        assert any(line.startswith(("|", "**")) and name in line for line in text.splitlines())
    assert f"**{report['default_strategy']}**" in text


@pytest.mark.parametrize(
    ("recipe", "error", "message"),
    [
        ("nothing.toml", InvalidRecipe, r"nothing\.toml: cannot be read: No such file"),
        ("broken.toml", InvalidRecipe, r"broken\.toml: not TOML: "),
        ("unknown.toml", DatasetNotFound, "digits"),
    ],
)
def test_a_recipe_that_cannot_be_trained_publishes_nothing(
    tmp_path: Path, progress: Progress, recipe: str, error: type[Exception], message: str
) -> None:
    (tmp_path / "broken.toml").write_text("name = ")
    (tmp_path / "unknown.toml").write_text(DIGITS.read_text().replace('dataset = "digits"', 'dataset = "letters"'))
    with pytest.raises(error, match=message):
        Run(load_recipe(tmp_path / recipe), work=tmp_path / "runs", data=None, progress=progress)
    assert not (tmp_path / "models").exists()


def test_ctrl_c_while_training_leaves_nothing(tmp_path: Path) -> None:
    arguments = ["train", str(DIGITS), "--out", str(tmp_path / "models"), "--work", str(tmp_path / "runs")]
    status, written = interrupt(arguments, when="cnn")
    assert status == 130, written
    assert "interrupted; nothing was published" in written
    assert not (tmp_path / "models").exists()
