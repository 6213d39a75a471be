from pathlib import Path
from typing import Any

import numpy as np
import onnxmltools
import pandas
import pytest
import xgboost
from onnxmltools.convert.common.data_types import FloatTensorType

from export.adapt import member_of
from export.convert import normalised
from export.errors import InvalidModel, ParityError
from export.formats import Trust, load_model, source_of
from export.parity import check_parity
from tests.export.small_models import N, of_table, of_vectors, vectors

X, Y = (part[: N // 2] for part in vectors())
TWO = of_vectors(classes=("a", "b"))


def _fit(y: np.ndarray = Y, **settings: Any) -> xgboost.XGBClassifier:
    return xgboost.XGBClassifier(**{"n_estimators": 8, "max_depth": 3, **settings}).fit(X, y)


@pytest.mark.parametrize("suffix", [".json", ".ubj"])
@pytest.mark.parametrize(
    ("settings", "binary"),
    [
        ({}, False),
        ({}, True),
        ({"base_score": 0.3}, True),
        ({"num_parallel_tree": 3, "subsample": 0.5}, False),
        ({"num_parallel_tree": 3, "subsample": 0.5}, True),
        ({"objective": "multi:softmax"}, False),
    ],
)
def test_files_answer_what_their_classifiers_do(
    suffix: str, settings: dict[str, Any], binary: bool, tmp_path: Path
) -> None:
    dataset = of_vectors(classes=("a", "b") if binary else ("a", "b", "c"))
    model = _fit(np.minimum(Y, 1) if binary else Y, **settings)
    model.save_model(tmp_path / f"m{suffix}")
    member = member_of(source_of(load_model(tmp_path / f"m{suffix}", Trust())), "m", dataset)
    np.testing.assert_allclose(member.predict_proba(dataset.test.x), model.predict_proba(dataset.test.x), atol=1e-7)
    report = check_parity(member, member.to_onnx(), dataset)
    assert report.largest_difference < 1e-6
    assert report.rows["thresholds"] > 0


def test_stopped_early_it_ends_at_its_best_round(tmp_path: Path) -> None:
    model = xgboost.XGBClassifier(n_estimators=200, learning_rate=0.9, early_stopping_rounds=3)
    model.fit(X, Y, eval_set=[(X[::2] + 0.5, Y[::2])], verbose=False)
    assert model.best_iteration < model.get_booster().num_boosted_rounds() - 1
    model.save_model(tmp_path / "m.json")
    dataset = of_vectors()
    member = member_of(source_of(load_model(tmp_path / "m.json", Trust())), "m", dataset)
    np.testing.assert_allclose(member.predict_proba(dataset.test.x), model.predict_proba(dataset.test.x), atol=1e-7)
    assert check_parity(member, member.to_onnx(), dataset).largest_difference < 1e-6


def test_the_converters_own_classes_of_a_forest_are_wrong_and_caught() -> None:
    """onnxmltools deals trees out to classes in turn, which a forest a class is not."""
    model, dataset = _fit(num_parallel_tree=3, subsample=0.5), of_vectors()
    source = source_of(model)
    member = member_of(source, "m", dataset)
    graph = onnxmltools.convert_xgboost(model, initial_types=[("rows", FloatTensorType([None, 4]))], target_opset=15)
    from export.adapt import answer_of, reading_of

    reading, answer = (
        reading_of(source.wants, dataset.inputs, "m"),
        answer_of(source, dataset.classes, "m"),
    )
    wrong = normalised(graph, reading, answer, dataset.inputs, output="probabilities")
    with pytest.raises(ParityError, match="row 0 of 'validation'"):
        check_parity(member, wrong, dataset)


def test_names_of_columns_find_them_in_a_table() -> None:
    rows = pandas.DataFrame(X[:, :2], columns=["hours per week", "age"])
    model = xgboost.XGBClassifier(n_estimators=5).fit(rows, np.minimum(Y, 1))
    dataset = of_table()
    member = member_of(source_of(model), "m", dataset)
    x = dataset.test.x
    direct = model.predict_proba(pandas.DataFrame({"hours per week": x["hours per week"][:, 0], "age": x["age"][:, 0]}))
    np.testing.assert_allclose(member.predict_proba(x), direct, atol=1e-7)
    assert check_parity(member, member.to_onnx(), dataset).rows["thresholds"] > 0
    assert model.get_booster().feature_names == ["hours per week", "age"]  # the model itself is left as it is


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"booster": "dart"}, r"expected boosted trees \(gbtree\), got 'dart'"),
        ({"booster": "gblinear", "max_depth": None}, "got 'gblinear'"),
        ({"multi_strategy": "multi_output_tree"}, "trees of several outputs"),
        ({"missing": -1.0}, r"takes -1\.0 for missing"),
    ],
)
def test_what_the_converter_gets_wrong_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidModel, match=message):
        source_of(_fit(**settings))


def test_splits_of_categories_are_refused() -> None:
    rows = pandas.DataFrame({"a": pandas.Categorical(X[:, 0].round().astype(int)), "b": X[:, 1]})
    model = xgboost.XGBClassifier(n_estimators=3, enable_categorical=True).fit(rows, Y)
    with pytest.raises(InvalidModel, match="splits of categories"):
        source_of(model)


@pytest.mark.parametrize("objective", ["reg:squarederror", "binary:logitraw", "rank:ndcg"])
def test_what_is_no_classifier_is_refused(objective: str) -> None:
    matrix = xgboost.DMatrix(X, np.minimum(Y, 1))
    if objective.startswith("rank"):
        matrix.set_group([len(X)])
    with pytest.raises(InvalidModel, match=f"expected a classifier, of objective .* got '{objective}'"):
        source_of(xgboost.train({"objective": objective}, matrix, 2))


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text('{"learner": 1}')
    with pytest.raises(InvalidModel, match=r"m\.json: XGBoost cannot load it"):
        load_model(tmp_path / "m.json", Trust())
