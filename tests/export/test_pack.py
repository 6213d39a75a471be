"""Models of every family, trained for real on small data, become one ensemble that answers what they answered."""

import pickle
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import orjson
import pandas
import pytest
import skops.io
import xgboost
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_wine
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from export.__main__ import main
from export.errors import ExportError
from export.formats.keras_models import import_keras
from export.pack import pack
from server.ensemble import Ensemble
from server.repository import Repository, load_version
from server.rows import row_dtype

NAMES = ["barolo", "grignolino", "barbera"]


@pytest.fixture(scope="module", name="wine")
def _wine() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    bunch = load_wine()
    return bunch.data.astype(np.float32), bunch.target


@pytest.fixture(scope="module", name="files")
def _files(tmp_path_factory: pytest.TempPathFactory, wine: tuple[NDArray[np.float32], NDArray[np.int64]]) -> Path:
    """A folder with a model of each family, and `valid.npz`."""
    folder = tmp_path_factory.mktemp("files")
    x, y = wine
    np.savez(folder / "valid.npz", x=x, y=y, classes=NAMES)
    skops.io.dump(RandomForestClassifier(20, random_state=0).fit(x, y), folder / "forest.skops")
    xgboost.XGBClassifier(n_estimators=8, max_depth=3).fit(x, y).save_model(folder / "boosted.json")
    settings = {"objective": "multiclass", "num_class": 3, "verbose": -1, "num_threads": 1}
    lightgbm.train(settings, lightgbm.Dataset(x, y), 8).save_model(folder / "light.txt")
    keras = import_keras()
    keras.utils.set_random_seed(0)
    scale = keras.layers.Normalization(mean=x.mean(axis=0), variance=x.var(axis=0))
    net = keras.Sequential([keras.Input([13]), scale, keras.layers.Dense(3, activation="softmax")])
    net.save(folder / "net.keras")
    (folder / "tree.pkl").write_bytes(pickle.dumps(DecisionTreeClassifier(random_state=0).fit(x, y)))
    return folder


