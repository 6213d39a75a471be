"""From a trained model to an ONNX graph that keeps the members' contract, whatever converter wrote it.

The contract: one input, named as the ensemble's, float32 `(n, *shape)` of raw values with a free batch dimension `n`;
one output `probabilities`, float32 `(n, n_classes)`, columns in the order of the classes; opset 18, ai.onnx.ml 3 and
IR 10, so that members can be packed into one graph.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import (
    AttributeProto,
    GraphProto,
    ModelProto,
    NodeProto,
    OperatorSetIdProto,
    TensorProto,
    helper,
    numpy_helper,
    shape_inference,
    version_converter,
)

from export.errors import ConversionFailed
from server.manifest import InputSpec

OPSET = 18
ML_OPSET = 3
IR_VERSION = 10
OUTPUT = "probabilities"
XGBOOST_OPSET = 15
"""The highest that onnxmltools takes. Its graph is one node of ai.onnx.ml, so ONNX's own opset says nothing of it."""

SUBGRAPHS = (AttributeProto.GRAPH, AttributeProto.GRAPHS)


def from_keras(model: Any, spec: InputSpec, n_classes: int) -> ModelProto:
    """Convert a Keras model that takes raw values `(n, *spec.shape)`. Raises ConversionFailed."""
    import tensorflow as tf
    import tf2onnx

    signature = [tf.TensorSpec((None, *spec.shape), tf.float32, name=spec.name)]
    function = tf.function(lambda x: {OUTPUT: model(x, training=False)}, input_signature=signature)
    # Not `from_keras`, which raises KeyError on a Sequential of Keras 3.
    graph, _ = tf2onnx.convert.from_function(function, input_signature=signature, opset=OPSET)
    return normalised(graph, spec, n_classes)


def from_sklearn(model: Any, spec: InputSpec, n_classes: int) -> ModelProto:
    """Convert a scikit-learn classifier that takes flat rows. Raises ConversionFailed."""
    import skl2onnx
    from skl2onnx.common.data_types import FloatTensorType

    graph = skl2onnx.to_onnx(
        model,
        initial_types=[("rows", FloatTensorType([None, int(np.prod(spec.shape))]))],
        options={"zipmap": False},
        target_opset={"": OPSET, "ai.onnx.ml": ML_OPSET},
    )
    return normalised(graph, spec, n_classes)


def from_xgboost(model: Any, spec: InputSpec, n_classes: int) -> ModelProto:
    """Convert an XGBClassifier that takes flat rows. Raises ConversionFailed."""
    import onnxmltools
    from onnxmltools.convert.common.data_types import FloatTensorType

    graph = onnxmltools.convert_xgboost(
        model,
        initial_types=[("rows", FloatTensorType([None, int(np.prod(spec.shape))]))],
        target_opset=XGBOOST_OPSET,
    )
    return normalised(graph, spec, n_classes)


def normalised(model: ModelProto, spec: InputSpec, n_classes: int) -> ModelProto:
    """The same model, keeping the contract; `model` itself is left as it is.

    It must have one input of float32, of `(n, *spec.shape)` or flat `(n, features)`, and an output `probabilities`.
    Raises ConversionFailed.
    """
    graph = onnx.GraphProto()
    graph.CopyFrom(_at_opset(model).graph)
    _name_input(graph, spec)
    _keep_output(graph, n_classes)
    _fix_reshapes(graph)
    _drop_idle(graph)
    _drop_unused(graph)
    _rename(graph, spec.name)
    del graph.value_info[:]
    result = helper.make_model(
        graph,
        ir_version=IR_VERSION,
        opset_imports=_opsets(),
        producer_name="committee",
    )
    try:
        onnx.checker.check_model(result, full_check=True)
    except (onnx.checker.ValidationError, shape_inference.InferenceError) as exc:
        raise ConversionFailed(f"expected a valid ONNX graph, got: {_first_line(exc)}") from exc
    return result


def _at_opset(model: ModelProto) -> ModelProto:
    """Bring the nodes of ONNX's own domain to our opset; a graph that has none is there already.

    Those of ai.onnx.ml are the same in its versions 1 to 3.
    """
    versions = {opset.domain: opset.version for opset in model.opset_import}
    strange = {node.domain for node in model.graph.node} - {"", "ai.onnx.ml"}
    if strange or versions.get("ai.onnx.ml", ML_OPSET) > ML_OPSET:
        raise ConversionFailed(
            f"expected operators of ONNX and of ai.onnx.ml up to version {ML_OPSET}, got {sorted(strange) or versions}"
        )
    if any(attribute.type in SUBGRAPHS for node in model.graph.node for attribute in node.attribute):
        raise ConversionFailed("expected a flat graph, got one with If, Loop or Scan")
    if versions.get("", OPSET) == OPSET or all(node.domain for node in model.graph.node):
        return model
    try:
        return version_converter.convert_version(model, OPSET)
    except RuntimeError as exc:
        raise ConversionFailed(f"cannot go from opset {versions['']} to {OPSET}: {_first_line(exc)}") from exc


