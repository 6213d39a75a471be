from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pandas
import pytest

from export.adapt import member_of
from export.errors import InvalidModel, ParityError
from export.formats import Trust, lightgbm_models, load_model, source_of
from export.formats.lightgbm_models import ZERO, floor_float32, floored
from export.parity import check_parity
from tests.export.small_models import N, of_vectors, vectors


def _fit(offset: float = 0.0, *, binary: bool = False, **settings: Any) -> lightgbm.LGBMClassifier:
    x, y = (part[: N // 2] for part in vectors(offset))
    model = lightgbm.LGBMClassifier(**{"n_estimators": 8, "num_leaves": 8, "verbosity": -1, **settings})
    return model.fit(x, np.minimum(y, 1) if binary else y)


@pytest.mark.parametrize("offset", [0.0, 1e4])
@pytest.mark.parametrize("binary", [True, False])
def test_files_answer_what_their_classifiers_do(offset: float, binary: bool, tmp_path: Path) -> None:
    dataset = of_vectors(offset, classes=("a", "b") if binary else ("a", "b", "c"))
    model = _fit(offset, binary=binary)
    model.booster_.save_model(tmp_path / "m.txt")
    member = member_of(source_of(load_model(tmp_path / "m.txt", Trust())), "m", dataset)
    np.testing.assert_allclose(member.predict_proba(dataset.test.x), model.predict_proba(dataset.test.x), atol=1e-9)
    report = check_parity(member, member.to_onnx(), dataset)
    assert report.largest_difference < 1e-6
    assert report.rows["thresholds"] > 0


def test_thresholds_rounded_to_the_nearest_float32_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lightgbm_models, "floored", lambda text: text)
    dataset = of_vectors(1e4)
    member = member_of(source_of(_fit(1e4)), "m", dataset)
    with pytest.raises(ParityError, match="of 'thresholds'"):
        check_parity(member, member.to_onnx(), dataset)


def test_thresholds_are_lowered_to_a_float32() -> None:
    tenth, quarter = 0.1, 0.25  # the nearest float32 of the first lies above it, the second is one
    assert float(np.float32(tenth)) > tenth
    low, same = floor_float32(np.array([tenth, quarter]))
    assert low == float(np.nextafter(np.float32(tenth), np.float32(0))) < tenth
    assert same == quarter


def test_a_threshold_that_lightgbm_takes_for_zero_is_where_it_decides() -> None:
    text = floored(f"tree_sizes=9\nthreshold={-float(ZERO)!r} 1e-36 0.25")
    assert text.startswith("threshold=")
    below, above, other = (float(value) for value in text.removeprefix("threshold=").split())
    assert below == float(np.nextafter(-ZERO, np.float32(-1))) < -float(ZERO)
    assert above == float(ZERO)
    assert other == 0.25


def test_the_classes_of_a_classifier_in_memory_have_names() -> None:
    x, y = vectors()
    model = lightgbm.LGBMClassifier(n_estimators=3, verbosity=-1).fit(x, np.array(["c", "a", "b"])[y])
    assert source_of(model).classes == ("a", "b", "c")
    assert source_of(model.booster_).classes is None


def test_integers_as_categories_are_compared_too() -> None:
    x, y = (part[: N // 2] for part in vectors())
    x = np.column_stack([x[:, :3], np.arange(len(x)) % 5]).astype(np.float32)
    y = (y + x[:, 3].astype(int)) % 3
    model = lightgbm.LGBMClassifier(n_estimators=3, verbosity=-1, min_child_samples=5)
    model.fit(x, y, categorical_feature=[3])
    member = member_of(source_of(model), "m", of_vectors())
    assert member.splits is not None
    assert np.isfinite(member.splits.thresholds).all()
    with pytest.raises(ParityError, match="its ONNX graph"):
        check_parity(member, member.to_onnx(), of_vectors())


def test_a_forest_that_the_converter_gets_wrong_is_caught() -> None:
    dataset = of_vectors()
    member = member_of(source_of(_fit(boosting_type="rf", subsample=0.5, subsample_freq=1)), "m", dataset)
    with pytest.raises(ParityError, match="row 0 of 'validation'"):
        check_parity(member, member.to_onnx(), dataset)


def test_one_against_all_is_refused() -> None:
    with pytest.raises(InvalidModel, match="got 'multiclassova'"):
        source_of(_fit(objective="multiclassova"))


def test_linear_trees_are_refused() -> None:
    with pytest.raises(InvalidModel, match="linear trees"):
        source_of(_fit(linear_tree=True))


def test_columns_of_categories_are_refused() -> None:
    x, y = vectors()
    rows = pandas.DataFrame({"a": pandas.Categorical(x[:, 0].round().astype(int)), "b": x[:, 1]})
    model = lightgbm.LGBMClassifier(n_estimators=3, verbosity=-1).fit(rows, y)
    with pytest.raises(InvalidModel, match="pandas' categories"):
        source_of(model)


def test_what_is_no_classifier_is_refused() -> None:
    x, y = vectors()
    with pytest.raises(InvalidModel, match=r"expected a classifier, of objective binary, .* got 'regression'"):
        source_of(lightgbm.LGBMRegressor(n_estimators=2, verbosity=-1).fit(x, y))


def test_a_file_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    text = _fit().booster_.model_to_string()
    (tmp_path / "m.txt").write_text(text[: len(text) // 3])
    with pytest.raises(InvalidModel, match=r"m\.txt: LightGBM cannot load it: expected 'end of trees'"):
        load_model(tmp_path / "m.txt", Trust())
