"""scikit-learn's classifiers and pipelines: `.skops`, and `.joblib` or `.pkl` from whoever is trusted."""

import contextlib
import importlib
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.errors import InvalidModel
from export.formats.sklearn_graph import estimators, sklearn_to_onnx
from export.formats.source import Source, WantsArray, WantsColumns, class_name
from export.trained import Splits, tree_splits
from server.errors import first_line

PICKLES = (".joblib", ".pkl", ".pickle")
STEPWISE = ("sklearn.tree", "sklearn.ensemble", "xgboost", "lightgbm")
"""Modules whose models answer in steps."""
KNOWN_MODULES = ("sklearn.", "scipy.sparse.")
"""Modules whose classes a `.skops` file may hold unasked, besides what skops itself knows."""


@dataclass(frozen=True, slots=True)
class Trust:
    """What may be opened: pickles, which run code; and types in a `.skops` file that are not scikit-learn's own."""

    pickle: bool = False
    types: Sequence[str] = field(default=())


def is_sklearn_file(path: Path) -> bool:
    return (path.suffix == ".skops" and zipfile.is_zipfile(path)) or path.suffix in PICKLES


def load_sklearn(path: Path, trust: Trust) -> Any:
    """Whatever the file holds, which need not be of scikit-learn. Raises InvalidModel."""
    return _load_skops(path, trust) if path.suffix == ".skops" else _load_pickle(path, trust)


def is_sklearn_model(model: Any) -> bool:
    return any(kind.__module__.partition(".")[0] == "sklearn" for kind in type(model).__mro__)


def sklearn_source(model: Any) -> Source:
    """Raises InvalidModel for what is no fitted classifier that answers probabilities."""
    import sklearn
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import Pipeline
    from sklearn.utils.validation import check_is_fitted

    _check_classifier(model)
    try:
        check_is_fitted(model)
    except Exception as exc:
        raise InvalidModel(f"expected a fitted model, got: {first_line(exc)}") from exc
    names = tuple(map(str, getattr(model, "feature_names_in_", ()))) or None
    wants: WantsArray | WantsColumns
    if names and any(isinstance(part, ColumnTransformer) for part in estimators(model)):
        wants = WantsColumns(names)
    elif (n_features := getattr(model, "n_features_in_", None)) is None:
        raise InvalidModel(f"expected a model that takes columns of numbers or of text, got {type(model).__name__}")
    else:
        wants = WantsArray((int(n_features),), features=names)
    last = model.steps[-1][1] if isinstance(model, Pipeline) else model
    return Source(
        framework=f"scikit-learn {sklearn.__version__}",
        wants=wants,
        n_outputs=len(model.classes_),
        predict=lambda arrays: _predict(model, wants, arrays),
        to_onnx=lambda ports: sklearn_to_onnx(model, ports),
        classes=tuple(map(class_name, model.classes_)),
        splits=_splits_of(model),
        smooth=not type(last).__module__.startswith(STEPWISE),
    )


