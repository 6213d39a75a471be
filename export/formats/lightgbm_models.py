"""LightGBM's classifiers: `.txt`, as `Booster.save_model` writes it."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from export.errors import ConversionFailed, InvalidModel
from export.formats.source import Source, WantsArray, class_name
from export.reading import Port
from export.trained import Splits, tree_splits

OPSET = 15
"""The highest that onnxmltools takes; what it writes is brought to ours."""
ZERO = np.float32(1e-35)
"""LightGBM's kZeroThreshold."""
OBJECTIVES = ("binary", "multiclass")
"""`multiclassova` answers a probability a class, which do not sum to 1."""


def is_lightgbm_file(path: Path) -> bool:
    if path.suffix not in (".txt", ".lgb", ".model"):
        return False
    with path.open("rb") as file:
        return file.read(64).split(b"\n")[0].strip() == b"tree"


def load_lightgbm(path: Path) -> Any:
    """Raises InvalidModel."""
    import lightgbm

    try:
        text = path.read_text(encoding="utf-8")
        if "\nend of trees" not in text:  # LightGBM may end the process over a file that is cut short
            raise ValueError("expected 'end of trees', but the file stops before it")
        return lightgbm.Booster(model_str=text)
    except (ValueError, lightgbm.basic.LightGBMError) as exc:
        raise InvalidModel(f"{path}: LightGBM cannot load it: {exc}") from exc


def is_lightgbm_model(model: Any) -> bool:
    return any(kind.__module__.partition(".")[0] == "lightgbm" for kind in type(model).__mro__)


def lightgbm_source(model: Any) -> Source:
    """A Booster, or an LGBMClassifier, whose classes have names. Raises InvalidModel for what is no classifier."""
    import lightgbm

    booster = model if isinstance(model, lightgbm.Booster) else getattr(model, "booster_", model)
    text = booster.model_to_string(num_iteration=booster.best_iteration)
    _check(text)
    names = tuple(booster.feature_name())
    own = lightgbm.Booster(model_str=text)
    return Source(
        framework=f"lightgbm {lightgbm.__version__}",
        wants=WantsArray((booster.num_feature(),), features=None if _are_numbered(names) else names),
        n_outputs=max(2, own.num_model_per_iteration()),
        predict=lambda arrays: _two_columns(own.predict(arrays[0])),
        to_onnx=lambda ports: _to_onnx(text, ports),
        classes=tuple(map(class_name, model.classes_)) if hasattr(model, "classes_") else None,
        splits=lambda rows: splits_of(own, rows),
    )


def floored(text: str) -> str:
    """A model's text with each threshold lowered to the highest float32 that is not above it.

    A graph compares float32: `x <= t` is then the same for every float32 `x`, while the nearest float32 may lie above
    `t`, and let by an `x` that the model does not. LightGBM reads sizes of trees off their own line; without it, it
    looks for them.
    """
    lines = (line for line in text.splitlines() if not line.startswith("tree_sizes="))
    return "\n".join(_floored(line) if line.startswith("threshold=") else line for line in lines) + "\n"


def _floored(line: str) -> str:
    thresholds = floor_float32(np.array(line.removeprefix("threshold=").split(), dtype=np.float64))
    return "threshold=" + " ".join(repr(float(value)) for value in _around_zero(thresholds))


def _around_zero(thresholds: NDArray[np.float64]) -> NDArray[np.float64]:
    """LightGBM takes an `x` of at most `ZERO` for 0; so must a graph, whose thresholds may lie that near."""
    below = np.nextafter(-ZERO, np.float32(-np.inf))
    near = np.where(thresholds < 0, below, ZERO)
    return np.where(np.abs(thresholds) <= ZERO, near, thresholds)


def floor_float32(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """For each value, the highest float32 that is not above it."""
    with np.errstate(over="ignore"):
        nearest = values.astype(np.float32)
    return np.where(nearest > values, np.nextafter(nearest, np.float32(-np.inf)), nearest).astype(np.float64)


def _check(text: str) -> None:
    found = re.search(r"^objective=(\S+)", text, re.MULTILINE)
    objective = found[1] if found else "none"
    if objective not in OBJECTIVES:
        raise InvalidModel(f"expected a classifier, of objective {', '.join(OBJECTIVES)}; got {objective!r}")
    if re.search(r"^is_linear=1", text, re.MULTILINE):
        raise InvalidModel("expected trees with a value a leaf, got linear trees (linear_tree): no converter")
    categories = re.search(r"^pandas_categorical:(.*)", text, re.MULTILINE)
    if categories and categories[1].strip() not in ("null", "[]"):
        raise InvalidModel("expected columns of numbers, got columns of pandas' categories: no converter")


def _two_columns(answer: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of two classes LightGBM answers the second's probability alone."""
    return np.stack([1 - answer, answer], axis=1) if answer.ndim == 1 else answer


def _are_numbered(names: Sequence[str]) -> bool:
    """`Column_0`, `Column_1`, …: what LightGBM calls what has no name."""
    return list(names) == [f"Column_{index}" for index in range(len(names))]


def _to_onnx(text: str, ports: Sequence[Port]) -> ModelProto:
    import lightgbm
    import onnxmltools
    from onnxmltools.convert.common.data_types import FloatTensorType

    (port,) = ports
    try:
        return onnxmltools.convert_lightgbm(  # type: ignore[no-any-return]
            lightgbm.Booster(model_str=floored(text)),
            initial_types=[(port.name, FloatTensorType([None, *port.shape]))],
            target_opset=OPSET,
            zipmap=False,
        )
    except Exception as exc:  # it raises whatever goes wrong inside
        raise ConversionFailed(f"onnxmltools cannot convert it: {exc}") from exc


def splits_of(booster: Any, rows: NDArray[np.float32]) -> Splits:
    """Of all trees; a split of categories has no threshold, and is left out."""
    leaves = booster.predict(rows, pred_leaf=True).astype(np.int64).reshape(len(rows), -1)
    trees = booster.dump_model()["tree_info"]
    return Splits.joined([_splits(tree["tree_structure"], leaves[:, index]) for index, tree in enumerate(trees)])


def _splits(root: dict[str, Any], leaves: NDArray[np.int64]) -> Splits:
    nodes = list(_walk(root))
    places = {id(node): place for place, node in enumerate(nodes)}
    of_leaf = {node.get("leaf_index", 0): places[id(node)] for node in nodes if "split_index" not in node}
    left, right = (
        np.array([places[id(node[child])] if child in node else -1 for node in nodes])
        for child in ("left_child", "right_child")
    )
    features = np.array([node.get("split_feature", 0) for node in nodes])
    # A set of categories is written `1||3`, and is nowhere near any number.
    thresholds = np.array(
        [node.get("threshold", 0.0) if node.get("decision_type") == "<=" else np.nan for node in nodes]
    )
    found = tree_splits(left, right, features, thresholds, np.array([of_leaf[leaf] for leaf in leaves]))
    numbers = ~np.isnan(found.thresholds)
    return Splits(found.features[numbers], found.thresholds[numbers], found.rows[numbers])


def _walk(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Parents before their children."""
    yield node
    for child in ("left_child", "right_child"):
        if child in node:
            yield from _walk(node[child])
