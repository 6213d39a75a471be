"""Members in fewer bits: a smaller file, and where the machine multiplies bytes faster than floats, a faster one.

They are made of another member's graph, not of its training, so what that graph answers is what they are held to.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper, shape_inference

from export.convert import OUTPUT, at_opset
from export.costs import measure_costs
from export.datasets import Split
from export.errors import ConversionFailed, InvalidRecipe, NothingFits
from export.graph import IR_VERSION, OPSETS, drop_unused, shorten_names
from export.library import Entry
from export.members.task import Task
from export.parity import accuracy_lost
from export.predictor import Predictor
from export.recipe import Quantised
from export.trained import Lossy, TrainedMember
from server.errors import first_line
from server.rows import Rows

PRODUCTS = ("Conv", "MatMul", "Gemm")
"""What has weights to multiply by."""
PASSED_THROUGH = ("Relu", "MaxPool", "AveragePool", "Transpose", "Reshape", "Flatten")
"""What whole numbers go through between two products without turning into floats and back."""
N_RANGE_ROWS = 512
"""Training rows, stratified, that show between which bounds the values of each layer lie."""
LEAST_VALUES = 256
"""Of a constant that becomes float16: what a smaller one saves, the node that turns it back takes."""
NOISE = 0.03
"""A cost is lower only if it is so by more than this share: two measurements of one graph differ by as much."""


@dataclass(frozen=True, slots=True)
class _Measured:
    """A graph's microseconds a row, size, and answers on the validation rows, `(n, n_classes)`."""

    cost_us: float
    bytes: int
    answers: NDArray[np.float32]


def train_quantised(recipe: Quantised, task: Task) -> TrainedMember:
    """Make a member of another's graph; its source, for parity, is that graph.

    Raises InvalidRecipe if the graph has no weights for it, as that of trees, and NothingFits, which gives the figures,
    if the result is neither smaller nor faster, or answers something else than it may.
    """
    entry = task.sources[recipe.of]
    answers = Predictor(entry.candidate.model, recipe.of)
    shown = task.progress.add_task(recipe.name, total=1)
    try:
        if recipe.to == "float16":
            model = float16(entry.candidate.model)
        else:
            model = int8(entry.candidate.model, answers.feeds(_range_rows(task.dataset.train, task.seed)))
    except ConversionFailed as exc:
        raise ConversionFailed(f"member {recipe.name!r}: {exc.message}") from exc
    if model is None:
        raise InvalidRecipe(
            f"member {recipe.name!r}: expected {recipe.of!r} to have weights to be stored as {recipe.to}, as networks "
            f"have; it is of {entry.candidate.framework}"
        )
    record = _record(recipe, entry, model, task)
    task.progress.advance(shown)
    import onnxruntime

    return TrainedMember(
        name=recipe.name,
        framework=f"onnxruntime {onnxruntime.__version__} {recipe.to} of {entry.candidate.framework}",
        predict_proba=answers,
        to_onnx=lambda: model,
        smooth=True,
        lossy=Lossy(recipe.tolerance, recipe.drift),
        record=record,
    )


def _record(recipe: Quantised, entry: Entry, model: ModelProto, task: Task) -> dict[str, Any]:
    """What it costs and answers beside its source. Raises NothingFits."""
    validation = task.dataset.validation
    costs = measure_costs({"source": entry.candidate.model, "quantised": model}, validation.x)
    want, got = entry.answers["validation"], Predictor(model, recipe.name)(validation.x)
    record = {
        "of": recipe.of,
        "to": recipe.to,
        "cost_us": costs["quantised"],
        "source_cost_us": costs["source"],
        "bytes": model.ByteSize(),
        "source_bytes": entry.bytes,
        "accuracy": float((got.argmax(axis=1) == validation.y).mean()),
        "source_accuracy": float((want.argmax(axis=1) == validation.y).mean()),
        "largest_drift": float(np.abs(got - want).max()),
    }
    reasons = []
    if costs["quantised"] >= costs["source"] * (1 - NOISE) and model.ByteSize() >= entry.bytes:
        reasons.append("neither smaller nor faster")
    if accuracy_lost(want, got, validation.y) > recipe.tolerance:
        reasons.append(f"its accuracy falls by more than {recipe.tolerance:g}")
    if not record["largest_drift"] <= recipe.drift:
        reasons.append(f"a probability moves by more than {recipe.drift:g}")
    if reasons:
        raise NothingFits(
            f"member {recipe.name!r}: {' and '.join(reasons)}: {recipe.of!r} and its {recipe.to} take "
            f"{costs['source']:.1f} and {costs['quantised']:.1f} µs a row, {entry.bytes} and {model.ByteSize()} bytes, "
            f"accuracy {record['source_accuracy']:.4f} and {record['accuracy']:.4f}, "
            f"probabilities up to {record['largest_drift']:.4f} apart"
        )
    return record


