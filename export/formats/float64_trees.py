"""Boosters inside of scikit-learn's pipelines that compare float64: HistGradientBoosting and LightGBM.

The trees of scikit-learn and of XGBoost round what they are given to float32 before they compare. These two do not, so
a graph whose trees see the float32 nearest to what a scaler computed is wrong wherever a threshold lies between. Here
they have thresholds in float64, and are fed what the scaler computed.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

from export.errors import ConversionFailed

IN_FLOAT64 = {
    "nodes_values": "nodes_values_as_tensor",
    "class_weights": "class_weights_as_tensor",
    "base_values": "base_values_as_tensor",
}
"""Attributes of a tree ensemble that hold float32, and those that may hold float64 in their place."""
ARITHMETIC = ("Add", "Sub", "Mul", "Div", "MatMul", "Min", "Max", "Where", "Concat", "Reshape", "Identity")
"""Operators that answer numbers like those that they are given."""
PASSING = ("Concat", "Reshape", "Identity")
"""Those that hand them on as they are; of all but Concat the first input is what they hand on."""


def register_boosters() -> None:
    """Teach skl2onnx the boosters of others, as steps of a pipeline."""
    import lightgbm
    import xgboost
    from onnxmltools.convert.xgboost.operator_converters.XGBoost import convert_xgboost
    from skl2onnx import update_registered_converter
    from skl2onnx.common.shape_calculator import calculate_linear_classifier_output_shapes

    for kind, name, convert in (
        (xgboost.XGBClassifier, "XGBoostXGBClassifier", convert_xgboost),
        (lightgbm.LGBMClassifier, "LightGbmLGBMClassifier", _lightgbm),
    ):
        update_registered_converter(
            kind,
            name,
            calculate_linear_classifier_output_shapes,
            convert,
            options={"nocl": [True, False], "zipmap": [True, False, "columns"]},
        )


def _lightgbm(scope: Any, operator: Any, container: Any) -> None:
    """onnxmltools' own converter, with its trees in float64."""
    from onnxmltools.convert.lightgbm.operator_converters.LightGbm import convert_lightgbm

    convert_lightgbm(scope, operator, _WithFloat64Trees(container))


class _WithFloat64Trees:
    """skl2onnx's container, but for trees."""

    def __init__(self, container: Any) -> None:
        self._container = container

    def __getattr__(self, name: str) -> Any:
        return getattr(self._container, name)

    def add_node(self, kind: str, *args: Any, **attributes: Any) -> Any:
        wide = in_float64(attributes) if kind == "TreeEnsembleClassifier" else attributes
        return self._container.add_node(kind, *args, **wide)


def in_float64(attributes: dict[str, Any]) -> dict[str, Any]:
    """A tree ensemble's attributes with its numbers in float64."""
    return {
        IN_FLOAT64.get(name, name): numpy_helper.from_array(np.asarray(value, dtype=np.float64), name)
        if name in IN_FLOAT64
        else value
        for name, value in attributes.items()
    }


# ---- HistGradientBoosting -------------------------------------------------------------------------------------------


def hist_gradient_boosting(scope: Any, operator: Any, container: Any) -> None:
    """A converter for skl2onnx: its own writes thresholds in float32, and fails on models with missing values."""
    from skl2onnx.operator_converters.common import concatenate_variables

    model, inputs = operator.raw_operator, operator.inputs
    joined = inputs[0].full_name if len(inputs) == 1 else concatenate_variables(scope, inputs, container)
    text = model.classes_.dtype.kind in "OU"
    labels = (
        {"classlabels_strings": [str(label) for label in model.classes_]}
        if text
        else {"classlabels_int64s": [int(label) for label in model.classes_]}
    )
    binary = len(model.classes_) == 2
    container.add_node(
        "TreeEnsembleClassifier",
        [joined],
        [output.full_name for output in operator.outputs],
        op_domain="ai.onnx.ml",
        op_version=3,
        name=scope.get_unique_operator_name("TreeEnsembleClassifier"),
        post_transform="LOGISTIC" if binary else "SOFTMAX",
        **labels,
        **in_float64(_trees(model)),
    )