def _sources(folder: Path, x: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    booster = xgboost.XGBClassifier()
    booster.load_model(folder / "boosted.json")
    return {
        "forest": skops.io.load(folder / "forest.skops", trusted=["sklearn.tree._tree.Tree"]).predict_proba(x),
        "boosted": booster.predict_proba(x),
        "light": lightgbm.Booster(model_file=folder / "light.txt").predict(x),
        "net": import_keras().saving.load_model(folder / "net.keras", compile=False).predict(x, verbose=0),
    }


def test_files_of_every_family_become_one_ensemble_that_answers_as_they_did(
    files: Path, tmp_path: Path, wine: tuple[NDArray[np.float32], NDArray[np.int64]], capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [str(files / name) for name in ("forest.skops", "boosted.json", "light.txt", "net.keras")]
    assert main(["pack", "wine", *paths, "--data", str(files / "valid.npz"), "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'wine' / '1'}\n"
    ensemble = load_version(tmp_path / "wine" / "1")
    assert ensemble.manifest.classes == NAMES
    answers = dict(zip(ensemble.names, ensemble.run(wine[0]), strict=True))
    for name, expected in _sources(files, wine[0]).items():
        np.testing.assert_allclose(answers[name], expected, atol=1e-5, err_msg=name)
    report = orjson.loads((tmp_path / "wine" / "1" / "report.json").read_bytes())
    assert set(report["members"]) == {"forest", "boosted", "light", "net"}


def test_an_onnx_file_is_packed_as_it_answers(
    files: Path, tmp_path: Path, wine: tuple[NDArray[np.float32], NDArray[np.int64]]
) -> None:
    """The file is a packed graph, whose gates and weights have defaults."""
    first = pack("first", {"forest": files / "forest.skops"}, files / "valid.npz", out=tmp_path)
    second = pack("second", {"again": first / "ensemble.onnx"}, files / "valid.npz", out=tmp_path)
    np.testing.assert_allclose(load_version(second).run(wine[0])[0], _sources(files, wine[0])["forest"], atol=1e-5)


def test_without_data_weights_are_equal_and_nothing_is_reported(
    files: Path, tmp_path: Path, wine: tuple[NDArray[np.float32], NDArray[np.int64]]
) -> None:
    members = {"forest": files / "forest.skops", "boosted": files / "boosted.json"}
    ensemble = load_version(pack("wine", members, classes=NAMES, out=tmp_path))
    assert ensemble.report is None
    assert ensemble.manifest.default_strategy == "average"
    assert ensemble.weights("weighted").tolist() == [1, 1]
    assert ensemble.temperatures.tolist() == [1, 1]
    np.testing.assert_allclose(ensemble.run(wine[0])[0], _sources(files, wine[0])["forest"], atol=1e-5)


def test_a_name_that_is_taken_needs_version_of_and_the_same_classes(files: Path, tmp_path: Path) -> None:
    members = {"forest": files / "forest.skops"}
    pack("wine", members, files / "valid.npz", out=tmp_path)
    with pytest.raises(ExportError, match="version-of"):
        pack("wine", members, files / "valid.npz", out=tmp_path)
    assert pack("wine", members, files / "valid.npz", out=tmp_path, version_of=True).name == "2"
    with pytest.raises(ExportError, match="classes"):
        pack("wine", members, files / "valid.npz", classes=NAMES[::-1], out=tmp_path, version_of=True)
    assert Repository.load(tmp_path, versions="all").versions("wine") == [1, 2]


def test_a_pickle_is_opened_only_if_that_is_allowed(files: Path, tmp_path: Path) -> None:
    arguments = ["pack", "wine", str(files / "tree.pkl"), "--data", str(files / "valid.npz"), "--out", str(tmp_path)]
    assert main(arguments) == 1
    assert not (tmp_path / "wine").exists()
    assert main([*arguments, "--allow-pickle"]) == 0


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("notes.txt", b"once upon a time", "expected a trained model of one of these kinds"),
        ("model.json", b"{}", "expected a trained model of one of these kinds"),
        ("model.onnx", b"garbage", "model"),
        ("missing.keras", None, "missing"),
    ],
)
def test_what_is_no_model_is_refused_by_name(
    files: Path, tmp_path: Path, name: str, data: bytes | None, message: str
) -> None:
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(ExportError, match=message):
        pack("wine", {"model": tmp_path / name}, files / "valid.npz", out=tmp_path / "models")
    assert not (tmp_path / "models" / "wine").exists()


def test_a_regressor_is_refused(
    files: Path, tmp_path: Path, wine: tuple[NDArray[np.float32], NDArray[np.int64]]
) -> None:
    with pytest.raises(ExportError, match="classifier"):
        pack("wine", {"r": DecisionTreeRegressor().fit(*wine)}, files / "valid.npz", out=tmp_path)


# ---- Tables ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", name="people")
def _people() -> pandas.DataFrame:
    """Ages, some of them missing, and jobs; whether one smokes goes by both."""
    generator = np.random.default_rng(0)
    age = generator.integers(18, 80, 400).astype(np.float64)
    job = generator.choice(["nurse", "smith", "clerk"], 400)
    smokes = np.where((age > 50) ^ (job == "smith"), "yes", "no")
    age[::17] = np.nan
    return pandas.DataFrame({"age": age, "job": job, "smokes": smokes})


def _pipeline(model: Any) -> Any:
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    columns = ColumnTransformer([("n", numbers, ["age"]), ("c", OneHotEncoder(handle_unknown="ignore"), ["job"])])
    return make_pipeline(columns, model)


@pytest.fixture(scope="module", name="table")
def _table(tmp_path_factory: pytest.TempPathFactory, people: pandas.DataFrame) -> tuple[Ensemble, Any]:
    folder = tmp_path_factory.mktemp("table")
    people.to_csv(folder / "people.csv", index=False)
    model = _pipeline(LogisticRegression()).fit(people[["age", "job"]], people["smokes"])
    return load_version(pack("people", {"lr": model}, folder / "people.csv", target="smokes", out=folder)), model


def _rows(ensemble: Ensemble, *values: tuple[float, str]) -> NDArray[Any]:
    rows = np.empty(len(values), dtype=row_dtype(ensemble.manifest.inputs))
    for place, (age, job) in enumerate(values):
        rows[place]["age"], rows[place]["job"] = age, job
    return rows


def test_a_pipeline_over_named_columns_is_part_of_the_graph(table: tuple[Ensemble, Any]) -> None:
    ensemble, model = table
    assert {(spec.name, spec.datatype) for spec in ensemble.manifest.inputs} == {("age", "FP32"), ("job", "BYTES")}
    values = [(41.0, "nurse"), (70.0, "smith"), (19.0, "clerk")]
    expected = model.predict_proba(pandas.DataFrame(values, columns=["age", "job"]))
    np.testing.assert_allclose(ensemble.run(_rows(ensemble, *values))[0], expected, atol=1e-5)


def test_missing_numbers_and_unknown_text_are_treated_as_in_training_and_the_manifest_says_so(
    table: tuple[Ensemble, Any],
) -> None:
    ensemble, model = table
    inputs = {spec.name: spec for spec in ensemble.manifest.inputs}
    assert inputs["age"].missing
    assert inputs["job"].unknown == "accept"
    assert inputs["job"].categories == ["clerk", "nurse", "smith"]
    values = [(float("nan"), "nurse"), (30.0, "pilot")]
    expected = model.predict_proba(pandas.DataFrame(values, columns=["age", "job"]))
    np.testing.assert_allclose(ensemble.run(_rows(ensemble, *values))[0], expected, atol=1e-5)


def test_a_column_that_the_data_lacks_is_named(tmp_path: Path, people: pandas.DataFrame) -> None:
    people[["age", "smokes"]].to_csv(tmp_path / "people.csv", index=False)
    model = _pipeline(LogisticRegression()).fit(people[["age", "job"]], people["smokes"])
    with pytest.raises(ExportError, match="job"):
        pack("people", {"lr": model}, tmp_path / "people.csv", target="smokes", out=tmp_path / "models")
