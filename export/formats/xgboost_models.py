"""XGBoost's classifiers: `.json` and `.ubj`."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from export.errors import ConversionFailed, InvalidModel
from export.formats.source import Source, WantsArray
from export.reading import Port
from export.trained import Splits, tree_splits

OPSET = 15
"""The highest that onnxmltools takes. Its graph is one node of ai.onnx.ml, so ONNX's own opset says nothing of it."""
OBJECTIVES = ("binary:logistic", "multi:softprob", "multi:softmax")


def is_xgboost_file(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(256)
    if path.suffix == ".ubj":
        return start.startswith(b"{")
    return path.suffix == ".json" and start.lstrip().startswith(b"{") and b'"learner"' in start


def load_xgboost(path: Path) -> Any:
    """Raises InvalidModel."""
    import xgboost

    booster = xgboost.Booster()
    try:
        booster.load_model(path)
    except Exception as exc:  # XGBoostError is a ValueError, and not the only one
        raise InvalidModel(f"{path}: XGBoost cannot load it: {_reason(exc)}") from exc
    return booster


def is_xgboost_model(model: Any) -> bool:
    return any(kind.__module__.partition(".")[0] == "xgboost" for kind in type(model).__mro__)


def xgboost_source(model: Any) -> Source:
    """A Booster, or an XGBClassifier, which ends at its best iteration. Raises InvalidModel for what is neither."""
    import xgboost

    booster = model if isinstance(model, xgboost.Booster) else model.get_booster()
    learner = json.loads(booster.save_raw("json"))["learner"]
    _check(model, learner)
    names = booster.feature_names
    classifier = _nameless(booster)
    n_classes = max(2, int(learner["learner_model_param"]["num_class"]))
    return Source(
        framework=f"xgboost {xgboost.__version__}",
        wants=WantsArray((booster.num_features(),), features=tuple(names) if names else None),
        n_outputs=n_classes,
        predict=lambda arrays: classifier.predict_proba(arrays[0]),
        to_onnx=lambda ports: _to_onnx(classifier, learner, ports),
        splits=lambda rows: splits_of(classifier.get_booster(), rows),
    )


def _check(model: Any, learner: dict[str, Any]) -> None:
    objective, booster = learner["objective"]["name"], learner["gradient_booster"]
    if objective not in OBJECTIVES:
        raise InvalidModel(f"expected a classifier, of objective {', '.join(OBJECTIVES)}; got {objective!r}")
    if booster["name"] != "gbtree":
        raise InvalidModel(f"expected boosted trees (gbtree), got {booster['name']!r}, which has no converter")
    trees = booster["model"]["trees"]
    if any(int(tree["tree_param"]["size_leaf_vector"]) > 1 for tree in trees):
        raise InvalidModel("expected a tree a class, got trees of several outputs (multi_output_tree)")
    if any(tree["categories"] for tree in trees):
        raise InvalidModel("expected splits of numbers, got splits of categories (enable_categorical): no converter")
    if not np.isnan(missing := getattr(model, "missing", np.nan)):
        raise InvalidModel(f"expected missing values to be NaN, got a model that takes {missing} for missing")


def _nameless(booster: Any) -> Any:
    """A classifier of its own that takes plain arrays: the converter knows no names but f0, f1, f2, …"""
    import xgboost

    saved = json.loads(booster.save_raw("json"))
    objective = saved["learner"]["objective"]
    if objective["name"] == "multi:softmax":  # answers labels, and the converter then leaves the softmax out
        objective["name"] = "multi:softprob"
    classifier = xgboost.XGBClassifier()
    classifier.load_model(bytearray(json.dumps(saved).encode()))
    own = classifier.get_booster()
    own.feature_names = own.feature_types = None
    return classifier


def _to_onnx(classifier: Any, learner: dict[str, Any], ports: Sequence[Port]) -> ModelProto:
    import onnxmltools
    from onnxmltools.convert.common.data_types import FloatTensorType

    (port,) = ports
    try:
        graph: ModelProto = onnxmltools.convert_xgboost(
            classifier, initial_types=[(port.name, FloatTensorType([None, *port.shape]))], target_opset=OPSET
        )
    except Exception as exc:  # it raises whatever goes wrong inside
        raise ConversionFailed(f"onnxmltools cannot convert it: {_reason(exc)}") from exc
    _right_classes(
        graph, learner["gradient_booster"]["model"]["tree_info"], int(learner["learner_model_param"]["num_class"])
    )
    return graph


def _right_classes(graph: ModelProto, class_of_tree: list[int], n_classes: int) -> None:
    """Say which class each tree is of: the converter takes every k-th, which is wrong for num_parallel_tree."""
    if n_classes < 3:
        return
    for node in graph.graph.node:
        attributes = {attribute.name: attribute for attribute in node.attribute}
        if node.op_type == "TreeEnsembleClassifier":
            trees = attributes["class_treeids"].ints
            attributes["class_ids"].ints[:] = [class_of_tree[tree] for tree in trees]


def splits_of(booster: Any, rows: NDArray[np.float32]) -> Splits:
    """Of those trees that its answer is made of."""
    import xgboost

    trees = json.loads(booster.save_raw("json"))["learner"]["gradient_booster"]["model"]["trees"]
    leaves = booster.predict(xgboost.DMatrix(rows), pred_leaf=True).astype(np.int64).reshape(len(rows), -1)
    return Splits.joined(
        [
            tree_splits(
                np.array(tree["left_children"]),
                np.array(tree["right_children"]),
                np.array(tree["split_indices"]),
                np.array(tree["split_conditions"]),
                leaves[:, index],
            )
            for index, tree in enumerate(trees[: leaves.shape[1]])
        ]
    )


def _reason(exc: Exception) -> str:
    """XGBoost's own line, without the C++ stack below it."""
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    return (lines or [type(exc).__name__])[0]