# ---- float16 --------------------------------------------------------------------------------------------------------


def float16(model: ModelProto) -> ModelProto | None:
    """The graph with its large constants stored as float16; None if it has none.

    They are turned back when it is loaded: ONNX Runtime has no float16 convolutions for CPUs, so the graph is half as
    large and just as fast.
    """
    result = ModelProto()
    result.CopyFrom(model)
    casts = []
    for constant in result.graph.initializer:
        if constant.data_type == TensorProto.FLOAT and np.prod(constant.dims) >= LEAST_VALUES:
            values, name = numpy_helper.to_array(constant), constant.name
            if np.abs(values).max() <= np.finfo(np.float16).max:
                constant.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}/float16"))
                casts.append(helper.make_node("Cast", [constant.name], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *result.graph.node]
    del result.graph.node[:]
    result.graph.node.extend(nodes)
    return _keeping_the_contract(result, model) if casts else None


# ---- int8 -----------------------------------------------------------------------------------------------------------


def int8(model: ModelProto, feeds: Iterator[dict[str, NDArray[Any]]]) -> ModelProto | None:
    """The graph with products of whole numbers, but for the last, whose answers go to the softmax as they are.

    Weights have a scale a channel, and 7 bits: with 8, processors without VNNI instructions overflow, and answer
    something else than others. Values between products have 8 bits and a scale a layer, of the least and the greatest
    that the rows in `feeds` lead to. None if there is no product but the last. Raises ConversionFailed.
    """
    # Not imported at the top, as in `server.session`.
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Rows(quantization.CalibrationDataReader):  # type: ignore[misc]  # ONNX Runtime is not typed
        def get_next(self) -> dict[str, NDArray[Any]] | None:
            return next(feeds, None)

    with tempfile.TemporaryDirectory() as folder:
        given, ready, made = (Path(folder) / f"{name}.onnx" for name in ("given", "ready", "made"))
        onnx.save(model, given)
        try:
            quant_pre_process(given, ready, skip_symbolic_shape=True)
            *products, last = _products(onnx.load(ready)) or [""]
            if not products:
                return None
            quantization.quantize_static(
                ready,
                made,
                Rows(),
                quant_format=quantization.QuantFormat.QDQ,
                op_types_to_quantize=[*PRODUCTS, *PASSED_THROUGH],
                nodes_to_exclude=[last],
                per_channel=True,
                reduce_range=True,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
            )
        except Exception as exc:  # it raises whatever goes wrong inside
            raise ConversionFailed(f"ONNX Runtime cannot quantise it: {first_line(exc)}") from exc
        return _keeping_the_contract(onnx.load(made), model)


def _products(model: ModelProto) -> list[str]:
    """The nodes, by name, that multiply by constant weights."""
    constants = {constant.name for constant in model.graph.initializer}
    return [node.name for node in model.graph.node if node.op_type in PRODUCTS and node.input[1] in constants]


def _range_rows(train: Split, seed: int) -> Rows:
    if len(train) < 2 * N_RANGE_ROWS:
        return train.x
    return train.some(N_RANGE_ROWS, seed=seed).x


# ---- The contract of members ----------------------------------------------------------------------------------------


def _keeping_the_contract(changed: ModelProto, member: ModelProto) -> ModelProto:
    """The changed graph with the member's inputs, output and versions, and short names. Raises ConversionFailed."""
    graph = onnx.GraphProto()
    graph.CopyFrom(at_opset(changed).graph)
    del graph.input[:], graph.output[:], graph.value_info[:]
    graph.input.extend(member.graph.input)
    graph.output.extend(member.graph.output)
    drop_unused(graph, OUTPUT)
    shorten_names(graph, [OUTPUT, *(value.name for value in graph.input)])
    opsets = [helper.make_opsetid(*opset) for opset in OPSETS.items()]
    result = helper.make_model(graph, ir_version=IR_VERSION, opset_imports=opsets, producer_name="committee")
    try:
        onnx.checker.check_model(result, full_check=True)
    except (onnx.checker.ValidationError, shape_inference.InferenceError) as exc:
        raise ConversionFailed(f"expected a valid ONNX graph, got: {first_line(exc)}") from exc
    return result
