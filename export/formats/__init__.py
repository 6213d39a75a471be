"""The kinds of trained models that can be brought: how each is found, opened and understood."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export.errors import InvalidModel
from export.formats.keras_models import is_keras_file, is_keras_model, keras_source, load_keras
from export.formats.lightgbm_models import is_lightgbm_file, is_lightgbm_model, lightgbm_source, load_lightgbm
from export.formats.onnx_models import is_onnx_file, is_onnx_model, load_onnx, onnx_source
from export.formats.sklearn_models import Trust, is_sklearn_file, is_sklearn_model, load_sklearn, sklearn_source
from export.formats.source import Source
from export.formats.xgboost_models import is_xgboost_file, is_xgboost_model, load_xgboost, xgboost_source

__all__ = ["FAMILIES", "Source", "Trust", "load_model", "source_of"]


@dataclass(frozen=True, slots=True)
class Family:
    """`is_file` looks at name and first bytes, `load` opens, `is_model` knows the objects, `source` wraps one."""

    files: str
    is_file: Callable[[Path], bool]
    load: Callable[[Path, Trust], Any]
    is_model: Callable[[Any], bool]
    source: Callable[[Any], Source]
    takes_folders: bool = False


FAMILIES: dict[str, Family] = {
    "ONNX": Family(".onnx", is_onnx_file, lambda path, _: load_onnx(path), is_onnx_model, onnx_source),
    "Keras": Family(
        ".keras, .h5, a SavedModel's folder",
        is_keras_file,
        lambda path, _: load_keras(path),
        is_keras_model,
        keras_source,
        takes_folders=True,
    ),
    "XGBoost": Family(
        ".json, .ubj", is_xgboost_file, lambda path, _: load_xgboost(path), is_xgboost_model, xgboost_source
    ),
    "LightGBM": Family(
        ".txt", is_lightgbm_file, lambda path, _: load_lightgbm(path), is_lightgbm_model, lightgbm_source
    ),
    # Last, as the classifiers of XGBoost and LightGBM are scikit-learn's kind too.
    "scikit-learn": Family(".skops, .joblib, .pkl", is_sklearn_file, load_sklearn, is_sklearn_model, sklearn_source),
}


def load_model(path: Path, trust: Trust) -> Any:
    """The model in a file, or in a SavedModel's folder. Raises InvalidModel."""
    if not path.exists():
        raise InvalidModel(f"{path}: expected a trained model, there is no such file")
    for family in FAMILIES.values():
        if (path.is_file() or family.takes_folders) and family.is_file(path):
            return family.load(path, trust)
    known = "; ".join(f"{name} ({family.files})" for name, family in FAMILIES.items())
    raise InvalidModel(f"{path}: expected a trained model of one of these kinds, by name and contents: {known}")


def source_of(model: Any) -> Source:
    """A trained model in memory. Raises InvalidModel."""
    for family in FAMILIES.values():
        if family.is_model(model):
            return family.source(model)
    kind = f"{type(model).__module__}.{type(model).__qualname__}"
    raise InvalidModel(f"expected a trained model of {', '.join(FAMILIES)}; got {kind}")
