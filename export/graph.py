"""Surgery on ONNX graphs: what the contract of members needs, whatever converter wrote a graph.

A graph may hold graphs: the branches of an If, the body of a Loop or a Scan. Names are unique over all of them, and an
inner node may read an outer value.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from onnx import (
    AttributeProto,
    GraphProto,
    NodeProto,
    TensorProto,
    ValueInfoProto,
    helper,
    numpy_helper,
    shape_inference,
)

OPSET = 18
ML_OPSET = 3
IR_VERSION = 10
OPSETS = {"": OPSET, "ai.onnx.ml": ML_OPSET}


def inner_graphs(node: NodeProto) -> Iterator[GraphProto]:
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs


def all_nodes(graph: GraphProto) -> Iterator[NodeProto]:
    """Of this graph and of those inside it."""
    for node in graph.node:
        yield node
        for inner in inner_graphs(node):
            yield from all_nodes(inner)


def rename(graph: GraphProto, new: Callable[[str], str]) -> None:
    """Rename every value of a graph and of the graphs inside it: ONNX lets no inner name hide an outer one."""
    for value in (*graph.initializer, *graph.input, *graph.output, *graph.value_info):
        value.name = new(value.name)
    for sparse in graph.sparse_initializer:
        sparse.values.name = new(sparse.values.name)
    for node in graph.node:
        node.name = new(node.name)
        node.input[:] = [new(name) for name in node.input]
        node.output[:] = [new(name) for name in node.output]
        for inner in inner_graphs(node):
            rename(inner, new)


def shorten_names(graph: GraphProto, kept: Sequence[str]) -> None:
    """Short names: `conv/0` for a node and for what it puts out, `constant/0` for a constant; `kept` stay.

    With a slash inside, which no name of an input has, and none of those that the packed graph adds.
    """
    names = {name: name for name in ("", *kept)}
    for index, initializer in enumerate(graph.initializer):
        names[initializer.name] = f"constant/{index}"
    for index, node in enumerate(all_nodes(graph)):
        for place, output in enumerate(node.output):
            short = f"{node.op_type.lower()}/{index}"
            names.setdefault(output, short if place == 0 else f"{short}/{place}")
        node.name, node.doc_string = "", ""
    rename(graph, lambda old: names.setdefault(old, f"value/{len(names)}"))
    for index, node in enumerate(all_nodes(graph)):
        node.name = f"{node.op_type.lower()}/{index}"
    graph.name, graph.doc_string = "member", ""


def fix_reshapes(graph: GraphProto) -> None:
    """Give constant shapes to the Reshapes that compute theirs only because the batch dimension is free.

    Keras writes seven nodes where one does; the six are unused then.
    """
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid(*opset) for opset in OPSETS.items()])
    inferred = shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {value.name: shape_of(value) for value in (*inferred.value_info, *inferred.output)}
    for index, node in enumerate(graph.node):
        shape = shapes.get(node.output[0], [])
        if node.op_type == "Reshape" and shape[:1] == [None] and None not in shape[1:]:
            name = f"/reshape/{index}"
            graph.initializer.append(numpy_helper.from_array(np.array([-1, *shape[1:]], dtype=np.int64), name))
            node.input[1] = name


def drop_idle(graph: GraphProto, kept: str) -> None:
    """Take out what changes nothing: Identity, and adding a scalar 0 as Keras's Rescaling does."""
    zeros = {value.name for value in graph.initializer if not value.dims and _is_zero(value)}
    for node in list(graph.node):
        adds_zero = node.op_type == "Add" and node.input[1] in zeros
        if (node.op_type == "Identity" or adds_zero) and node.output[0] != kept:
            graph.node.remove(node)
            _replace(graph, node.output[0], node.input[0])


def drop_unused(graph: GraphProto, kept: str) -> None:
    """Drop nodes and constants that the value `kept` does not depend on."""
    needed = {kept}
    for node in reversed(list(graph.node)):  # nodes are in topological order
        if needed.isdisjoint(node.output):
            graph.node.remove(node)
        else:
            needed.update(node.input, *(inner.input for outer in inner_graphs(node) for inner in all_nodes(outer)))
            needed.update(value.name for inner in inner_graphs(node) for value in inner.output)
    used = [initializer for initializer in graph.initializer if initializer.name in needed]
    del graph.initializer[:]
    graph.initializer.extend(used)


def real_inputs(graph: GraphProto) -> list[ValueInfoProto]:
    """Those that are fed: old graphs list their constants among the inputs too."""
    constants = {initializer.name for initializer in graph.initializer}
    return [value for value in graph.input if value.name not in constants]


def shape_of(value: ValueInfoProto) -> list[int | None]:
    """None where a dimension is free."""
    dims = value.type.tensor_type.shape.dim
    return [dim.dim_value if dim.HasField("dim_value") else None for dim in dims]


def shown(shape: Sequence[int | None]) -> str:
    return ", ".join("?" if size is None else str(size) for size in shape)


def _replace(graph: GraphProto, old: str, new: str) -> None:
    for node in all_nodes(graph):
        node.input[:] = [new if name == old else name for name in node.input]
        for inner in inner_graphs(node):
            for value in inner.output:
                value.name = new if value.name == old else value.name


def _is_zero(value: TensorProto) -> bool:
    return value.data_type == TensorProto.FLOAT and not numpy_helper.to_array(value).any()