def _trees(model: Any) -> dict[str, Any]:
    """The attributes that hold the trees. Raises ConversionFailed for splits of categories."""
    trees: dict[str, list[Any]] = {
        name: []
        for name in (
            "nodes_treeids",
            "nodes_nodeids",
            "nodes_featureids",
            "nodes_values",
            "nodes_modes",
            "nodes_truenodeids",
            "nodes_falsenodeids",
            "nodes_missing_value_tracks_true",
            "class_treeids",
            "class_nodeids",
            "class_ids",
            "class_weights",
        )
    }
    predictors = [(tree, label) for iteration in model._predictors for label, tree in enumerate(iteration)]
    for index, (predictor, label) in enumerate(predictors):
        nodes = predictor.nodes
        if nodes["is_categorical"].any():
            raise ConversionFailed("splits of categories (categorical_features)")
        for place, node in enumerate(nodes):
            _add_node(trees, index, place, node)
            if node["is_leaf"]:
                _add(
                    trees, class_treeids=index, class_nodeids=place, class_ids=label, class_weights=float(node["value"])
                )
    return {**trees, "base_values": np.ravel(model._baseline_prediction).tolist()}


def _add_node(trees: dict[str, list[Any]], tree: int, place: int, node: Any) -> None:
    leaf = bool(node["is_leaf"])
    _add(
        trees,
        nodes_treeids=tree,
        nodes_nodeids=place,
        nodes_featureids=0 if leaf else int(node["feature_idx"]),
        nodes_values=0.0 if leaf else float(node["num_threshold"]),
        nodes_modes="LEAF" if leaf else "BRANCH_LEQ",
        nodes_truenodeids=0 if leaf else int(node["left"]),
        nodes_falsenodeids=0 if leaf else int(node["right"]),
        nodes_missing_value_tracks_true=int(not leaf and node["missing_go_to_left"]),
    )


def _add(trees: dict[str, list[Any]], **values: Any) -> None:
    for name, value in values.items():
        trees[name].append(value)


# ---- What feeds them ------------------------------------------------------------------------------------------------


def feed_float64(graph: GraphProto) -> None:
    """Give what is computed in float64 to what computes in float64, past the casts to float32 between the two."""
    for node in [node for node in graph.node if any(part.name == "nodes_values_as_tensor" for part in node.attribute)]:
        cast = helper.make_node("Cast", [node.input[0]], [f"{node.output[0]}/float64"], to=TensorProto.DOUBLE)
        node.input[0] = cast.output[0]
        graph.node.insert(list(graph.node).index(node), cast)
    for cast in [node for node in graph.node if _casts_to(node, TensorProto.DOUBLE)]:
        lifted: list[NodeProto] = []
        wide = _lift(graph, cast.input[0], lifted, cast.output[0])
        if wide is not None:
            place = list(graph.node).index(cast)
            cast.CopyFrom(helper.make_node("Identity", [wide], [cast.output[0]]))
            for node in reversed(lifted):
                graph.node.insert(place, node)


def _lift(graph: GraphProto, name: str, lifted: list[NodeProto], prefix: str) -> str | None:
    """The name of the float64 that `name` was rounded from, None if it was not; nodes for it go to `lifted`."""
    producer = next((node for node in graph.node if name in node.output), None)
    if producer is None:
        return None
    if _casts_to(producer, TensorProto.FLOAT) and producer.input[0] in _doubles(graph):
        return str(producer.input[0])
    if producer.op_type not in PASSING:
        return None
    passed = list(producer.input) if producer.op_type == "Concat" else [producer.input[0]]
    wide = [_lift(graph, value, lifted, prefix) for value in passed]
    if not any(wide):
        return None
    copy = NodeProto()
    copy.CopyFrom(producer)
    copy.name = copy.output[0] = f"{prefix}/lifted/{len(lifted)}"
    for place, (value, found) in enumerate(zip(passed, wide, strict=True)):
        if found is None:
            found = f"{copy.name}/{place}"
            lifted.append(helper.make_node("Cast", [value], [found], to=TensorProto.DOUBLE))
        copy.input[place] = found
    lifted.append(copy)
    return copy.name


def _doubles(graph: GraphProto) -> set[str]:
    """Values in float64: what a cast has made, and arithmetic on it."""
    known: set[str] = set()
    for node in graph.node:
        if _casts_to(node, TensorProto.DOUBLE) or (node.op_type in ARITHMETIC and known.intersection(node.input)):
            known.update(node.output)
    return known


def _casts_to(node: NodeProto, element: int) -> bool:
    return node.op_type == "Cast" and any(part.name == "to" and part.i == element for part in node.attribute)


__all__: Sequence[str] = ["feed_float64", "hist_gradient_boosting", "register_boosters"]
