import json
import pickle
import shutil
import zipfile
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import skops.io
from lightgbm import LGBMClassifier
from onnx import TensorProto
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    MaxAbsScaler,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    RobustScaler,
    StandardScaler,
)
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier
from xgboost import XGBClassifier

from export.adapt import member_of
from export.errors import ConversionFailed, InvalidModel, ParityError
from export.formats import Trust, load_model, source_of
from export.parity import ParityReport, check_parity
from tests.export.small_models import N, frame, of_table, of_vectors, pipeline, vectors

SMALL_TREES: dict[str, Any] = {"n_estimators": 5, "max_depth": 3}


def _boosted(**settings: Any) -> XGBClassifier:
    return XGBClassifier(**{**SMALL_TREES, **settings})


def _light() -> LGBMClassifier:
    return LGBMClassifier(n_estimators=5, num_leaves=8, verbosity=-1)


def _fitted(model: Any, offset: float = 0.0) -> Any:
    x, y = vectors(offset)
    return model.fit(x[: N // 2].astype(np.float64), y[: N // 2])


def _checked(model: Any, dataset: Any) -> ParityReport:
    member = member_of(source_of(model), "m", dataset)
    return check_parity(member, member.to_onnx(), dataset)


# ---- Conversion -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [0.0, 1e4])
@pytest.mark.parametrize(
    "model",
    [
        RandomForestClassifier(5, random_state=0),
        ExtraTreesClassifier(5, random_state=0),
        GradientBoostingClassifier(n_estimators=5, random_state=0),
        HistGradientBoostingClassifier(max_iter=5),
        make_pipeline(StandardScaler(), DecisionTreeClassifier(random_state=0)),
        make_pipeline(RobustScaler(), HistGradientBoostingClassifier(max_iter=5)),
        make_pipeline(MinMaxScaler(clip=True), _boosted()),
        make_pipeline(StandardScaler(), _light()),
        make_pipeline(MaxAbsScaler(), SimpleImputer(), StandardScaler(), _light()),
        make_pipeline(StandardScaler(), PCA(2, whiten=True), DecisionTreeClassifier(random_state=0)),
        make_pipeline(StandardScaler(), LogisticRegression()),
        make_pipeline(StandardScaler(), MLPClassifier((4,), max_iter=20, random_state=0)),
        StackingClassifier([("tree", DecisionTreeClassifier(max_depth=3)), ("xgb", _boosted())], cv=2),
        CalibratedClassifierCV(_boosted(), cv=2),
    ],
    ids=lambda model: "-".join(type(part).__name__ for part in getattr(model, "named_steps", {"": model}).values()),
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_graphs_answer_what_models_do_even_where_float32_is_coarse(model: Any, offset: float) -> None:
    report = _checked(_fitted(model, offset), of_vectors(offset))
    assert report.largest_difference < 2e-6
    assert report.ties == 0


def test_numbers_fitted_to_float32_are_written_in_float64_too() -> None:
    x, y = vectors()
    steps = (SimpleImputer(), MinMaxScaler(), RobustScaler(), MaxAbsScaler())
    model = make_pipeline(*steps, DecisionTreeClassifier(random_state=0)).fit(x, y)
    assert model[1].scale_.dtype == np.float32
    assert _checked(model, of_vectors()).largest_difference == 0


def test_voting_over_xgboost_converts() -> None:
    model = VotingClassifier([("xgb", _boosted()), ("tree", DecisionTreeClassifier(max_depth=3))], voting="soft")
    assert _checked(_fitted(model), of_vectors()).largest_difference < 2e-6
    assert model.flatten_transform  # the model itself is left as it is


@pytest.mark.parametrize(
    "model",
    [
        CalibratedClassifierCV(_light(), cv=2),
        VotingClassifier([("xgb", _boosted(num_parallel_tree=3, subsample=0.5))], voting="soft"),
        make_pipeline(StandardScaler(), KNeighborsClassifier()),
    ],
    ids=["calibrated-lightgbm", "voting-over-a-forest-of-xgboost", "neighbours"],
)
def test_converters_that_are_silently_wrong_are_caught(model: Any) -> None:
    with pytest.raises(ParityError, match=r"member 'm': row \d+ of '.*', class '.': the model answers"):
        _checked(_fitted(model), of_vectors())


def test_a_scaler_in_float32_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """As skl2onnx writes it: four rows in ten thousand are off, and the rows between two leaves find them."""
    monkeypatch.setattr("export.formats.sklearn_graph._converters", dict)
    model = _fitted(make_pipeline(StandardScaler(), DecisionTreeClassifier(random_state=0)), 1e4)
    with pytest.raises(ParityError, match="of 'edges'"):
        _checked(model, of_vectors(1e4))


def test_what_has_no_converter_is_named() -> None:
    from sklearn.semi_supervised import LabelSpreading

    with pytest.raises(ConversionFailed, match=r"member 'm': skl2onnx cannot convert it: .*LabelSpreading"):
        _checked(_fitted(LabelSpreading(kernel="knn")), of_vectors())


# ---- Tables ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "model",
    [
        pipeline(LogisticRegression(max_iter=300)),
        pipeline(GradientBoostingClassifier(n_estimators=5, random_state=0)),
        pipeline(
            RandomForestClassifier(5, random_state=0),
            encoder=OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1),
        ),
        pipeline(HistGradientBoostingClassifier(max_iter=5)),
        pipeline(_light()),
    ],
    ids=["linear", "boosted", "ordinal", "hist", "lightgbm"],
)
def test_pipelines_over_named_columns_become_part_of_the_graph(model: Any) -> None:
    dataset = of_table()
    member = member_of(source_of(model), "m", dataset)
    graph = member.to_onnx()
    assert {value.name: value.type.tensor_type.elem_type for value in graph.graph.input} == {
        "age": TensorProto.FLOAT,
        "hours per week": TensorProto.FLOAT,
        "job": TensorProto.STRING,
        "town": TensorProto.STRING,
    }
    report = check_parity(member, graph, dataset)
    assert report.largest_difference < 2e-6
    assert report.rows["categories"] > 0
    assert report.rows["extremes"] > 0


def test_constants_fill_in_for_what_is_missing() -> None:
    from sklearn.compose import make_column_transformer

    rows = frame()[: N // 2]
    texts = make_pipeline(SimpleImputer(strategy="constant", fill_value="?"), OneHotEncoder(handle_unknown="ignore"))
    numbers = SimpleImputer(strategy="constant", fill_value=-1)
    columns = make_column_transformer((texts, ["job", "town"]), (numbers, ["age"]))
    forest = RandomForestClassifier(3, random_state=0)
    model = make_pipeline(columns, forest).fit(rows[["age", "job", "town"]], rows.income)
    assert _checked(model, of_table()).largest_difference < 2e-6


def test_a_missing_text_that_is_a_category_of_its_own_is_known_in_the_graph() -> None:
    """skl2onnx looks for the text `nan`; in our rows it is empty."""
    from sklearn.compose import make_column_transformer

    rows = frame()[: N // 2]
    encoder = OneHotEncoder(handle_unknown="ignore")
    model = make_pipeline(make_column_transformer((encoder, ["job", "town"])), LogisticRegression())
    model.fit(rows[["job", "town"]], rows.income)
    dataset = of_table()
    assert (dataset.validation.x["job"] == "").any()
    assert _checked(model, dataset).largest_difference < 2e-6


# ---- What is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Ridge(), "expected a classifier, got Ridge"),
        (KMeans(2), "expected a classifier, got KMeans"),
        (LinearSVC(), "this LinearSVC has no predict_proba: calibrate it"),
        (VotingClassifier([("a", DecisionTreeClassifier())]), "this VotingClassifier has no predict_proba"),
    ],
)
def test_what_is_no_classifier_with_probabilities_is_refused(model: Any, message: str) -> None:
    with pytest.raises(InvalidModel, match=message):
        source_of(_fitted(model))


def test_a_model_that_is_not_fitted_is_refused() -> None:
    with pytest.raises(InvalidModel, match="expected a fitted model, got: This DecisionTreeClassifier instance is not"):
        source_of(DecisionTreeClassifier())


def test_a_model_of_several_outputs_is_refused() -> None:
    x, y = vectors()
    with pytest.raises(InvalidModel, match="expected one class a row"):
        source_of(DecisionTreeClassifier().fit(x, np.stack([y, y], axis=1)))


# ---- Files ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [RandomForestClassifier(3), HistGradientBoostingClassifier(max_iter=3)])
def test_skops_files_of_scikit_learn_alone_open_unasked(model: Any, tmp_path: Path) -> None:
    skops.io.dump(_fitted(model), tmp_path / "model.skops")
    loaded = load_model(tmp_path / "model.skops", Trust())
    x, _ = vectors()
    np.testing.assert_array_equal(loaded.predict_proba(x), model.predict_proba(x))


def test_other_types_in_a_skops_file_are_listed_and_can_be_trusted(tmp_path: Path) -> None:
    path = tmp_path / "model.skops"
    skops.io.dump(_fitted(make_pipeline(StandardScaler(), _boosted())), path)
    with pytest.raises(InvalidModel) as caught:
        load_model(path, Trust())
    message = str(caught.value)
    assert "--trust xgboost.core.Booster --trust xgboost.sklearn.XGBClassifier" in message
    types = ("xgboost.core.Booster", "xgboost.sklearn.XGBClassifier")
    assert load_model(path, Trust(types=types)).n_features_in_ == 4


def test_a_function_of_scikit_learn_is_not_trusted_unasked(tmp_path: Path) -> None:
    from sklearn.feature_selection import SelectKBest, f_classif

    skops.io.dump(_fitted(make_pipeline(SelectKBest(f_classif, k=2), DecisionTreeClassifier())), tmp_path / "m.skops")
    with pytest.raises(InvalidModel, match=r"--trust sklearn.feature_selection.*f_classif"):
        load_model(tmp_path / "m.skops", Trust())


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m.skops", "w") as archive:
        archive.writestr("schema.json", json.dumps({"no": "model"}))
    with pytest.raises(InvalidModel, match=r"m\.skops: skops cannot load it"):
        load_model(tmp_path / "m.skops", Trust())


def test_a_tree_whose_nodes_point_outside_of_it_is_refused(tmp_path: Path) -> None:
    model = _fitted(DecisionTreeClassifier(max_depth=2))
    skops.io.dump(model, tmp_path / "good.skops")
    state = model.tree_.__getstate__()
    nodes = state["nodes"].tobytes()
    bad = state["nodes"].copy()
    bad["left_child"][0] = 9999
    folder = tmp_path / "open"
    shutil.unpack_archive(tmp_path / "good.skops", folder, "zip")
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes().replace(nodes, bad.tobytes()))
    shutil.make_archive(str(tmp_path / "bad"), "zip", folder)
    (tmp_path / "bad.zip").rename(tmp_path / "bad.skops")
    with pytest.raises(InvalidModel, match=r"bad\.skops: holds a tree whose nodes point outside of it"):
        load_model(tmp_path / "bad.skops", Trust())