def _check_classifier(model: Any) -> None:
    from sklearn.base import is_classifier

    kind = type(model).__name__
    if not is_classifier(model):
        raise InvalidModel(f"expected a classifier, got {kind}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what is deprecated in how the model was made
        answers = hasattr(model, "predict_proba")
    if not answers:
        raise InvalidModel(
            f"expected a classifier that answers probabilities, but this {kind} has no predict_proba: calibrate it "
            "(CalibratedClassifierCV), or set voting='soft' or probability=True, and fit it again"
        )
    if isinstance(getattr(model, "classes_", None), list):
        raise InvalidModel(f"expected one class a row, got a {kind} of several outputs")


def _predict(model: Any, wants: WantsArray | WantsColumns, arrays: list[NDArray[Any]]) -> NDArray[Any]:
    """In float64, as it was most likely trained."""
    import pandas

    if isinstance(wants, WantsColumns):
        columns = zip(wants.names, arrays, strict=True)
        rows: Any = pandas.DataFrame({name: _column(array[:, 0]) for name, array in columns}, columns=list(wants.names))
    else:
        rows = arrays[0].astype(np.float64)
        rows = rows if wants.features is None else pandas.DataFrame(rows, columns=list(wants.features))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # unknown categories, divisions by zero: what they do to the answer is compared
        return np.asarray(model.predict_proba(rows))


def _column(values: NDArray[Any]) -> Any:
    """Text that is missing is empty in our rows, NaN in pandas'."""
    if values.dtype != object:
        return values.astype(np.float64)
    return np.array([value if value else np.nan for value in values], dtype=object)


# ---- Trees ----------------------------------------------------------------------------------------------------------


def _splits_of(model: Any) -> Any:
    """For a tree, or a forest of them, that sees the rows themselves; None for any other."""
    from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
    from sklearn.tree import DecisionTreeClassifier

    if isinstance(model, DecisionTreeClassifier):
        return lambda rows: _joined([model], rows)
    if isinstance(model, (RandomForestClassifier, ExtraTreesClassifier)):
        return lambda rows: _joined(model.estimators_, rows)
    return None


def _joined(trees: Sequence[Any], rows: NDArray[np.float32]) -> Splits:
    found = []
    for model in trees:
        tree = model.tree_
        leaves = tree.apply(np.ascontiguousarray(rows, dtype=np.float32))
        found.append(tree_splits(tree.children_left, tree.children_right, tree.feature, tree.threshold, leaves))
    return Splits.joined(found)


# ---- Files ----------------------------------------------------------------------------------------------------------


def _load_skops(path: Path, trust: Trust) -> Any:
    import skops.io

    try:
        unknown = skops.io.get_untrusted_types(file=path)
        own = [name for name in unknown if _is_known_class(name)]
        if strange := sorted(set(unknown) - set(own) - set(trust.types)):
            options = " ".join(f"--trust {name}" for name in strange)
            raise InvalidModel(
                f"{path}: holds types of neither scikit-learn nor skops: {', '.join(strange)}; if you trust whoever "
                f"made the file, say {options}"
            )
        model = skops.io.load(path, trusted=[*own, *trust.types])
    except InvalidModel:
        raise
    except Exception as exc:  # skops, zipfile, json and numpy raise a dozen kinds over bytes that are no model
        raise InvalidModel(f"{path}: skops cannot load it: {first_line(exc)}") from exc
    _check_trees(model, path)
    return model


def _is_known_class(name: str) -> bool:
    """A class, not a function: making an object of it runs nothing but the code of these three."""
    module, _, attribute = name.rpartition(".")
    if name != "numpy.dtype" and not f"{module}.".startswith(KNOWN_MODULES):
        return False
    with contextlib.suppress(ImportError, AttributeError):
        return isinstance(getattr(importlib.import_module(module), attribute), type)
    return False


def _check_trees(model: Any, path: Path) -> None:
    """A tree's nodes are read without looking: one that points outside of its tree would read another's memory."""
    for left, right, features, n_features in _tree_nodes(model):
        inner = left >= 0
        places = np.arange(len(left))
        children = np.stack([left, right])[:, inner]
        fine = (children > places[inner]).all() and (children < len(left)).all()
        if not fine or not ((features[inner] >= 0) & (features[inner] < n_features)).all():
            raise InvalidModel(f"{path}: holds a tree whose nodes point outside of it")


def _tree_nodes(model: Any) -> Iterator[tuple[NDArray[Any], NDArray[Any], NDArray[Any], int]]:
    """Children, features and the number of features of each tree; children are -1 in a leaf."""
    for part in estimators(model):
        if hasattr(part, "tree_"):
            tree = part.tree_
            yield tree.children_left, tree.children_right, tree.feature, part.n_features_in_
        for predictor in np.ravel(np.array(getattr(part, "_predictors", []), dtype=object)):
            nodes, leaf = predictor.nodes, predictor.nodes["is_leaf"].astype(bool)
            left, right = (np.where(leaf, -1, nodes[side].astype(np.int64)) for side in ("left", "right"))
            yield left, right, nodes["feature_idx"], part.n_features_in_


def _load_pickle(path: Path, trust: Trust) -> Any:
    if not trust.pickle:
        raise InvalidModel(
            f"{path}: a pickle runs whatever code its maker put in: save the model with skops instead "
            "(skops.io.dump(model, 'model.skops')), or say --allow-pickle if you made the file yourself"
        )
    import joblib

    try:
        return joblib.load(path)
    except Exception as exc:  # code of the pickle's own may raise anything
        raise InvalidModel(f"{path}: joblib cannot load it: {first_line(exc)}") from exc
