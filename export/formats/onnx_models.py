"""Graphs that others wrote: `.onnx`, from PyTorch, scikit-learn or whatever speaks ONNX."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, numpy_helper

from export.errors import InvalidModel
from export.formats.source import Source, WantsArray, WantsColumns
from export.graph import all_nodes, real_inputs, shape_of, shown
from export.reading import ELEMENTS
from server.errors import InvalidRepository, first_line
from server.session import Session

FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE)
OUTPUT_NAMES = ("probabilities", "output_probability", "probability")


def is_onnx_file(path: Path) -> bool:
    return path.suffix == ".onnx"


def load_onnx(path: Path) -> ModelProto:
    """With the weights that it keeps in files beside it. Raises InvalidModel."""
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except Exception as exc:  # protobuf's, the checker's, and those of files beside it
        raise InvalidModel(f"{path}: expected an ONNX graph, got: {first_line(exc)}") from exc
    return model


def is_onnx_model(model: Any) -> bool:
    return isinstance(model, ModelProto)


def onnx_source(model: ModelProto) -> Source:
    """The graph as it is, run by ONNX Runtime, is the source; what it is brought to must answer the same.

    Raises InvalidModel unless it takes one array, or a value a column, and answers a column a class.
    """
    plain, classes = without_zipmap(model)
    inputs = real_inputs(plain.graph)
    wants = _wants(inputs)
    output = _output(plain)
    n_outputs = shape_of(output)[-1] or (len(classes) if classes else None)
    try:
        session = Session(plain.SerializeToString(), where="the graph")
    except InvalidRepository as exc:
        raise InvalidModel(exc.message) from exc
    batch = shape_of(inputs[0])[0]
    return Source(
        framework=" ".join(part for part in ("onnx", model.producer_name, model.producer_version) if part),
        wants=wants,
        n_outputs=n_outputs or _count_columns(session, output.name, wants, batch),
        predict=partial(_predict, session, [value.name for value in inputs], output.name, batch),
        to_onnx=lambda ports: with_free_batch(plain),
        output=output.name,
        classes=classes,
        smooth=not any(node.op_type.startswith("TreeEnsemble") for node in all_nodes(plain.graph)),
    )


def without_zipmap(model: ModelProto) -> tuple[ModelProto, tuple[str, ...] | None]:
    """The same model, putting out the tensor that a ZipMap makes dictionaries of; and the classes that it names."""
    plain = ModelProto()
    plain.CopyFrom(model)
    classes = None
    for node in list(plain.graph.node):
        if node.op_type == "ZipMap":
            classes = _classes(node)
            plain.graph.node.remove(node)
            kept = [value for value in plain.graph.output if value.name != node.output[0]]
            del plain.graph.output[:]
            plain.graph.output.extend(kept)
            shape = [None, len(classes)]
            plain.graph.output.append(onnx.helper.make_tensor_value_info(node.input[0], TensorProto.FLOAT, shape))
    return plain, classes or _classes_of_trees(plain)


def with_free_batch(model: ModelProto) -> ModelProto:
    """The same model for any number of rows. One that is made for so many rows has their number in its shapes.

    Whether it then answers what it did is for the gate to say.
    """
    freed = ModelProto()
    freed.CopyFrom(model)
    batches = {shape_of(value)[0] for value in real_inputs(freed.graph)} - {None}
    for value in (*freed.graph.input, *freed.graph.output):
        dims = value.type.tensor_type.shape.dim
        if dims:
            dims[0].dim_param = "n"
    if batches:
        del freed.graph.value_info[:]
        _free_reshapes(freed, batches)
    return freed


def _free_reshapes(model: ModelProto, batches: set[int | None]) -> None:
    """A 0 in the shape of a Reshape takes the size of what is reshaped."""
    shapes = {node.input[1] for node in model.graph.node if node.op_type == "Reshape"}
    tensors = [value for value in model.graph.initializer if value.name in shapes]
    tensors += [
        attribute.t
        for node in model.graph.node
        if node.op_type == "Constant" and node.output[0] in shapes
        for attribute in node.attribute
        if attribute.name == "value"
    ]
    for tensor in tensors:
        shape = numpy_helper.to_array(tensor).copy()
        if shape.size > 1 and int(shape[0]) in batches:
            shape[0] = 0
            tensor.CopyFrom(numpy_helper.from_array(shape, tensor.name))


def _wants(inputs: Sequence[ValueInfoProto]) -> WantsArray | WantsColumns:
    elements = [value.type.tensor_type.elem_type for value in inputs]
    listed = ", ".join(
        f"{value.name!r} of {TensorProto.DataType.Name(element)} [{shown(shape_of(value))}]"
        for value, element in zip(inputs, elements, strict=True)
    )
    if not inputs or any(element not in ELEMENTS for element in elements) or any(not shape_of(v) for v in inputs):
        raise InvalidModel(f"expected inputs of numbers or text with a batch dimension, got {listed or 'none'}")
    if len(inputs) == 1 and elements[0] != TensorProto.STRING:
        return WantsArray(tuple(shape_of(inputs[0])[1:]), name=inputs[0].name, element=elements[0])
    if any(shape_of(value)[1:] != [1] for value in inputs):
        raise InvalidModel(f"expected one array, or columns [n, 1]; got {listed}")
    return WantsColumns(tuple(value.name for value in inputs), tuple(elements))


def _output(model: ModelProto) -> ValueInfoProto:
    """The one of floats; of several, the one that is named as probabilities are."""
    found: list[ValueInfoProto] = [value for value in model.graph.output if value.type.tensor_type.elem_type in FLOATS]
    named = [value for value in found if value.name in OUTPUT_NAMES]
    if len(chosen := named or found) != 1:
        outputs = [value.name for value in model.graph.output]
        raise InvalidModel(
            f"expected one output of floats, a column a class, or one named {' or '.join(OUTPUT_NAMES)}; got {outputs}"
        )
    if (rank := len(shape_of(chosen[0]))) > 2:
        raise InvalidModel(f"expected an output (n, classes), got {rank} dimensions: [{shown(shape_of(chosen[0]))}]")
    (value,) = chosen
    return value


def _classes(node: NodeProto) -> tuple[str, ...]:
    attributes = {attribute.name: attribute for attribute in node.attribute}
    for name in ("classlabels_strings", "classlabels_int64s", "classlabels_ints"):
        if name in attributes:
            values = attributes[name].strings or attributes[name].ints
            return tuple(value.decode() if isinstance(value, bytes) else str(value) for value in values)
    return ()


def _classes_of_trees(model: ModelProto) -> tuple[str, ...] | None:
    """A classifier at the end of the graph names its classes; more than one are parts of something else."""
    found = [node for node in model.graph.node if node.op_type.endswith("Classifier")]
    return _classes(found[0]) or None if len(found) == 1 else None


def _count_columns(session: Session, output: str, wants: WantsArray | WantsColumns, batch: int | None) -> int:
    """Of an output whose shape does not say: what one call answers."""
    if isinstance(wants, WantsColumns) or None in wants.shape:
        raise InvalidModel(f"expected an output {output!r} that says how many columns it has")
    row = np.zeros((batch or 1, *(size or 1 for size in wants.shape)), dtype=ELEMENTS[wants.element])
    (answered,) = session.run([output], {wants.name: row})
    return int(answered.shape[-1]) if answered.ndim == 2 else 1


def _predict(
    session: Session, names: list[str], output: str, batch: int | None, arrays: list[NDArray[Any]]
) -> NDArray[Any]:
    """In calls of the batch that the graph is made for, the last one filled up with copies of its last row."""
    n = len(arrays[0])
    if batch is None:
        return session.run([output], dict(zip(names, arrays, strict=True)))[0]
    answers = []
    for start in range(0, n, batch):
        places = np.minimum(np.arange(start, start + batch), n - 1)
        feeds = {name: array[places] for name, array in zip(names, arrays, strict=True)}
        answers.append(session.run([output], feeds)[0])
    return np.concatenate(answers)[:n]