@pytest.mark.parametrize("name", ["m.joblib", "m.pkl"])
def test_pickles_open_only_when_allowed(name: str, tmp_path: Path) -> None:
    joblib.dump(_fitted(DecisionTreeClassifier()), tmp_path / name)
    with pytest.raises(InvalidModel, match=r"a pickle runs whatever code.*skops\.io\.dump.*--allow-pickle"):
        load_model(tmp_path / name, Trust())
    assert source_of(load_model(tmp_path / name, Trust(pickle=True))).n_outputs == 3


def test_a_pickle_of_something_else_is_named(tmp_path: Path) -> None:
    (tmp_path / "m.pkl").write_bytes(pickle.dumps({"no": "model"}))
    with pytest.raises(InvalidModel, match=r"expected a trained model of ONNX, Keras, .* got builtins\.dict"):
        source_of(load_model(tmp_path / "m.pkl", Trust(pickle=True)))
    (tmp_path / "m.pkl").write_bytes(b"no pickle")
    with pytest.raises(InvalidModel, match="joblib cannot load it"):
        load_model(tmp_path / "m.pkl", Trust(pickle=True))


def test_classes_are_spelled_as_a_file_of_labels_would() -> None:
    x, y = vectors()
    assert source_of(DecisionTreeClassifier(max_depth=2).fit(x, y.astype(np.float64))).classes == ("0", "1", "2")
    assert source_of(DecisionTreeClassifier(max_depth=2).fit(x, y > 0)).classes == ("False", "True")
