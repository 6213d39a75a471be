"""Brings an ONNX graph, whatever converter or stranger wrote it, to the contract of members.

The contract: inputs that are some of the ensemble's, under their names, `(n, *shape)` of raw values with a free batch
dimension `n`; one output `probabilities`, float32 `(n, n_classes)`, columns in the order of the classes; opset 18,
ai.onnx.ml 3 and IR 10, so that members can be packed into one graph.
"""

from collections.abc import Sequence

import onnx
from onnx import (
    GraphProto,
    ModelProto,
    TensorProto,
    ValueInfoProto,
    helper,
    inliner,
    shape_inference,
    version_converter,
)

from export.answer import Answer
from export.errors import ConversionFailed
from export.graph import (
    IR_VERSION,
    ML_OPSET,
    OPSET,
    OPSETS,
    all_nodes,
    drop_idle,
    drop_unused,
    fix_reshapes,
    real_inputs,
    rename,
    shape_of,
    shorten_names,
    shown,
)
from export.reading import Port, Reading
from server.errors import first_line
from server.manifest import InputSpec

OUTPUT = "probabilities"
ELEMENTS = {"FP32": TensorProto.FLOAT, "BYTES": TensorProto.STRING}
"""By datatype: ONNX's element."""


def normalised(
    model: ModelProto, reading: Reading, answer: Answer, inputs: Sequence[InputSpec], *, output: str
) -> ModelProto:
    """The same model, keeping the contract; `model` itself is left as it is.

    Its inputs are the ports of `reading`; `output` is the one that `answer` makes probabilities of. Raises
    ConversionFailed.
    """
    graph = GraphProto()
    graph.CopyFrom(at_opset(model).graph)
    _check_ports(graph, reading)
    source = _source(graph, answer, output)
    # No name of the model's may be one of the ensemble's.
    rename(graph, lambda old: f"/own/{old}" if old else old)
    source.name = f"/own/{output}"
    feeds, constants = reading.nodes([f"/own/{port.name}" for port in reading.ports])
    tail, more_constants = answer.nodes(source, OUTPUT)
    nodes = [*feeds, *graph.node, *tail]
    del graph.node[:], graph.input[:], graph.output[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.initializer.extend([*constants, *more_constants])
    graph.input.extend(
        helper.make_tensor_value_info(spec.name, ELEMENTS[spec.datatype], ["n", *spec.shape])
        for spec in inputs
        if spec.name in reading.inputs
    )
    graph.output.append(helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["n", len(answer.order)]))
    _simplify(graph)
    result = helper.make_model(
        graph,
        ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid(*opset) for opset in OPSETS.items()],
        producer_name="committee",
    )
    try:
        onnx.checker.check_model(result, full_check=True)
    except (onnx.checker.ValidationError, shape_inference.InferenceError) as exc:
        raise ConversionFailed(f"expected a valid ONNX graph, got: {first_line(exc)}") from exc
    return result


def at_opset(model: ModelProto) -> ModelProto:
    """Bring the nodes of ONNX's own domain to our opset; a graph that has none is there already.

    Those of ai.onnx.ml are the same in its versions 1 to 3. Raises ConversionFailed.
    """
    versions = {opset.domain.removesuffix("ai.onnx"): opset.version for opset in model.opset_import}
    if model.functions:
        model = inliner.inline_local_functions(model)
    strange = {node.domain for node in all_nodes(model.graph)} - {"", "ai.onnx", "ai.onnx.ml"}
    if strange or versions.get("ai.onnx.ml", ML_OPSET) > ML_OPSET:
        raise ConversionFailed(
            f"expected operators of ONNX and of ai.onnx.ml up to version {ML_OPSET}, got {sorted(strange) or versions}"
        )
    own = {node.op_type for node in all_nodes(model.graph) if node.domain in ("", "ai.onnx")}
    version = versions.get("", OPSET)
    if unknown := sorted(name for name in own if not onnx.defs.has(name, max(version, OPSET), "")):
        raise ConversionFailed(f"expected operators of ONNX, got {', '.join(unknown)}, which it does not have")
    if version == OPSET or not own:
        return model
    try:
        return version_converter.convert_version(model, OPSET)
    except RuntimeError as exc:
        raise ConversionFailed(f"cannot go from opset {version} to {OPSET}: {first_line(exc)}") from exc


def _check_ports(graph: GraphProto, reading: Reading) -> None:
    """The graph must have the inputs that the reading feeds, of these elements and shapes."""
    found = {value.name: value for value in real_inputs(graph)}
    for port in reading.ports:
        value = found.get(port.name)
        if value is None or value.type.tensor_type.elem_type != port.element:
            raise ConversionFailed(
                f"expected an input {port.name!r} of {TensorProto.DataType.Name(port.element)}, got {_listed(found)}"
            )
        shape = shape_of(value)[1:]
        fits = len(shape) == len(port.shape) and all(
            got in (want, None) for want, got in zip(port.shape, shape, strict=True)
        )
        if not fits:
            raise ConversionFailed(f"expected an input of [n, {shown(port.shape)}], got [n, {shown(shape)}]")
    if strangers := [name for name in found if name not in {port.name for port in reading.ports}]:
        raise ConversionFailed(f"expected no inputs but {[port.name for port in reading.ports]}, got also {strangers}")


def _source(graph: GraphProto, answer: Answer, output: str) -> ValueInfoProto:
    """The output that the answer is made of; all others go."""
    found = {value.name: value for value in graph.output}
    value = found.get(output)
    if value is None or value.type.tensor_type.elem_type not in (TensorProto.FLOAT, TensorProto.DOUBLE):
        raise ConversionFailed(f"expected an output {output!r} of floats, got {_listed(found)}")
    shape = shape_of(value)
    if len(shape) == 2 and shape[1] not in (answer.n_outputs, None):
        raise ConversionFailed(f"expected {answer.n_outputs} columns, one a class, got [n, {shown(shape[1:])}]")
    copy = ValueInfoProto()
    copy.CopyFrom(value)
    return copy


def _simplify(graph: GraphProto) -> None:
    fix_reshapes(graph)
    drop_idle(graph, OUTPUT)
    drop_unused(graph, OUTPUT)
    _put_out_directly(graph)
    shorten_names(graph, [OUTPUT, *(value.name for value in graph.input)])
    read = {name for node in all_nodes(graph) for name in node.input}
    used = [value for value in graph.input if value.name in read]
    del graph.input[:]
    graph.input.extend(used)


def _put_out_directly(graph: GraphProto) -> None:
    """Give the output's name to the value that a last Identity copies there."""
    last = graph.node[-1]
    if last.op_type == "Identity" and any(last.input[0] in node.output for node in graph.node):
        copied = last.input[0]
        graph.node.remove(last)
        rename(graph, lambda old: OUTPUT if old == copied else old)


def _listed(values: dict[str, ValueInfoProto]) -> str:
    return ", ".join(
        f"{name!r} of {TensorProto.DataType.Name(value.type.tensor_type.elem_type)}" for name, value in values.items()
    )


__all__ = ["OUTPUT", "Port", "at_opset", "normalised"]
