"""The examples of docs/, from training to an answer: strangers' scripts, and the commands that their pages name."""

import json
import runpy
from pathlib import Path

import numpy as np
import pytest

from export.__main__ import main
from server.ensemble import Ensemble
from server.fusion import fuse
from server.repository import load_version
from server.rows import join_tensors

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


@pytest.fixture(name="folder")
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _packed(name: str, *arguments: str) -> Ensemble:
    assert main(["pack", name, *arguments]) == 0
    return load_version(Path("models") / name / "1")


def test_titanic_a_table_of_text_numbers_and_missing_ages(folder: Path) -> None:
    runpy.run_path(str(EXAMPLES / "titanic" / "train.py"))
    ensemble = _packed("titanic", "pipeline.skops", "forest.skops", "--data", "titanic.csv", "--target", "survived")
    manifest = ensemble.manifest
    assert manifest.classes == ["no", "yes"]
    assert [(spec.name, spec.datatype, spec.missing) for spec in manifest.inputs] == [
        ("sex", "BYTES", True),
        ("age", "FP32", True),
        ("passengerClass", "BYTES", True),
    ]
    asked = json.loads((folder / "row.json").read_text())["instances"]
    tensors = {
        "sex": np.array([[row["sex"]] for row in asked], dtype=object),
        "age": np.array([[np.nan if row["age"] is None else row["age"]] for row in asked], dtype=np.float32),
        "passengerClass": np.array([[row["passengerClass"]] for row in asked], dtype=object),
    }
    answers = ensemble.run(join_tensors(tensors, manifest.inputs))
    fused = fuse(manifest.default_strategy, answers, weights=ensemble.weights(manifest.default_strategy))
    assert [manifest.classes[label] for label in fused.labels] == ["yes", "no"]
    report = json.loads((folder / "models/titanic/1/report.json").read_text())
    assert all(member["test"]["accuracy"]["value"] > 0.75 for member in report["members"].values())


def test_own_models_of_three_libraries(folder: Path) -> None:
    runpy.run_path(str(EXAMPLES / "own_models" / "train.py"))
    ensemble = _packed("tumours", "forest.skops", "net.keras", "boosted.json", "--data", "valid.npz")
    assert ensemble.names == ["forest", "net", "boosted"]
    assert ensemble.manifest.classes == ["malignant", "benign"]
    rows = np.array(json.loads((folder / "row.json").read_text())["instances"], dtype=np.float32)
    assert ensemble.run(rows).shape == (3, 1, 2)
    report = json.loads((folder / "models/tumours/1/report.json").read_text())
    assert all(member["test"]["accuracy"]["value"] > 0.85 for member in report["members"].values())
