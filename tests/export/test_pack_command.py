"""The command that packs: what it prints, what it refuses in one line, what it leaves; and models in memory."""

import json
from pathlib import Path

import joblib
import keras
import lightgbm
import numpy as np
import onnx
import pytest
import skops.io
import xgboost
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from export.__main__ import main
from export.adapt import Adaptation
from export.errors import InvalidModel, Mismatch, ParityError, PublishError
from export.pack import pack, with_classes
from server.repository import Repository
from tests.export.interruption import interrupt
from tests.export.small_models import N, frame, of_table, of_vectors, pipeline, vectors
from tests.tiny import coefficients, linear_member

X, Y = (part[: N // 2] for part in vectors())
NAMES = np.array(["a", "b", "c"])


@pytest.fixture(scope="module", name="folder")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of every kind, each trained on the earlier half of `vectors`, and data with the later half."""
    folder = tmp_path_factory.mktemp("files")
    keras.utils.set_random_seed(0)
    net = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(16, "relu"), keras.layers.Dense(3, activation="softmax")]
    )
    net.compile("adam", "sparse_categorical_crossentropy")
    net.fit(X / 2, Y, epochs=40, verbose=0)
    net.save(folder / "net.keras")
    forest = make_pipeline(StandardScaler(), RandomForestClassifier(5, random_state=0)).fit(X, NAMES[Y])
    skops.io.dump(forest, folder / "forest.skops")
    joblib.dump(LogisticRegression().fit(X, NAMES[Y]), folder / "linear.joblib")
    xgboost.XGBClassifier(n_estimators=5).fit(X, Y).save_model(folder / "boosted.json")
    lightgbm.LGBMClassifier(n_estimators=5, verbosity=-1).fit(X, Y).booster_.save_model(folder / "light.txt")
    graph = onnx.load_from_string(linear_member(coefficients(1)[0]))
    onnx.save(graph, folder / "graph.onnx")
    x, y = vectors()
    np.savez(folder / "valid.npz", x=x[N // 2 :], y=NAMES[y[N // 2 :]])
    frame()[N // 2 :].to_csv(folder / "valid.csv", index=False)
    skops.io.dump(pipeline(LogisticRegression(max_iter=300)), folder / "pipeline.skops")
    rows = frame()[: N // 2]
    numbers = rows[["age", "hours per week"]]
    xgboost.XGBClassifier(n_estimators=5).fit(numbers, rows.income == "low").save_model(folder / "numbers.ubj")
    return folder


def _pack(*arguments: str | Path) -> int:
    return main(["pack", *map(str, arguments)])


# ---- The command ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", name="published")
def _published(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("models")
    files = [folder / name for name in ("net.keras", "forest.skops", "boosted.json", "light.txt", "graph.onnx")]
    options: list[str | Path] = ["--data", folder / "valid.npz", "--scale", "net=1/2", "--out", out, "--allow-pickle"]
    assert _pack("mixed", *files, f"lr={folder / 'linear.joblib'}", *options, "--description", "of strangers") == 0
    return out / "mixed" / "1"


def test_one_command_makes_an_ensemble_of_every_kind_of_file(published: Path, folder: Path) -> None:
    ensemble = Repository.load(published.parents[1]).get("mixed")
    assert ensemble.names == ["net", "forest", "boosted", "light", "graph", "lr"]
    assert ensemble.manifest.classes == ["a", "b", "c"]
    assert ensemble.manifest.description == "of strangers"
    x = vectors()[0][N // 2 :]
    answers = dict(zip(ensemble.names, ensemble.run(x), strict=True))
    net = keras.saving.load_model(folder / "net.keras").predict(x / 2, verbose=0)
    np.testing.assert_allclose(answers["net"], net, atol=1e-5)
    np.testing.assert_allclose(answers["lr"], joblib.load(folder / "linear.joblib").predict_proba(x), atol=1e-5)
    boosted = xgboost.XGBClassifier()
    boosted.load_model(folder / "boosted.json")
    np.testing.assert_allclose(answers["boosted"], boosted.predict_proba(x), atol=1e-5)


def test_its_report_has_scores_and_notes(published: Path) -> None:
    report = json.loads((published / "report.json").read_bytes())
    assert report["dataset"]["rows"] == {"train": 0, "validation": 150, "calibration": 60, "test": 90}
    assert report["members"]["forest"]["test"]["accuracy"]["value"] > 0.8
    unnamed, chance = report["notes"]
    assert unnamed == (
        "members without names of classes: net, boosted, light, graph; their columns are taken for a, b, c"
    )
    assert chance.startswith("member 'graph' is right on 0.")
    assert "no better than always saying the commonest class" in chance
    card = (published / "README.md").read_text()
    assert f"- {unnamed}\n" in card


def test_it_prints_the_folder_and_shows_tables(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "models"
    options: list[str | Path] = ["--data", folder / "valid.csv", "--target", "income", "--out", out]
    assert _pack("income", folder / "pipeline.skops", folder / "numbers.ubj", *options) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{out / 'income' / '1'}\n"
    for shown in (
        "member",
        "pipeline",
        "numbers",
        "strategy",
        "log_linear",
        "(default)",
        "note: members without names",
    ):
        assert shown in captured.err
    inputs = {spec.name: spec for spec in Repository.load(out).get("income").manifest.inputs}
    assert (inputs["age"].missing, inputs["job"].missing, inputs["job"].unknown) == (True, True, "accept")
    assert inputs["job"].categories == ["clerk", "nurse", "smith"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["none.onnx", "--data", "valid.npz"],
            "member 'none': none.onnx: expected a trained model, there is no",
        ),
        (["linear.joblib", "--data", "valid.npz"], "member 'linear': linear.joblib: a pickle runs whatever code"),
        (["boosted.json", "--data", "none.npz"], "none.npz: cannot be read"),
        (["boosted.json", "--data", "valid.csv"], "the model wants rows of [4], unnamed, as numbers; the data has age"),
        (["boosted.json"], "it takes --classes"),
        (["boosted.json", "--data", "valid.npz", "--logits", "boosted"], "answers distributions already"),
        (["boosted.json", "--data", "valid.npz", "--classes", "a,b"], "expected the data's classes, a, b, c"),
        (["boosted.json", "--data", "valid.npz", "--version-of"], "expected an ensemble to add a version to"),
        (["boosted.json", "--data", "valid.npz", "--scale", "net=2"], "expected a member, one of boosted; got 'net'"),
    ],
)
def test_an_error_is_one_line_and_leaves_nothing(
    arguments: list[str],
    message: str,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(folder)
    assert _pack("mixed", *arguments, "--out", tmp_path / "models") == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err.splitlines()[-1]
    assert not (tmp_path / "models").exists()


def test_ctrl_c_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    arguments = [
        "pack",
        "mixed",
        str(folder / "net.keras"),
        "--data",
        str(folder / "valid.npz"),
        "--out",
        str(tmp_path / "models"),
    ]
    status, written = interrupt(arguments, when="net")
    assert status == 130, written
    assert "interrupted; nothing was published" in written
    assert not (tmp_path / "models").exists()


# ---- Without data ---------------------------------------------------------------------------------------------------


def test_without_data_nothing_is_fitted_or_measured(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [folder / "net.keras", folder / "boosted.json"]
    assert _pack("blind", *files, "--classes", "no,maybe,yes", "--out", tmp_path) == 0
    captured = capsys.readouterr()
    assert "(Packed without data: nothing was fitted or measured.)" in captured.err
    ensemble = Repository.load(tmp_path).get("blind")
    manifest = ensemble.manifest
    assert manifest.classes == ["no", "maybe", "yes"]
    assert [(spec.name, spec.shape) for spec in manifest.inputs] == [("x", [4])]
    assert manifest.default_strategy == "average"
    assert [(member.temperature, dict(member.weights)) for member in manifest.members] == [(1.0, {})] * 2
    assert manifest.description == "(Packed without data: nothing was fitted or measured.)"
    files_there = sorted(path.name for path in (tmp_path / "blind" / "1").iterdir())
    assert files_there == ["README.md", "ensemble.onnx", "ensemble.toml", "vectors.npz"]
    assert "Nobody has measured how well they answer" in (tmp_path / "blind" / "1" / "README.md").read_text()


# ---- In memory ------------------------------------------------------------------------------------------------------


def test_models_in_memory_are_packed_too(tmp_path: Path, folder: Path) -> None:
    members = {
        "linear": LogisticRegression().fit(X, NAMES[Y]),
        "light": lightgbm.LGBMClassifier(n_estimators=5, verbosity=-1).fit(X, NAMES[Y]),
        "boosted": folder / "boosted.json",
    }
    place = pack("mine", members, of_vectors(), out=tmp_path)
    assert place == tmp_path / "mine" / "1"
    ensemble = Repository.load(tmp_path).get("mine")
    x = of_vectors().test.x
    for name, answered in zip(ensemble.names, ensemble.run(x), strict=True):
        if not isinstance(model := members[name], Path):
            np.testing.assert_allclose(answered, model.predict_proba(x), atol=1e-5)


def test_rows_that_a_member_cannot_take_are_left_out_and_told_of(tmp_path: Path) -> None:
    rows = frame()[: N // 2].dropna()
    linear = LogisticRegression(max_iter=500).fit(rows[["age", "hours per week"]], rows.income)
    place = pack(
        "income", {"pipe": pipeline(LogisticRegression(max_iter=300)), "linear": linear}, of_table(), out=tmp_path
    )
    inputs = {spec.name: spec.missing for spec in Repository.load(tmp_path).get("income").manifest.inputs}
    assert inputs == {"age": False, "hours per week": False, "job": True, "town": True}
    notes = json.loads((place / "report.json").read_bytes())["notes"]
    assert any("rows lack 'age', left out: member 'linear'" in note for note in notes)


def test_a_graph_that_answers_otherwise_is_not_published(tmp_path: Path) -> None:
    from sklearn.calibration import CalibratedClassifierCV

    light = CalibratedClassifierCV(lightgbm.LGBMClassifier(n_estimators=3, verbosity=-1), cv=2).fit(X, NAMES[Y])
    with pytest.raises(ParityError, match="member 'light': row 0 of 'validation'"):
        pack("mine", {"light": light}, of_vectors(), out=tmp_path / "models")
    assert not (tmp_path / "models").exists()


def test_a_name_of_an_ensemble_that_cannot_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PublishError, match=r"expected a name of letters, digits, _ and -.* got 'my ensemble'"):
        pack("my ensemble", {}, of_vectors(), out=tmp_path)


def test_what_is_wrong_with_a_model_is_told_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(InvalidModel, match="member 'other': expected a trained model of ONNX"):
        pack("mine", {"other": 3}, of_vectors(), out=tmp_path)


def test_logits_and_scale_come_from_adaptations(tmp_path: Path) -> None:
    graph = onnx.load_from_string(linear_member(coefficients(1)[0]))
    (softmax,) = (node for node in graph.graph.node if node.op_type == "Softmax")
    softmax.op_type = "Identity"
    del softmax.attribute[:]
    adaptations = {"m": Adaptation(scale=np.float32(2) * np.ones((), dtype=np.float32), logits=True)}
    pack("mine", {"m": graph}, of_vectors(), adaptations=adaptations, out=tmp_path)
    x = of_vectors().test.x
    logits = 2 * x @ coefficients(1)[0]
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    (answered,) = Repository.load(tmp_path).get("mine").run(x)
    np.testing.assert_allclose(answered, exponentials / exponentials.sum(axis=1, keepdims=True), atol=1e-5)


# ---- Classes ------------------------------------------------------------------------------------------------------


def test_classes_order_the_datas_or_name_its_numbers() -> None:
    dataset = of_vectors()
    turned = with_classes(dataset, ["c", "a", "b"])
    assert turned.classes == ["c", "a", "b"]
    assert [turned.classes[label] for label in turned.test.y] == [dataset.classes[label] for label in dataset.test.y]
    numbered = with_classes(of_vectors(classes=("0", "1", "2")), ["low", "middle", "high"])
    assert numbered.classes == ["low", "middle", "high"]
    np.testing.assert_array_equal(numbered.test.y, dataset.test.y)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["a", "b", "a"], "expected each class once, got 'a' more often"),
        (["a"], "expected two names or more, got a"),
        (["a", "b", "d"], "expected the data's classes, a, b, c, in some order; got a, b, d"),
    ],
)
def test_classes_that_are_not_the_datas_are_refused(classes: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(Mismatch, match=message):
        pack("mine", {"m": LogisticRegression().fit(X, NAMES[Y])}, of_vectors(), classes=classes, out=tmp_path)