def _name_input(graph: GraphProto, spec: InputSpec) -> None:
    """Make the input `(n, *spec.shape)` under the ensemble's name; flatten it inside for a model of flat rows."""
    constants = {initializer.name for initializer in graph.initializer}
    inputs = [value for value in graph.input if value.name not in constants]
    if len(inputs) != 1 or inputs[0].type.tensor_type.elem_type != TensorProto.FLOAT:
        raise ConversionFailed(f"expected one input of float32, got {[value.name for value in inputs]}")
    shape = _shape(inputs[0])[1:]
    old = inputs[0].name
    if shape == spec.shape:
        _replace(graph.node, old, spec.name)
    elif shape == [int(np.prod(spec.shape))]:
        graph.initializer.append(numpy_helper.from_array(np.array([-1, *shape], dtype=np.int64), "flat shape"))
        graph.node.insert(0, helper.make_node("Reshape", [spec.name, "flat shape"], [old]))
    else:
        raise ConversionFailed(f"expected an input of [n, {_shown(spec.shape)}] or flat, got [n, {_shown(shape)}]")
    del graph.input[:]
    graph.input.append(helper.make_tensor_value_info(spec.name, TensorProto.FLOAT, ["n", *spec.shape]))


def _keep_output(graph: GraphProto, n_classes: int) -> None:
    """Keep `probabilities` and no other output, such as the label."""
    kept = [value for value in graph.output if value.name == OUTPUT]
    if not kept or kept[0].type.tensor_type.elem_type != TensorProto.FLOAT:
        raise ConversionFailed(
            f"expected an output {OUTPUT!r} of float32, got {[value.name for value in graph.output]}"
        )
    if (shape := _shape(kept[0])[1:]) != [n_classes]:
        raise ConversionFailed(f"expected {n_classes} columns, one a class, got [n, {_shown(shape)}]")
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["n", n_classes]))


def _fix_reshapes(graph: GraphProto) -> None:
    """Give constant shapes to the Reshapes that compute theirs only because the batch dimension is free.

    Keras writes seven nodes where one does; the six are unused then.
    """
    model = helper.make_model(graph, opset_imports=_opsets())
    inferred = shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {value.name: _shape(value) for value in (*inferred.value_info, *inferred.output)}
    for index, node in enumerate(graph.node):
        shape = shapes.get(node.output[0], [])
        if node.op_type == "Reshape" and shape[:1] == [None] and None not in shape[1:]:
            name = f"shape of reshape {index}"
            graph.initializer.append(numpy_helper.from_array(np.array([-1, *shape[1:]], dtype=np.int64), name))
            node.input[1] = name


def _drop_idle(graph: GraphProto) -> None:
    """Take out what changes nothing: Identity, and adding a scalar 0 as Keras's Rescaling does."""
    zeros = {value.name for value in graph.initializer if not value.dims and _is_zero(value)}
    for node in list(graph.node):
        adds_zero = node.op_type == "Add" and node.input[1] in zeros
        if (node.op_type == "Identity" or adds_zero) and node.output[0] != OUTPUT:
            graph.node.remove(node)
            _replace(graph.node, node.output[0], node.input[0])


def _drop_unused(graph: GraphProto) -> None:
    """Drop nodes and constants that `probabilities` does not depend on."""
    needed = {OUTPUT}
    for node in reversed(list(graph.node)):  # nodes are in topological order
        if needed.isdisjoint(node.output):
            graph.node.remove(node)
        else:
            needed.update(node.input)
    used = [initializer for initializer in graph.initializer if initializer.name in needed]
    del graph.initializer[:]
    graph.initializer.extend(used)


def _rename(graph: GraphProto, input_name: str) -> None:
    """Short names: `conv.0` for a node and for what it puts out, `constant.0` for a constant.

    With a dot, which no name of an input has.
    """
    names = {input_name: input_name, OUTPUT: OUTPUT, "": ""}
    for index, initializer in enumerate(graph.initializer):
        names[initializer.name] = f"constant.{index}"
        initializer.name = f"constant.{index}"
    for index, node in enumerate(graph.node):
        node.name = f"{node.op_type.lower()}.{index}"
        node.doc_string = ""
        for place, output in enumerate(node.output):
            names.setdefault(output, node.name if place == 0 else f"{node.name}.{place}")
        node.output[:] = [names[output] for output in node.output]
        node.input[:] = [names.get(name, name) for name in node.input]
    graph.name = "member"
    graph.doc_string = ""


def _replace(nodes: Sequence[NodeProto], old: str, new: str) -> None:
    for node in nodes:
        node.input[:] = [new if name == old else name for name in node.input]


def _opsets() -> list[OperatorSetIdProto]:
    return [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)]


def _is_zero(value: TensorProto) -> bool:
    return value.data_type == TensorProto.FLOAT and not numpy_helper.to_array(value).any()


def _first_line(exc: Exception) -> str:
    return (str(exc).strip().splitlines() or [type(exc).__name__])[0]


def _shape(value: onnx.ValueInfoProto) -> list[int | None]:
    """None where a dimension is free."""
    dims = value.type.tensor_type.shape.dim
    return [dim.dim_value if dim.HasField("dim_value") else None for dim in dims]


def _shown(shape: Sequence[int | None]) -> str:
    return ", ".join("?" if size is None else str(size) for size in shape)
