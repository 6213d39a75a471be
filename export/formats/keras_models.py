"""Keras models (`.keras`, `.h5`) and TensorFlow's SavedModels."""

import logging
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, numpy_helper

from export.errors import ConversionFailed, InvalidModel
from export.formats.source import Source, WantsArray
from export.graph import OPSET
from export.reading import ELEMENTS, Port
from server.errors import first_line

PREDICT_BATCH = 1024
OUTPUT = "probabilities"


@dataclass(frozen=True, slots=True)
class SavedModel:
    """A SavedModel's signature: one tensor in, one out."""

    signature: Any
    input_name: str
    output_name: str


def import_keras() -> Any:
    """Keras on TensorFlow, without the log lines that TensorFlow greets with; seconds to import, hence not above."""
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    import keras

    return keras


def is_keras_file(path: Path) -> bool:
    """`.keras` is a zip archive, `.h5` HDF5, a SavedModel a folder with `saved_model.pb`."""
    if path.is_dir():
        return (path / "saved_model.pb").is_file()
    with path.open("rb") as file:
        start = file.read(8)
    zipped = path.suffix == ".keras" and start.startswith(b"PK")
    return zipped or (path.suffix in (".h5", ".hdf5", ".keras") and start == b"\x89HDF\r\n\x1a\n")


def load_keras(path: Path) -> Any:
    """A Keras model, without its optimizer, or a SavedModel. Python code within is not run. Raises InvalidModel."""
    keras = import_keras()
    if path.is_dir():
        return _load_saved_model(path)
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as exc:  # Keras raises a dozen kinds
        raise InvalidModel(f"{path}: Keras cannot load it: {first_line(exc)}") from exc


def keras_bytes(model: Any) -> bytes:
    """What a `.keras` file of this model would hold."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        model.save(path)
        return path.read_bytes()


def is_keras_model(model: Any) -> bool:
    return isinstance(model, SavedModel) or any(
        kind.__module__.partition(".")[0] == "keras" for kind in type(model).__mro__
    )


def keras_source(model: Any) -> Source:
    """Raises InvalidModel unless the model takes one tensor and answers one of two dimensions."""
    return _saved_model_source(model) if isinstance(model, SavedModel) else _keras_source(model)


def _keras_source(model: Any) -> Source:
    keras = import_keras()
    inputs, outputs = list(getattr(model, "inputs", None) or ()), list(getattr(model, "outputs", None) or ())
    if len(inputs) != 1 or len(outputs) != 1 or len(outputs[0].shape) != 2 or outputs[0].shape[1] is None:
        raise InvalidModel(
            "expected a built Keras model with one input, and one output (n, classes); got inputs "
            f"{[tuple(value.shape) for value in inputs]} and outputs {[tuple(value.shape) for value in outputs]}"
        )
    return Source(
        framework=f"keras {keras.__version__}",
        wants=WantsArray(tuple(inputs[0].shape[1:]), element=_element(inputs[0].dtype)),
        n_outputs=int(outputs[0].shape[1]),
        predict=lambda arrays: model.predict(arrays[0], batch_size=PREDICT_BATCH, verbose=0),
        to_onnx=partial(_to_onnx, lambda x: model(x, training=False)),
        logits=_logits(model),
        smooth=True,
    )


def _saved_model_source(model: SavedModel) -> Source:
    import tensorflow as tf

    spec = model.signature.structured_input_signature[1][model.input_name]
    output = model.signature.structured_outputs[model.output_name]
    if output.shape.rank != 2 or output.shape[1] is None:
        raise InvalidModel(f"expected a SavedModel that answers (n, classes), got {output.shape}")

    def call(x: Any) -> Any:
        return model.signature(**{model.input_name: x})[model.output_name]

    def predict(arrays: list[NDArray[Any]]) -> NDArray[Any]:
        batches = [arrays[0][start : start + PREDICT_BATCH] for start in range(0, len(arrays[0]), PREDICT_BATCH)]
        return np.concatenate([call(tf.constant(batch)).numpy() for batch in batches])

    return Source(
        framework=f"tensorflow {tf.__version__}",
        wants=WantsArray(tuple(spec.shape[1:]), element=_element(spec.dtype.name)),
        n_outputs=int(output.shape[1]),
        predict=predict,
        to_onnx=partial(_to_onnx, call),
        smooth=True,
    )


def _load_saved_model(path: Path) -> SavedModel:
    import tensorflow as tf

    try:
        loaded = tf.saved_model.load(str(path))
    except Exception as exc:  # as above
        raise InvalidModel(f"{path}: TensorFlow cannot load it: {first_line(exc)}") from exc
    signatures: Mapping[str, Any] = loaded.signatures
    if "serving_default" not in signatures:
        raise InvalidModel(f"{path}: expected a signature 'serving_default', got {sorted(signatures)}")
    signature = signatures["serving_default"]
    inputs, outputs = list(signature.structured_input_signature[1]), list(signature.structured_outputs)
    if len(inputs) != 1 or len(outputs) != 1:
        raise InvalidModel(f"{path}: expected one tensor in and one out, got {inputs} and {outputs}")
    # What it was loaded from holds the variables, and a signature alone does not keep them alive.
    object.__setattr__(signature, "_loaded_from", loaded)
    return SavedModel(signature, inputs[0], outputs[0])


def _to_onnx(call: Any, ports: Sequence[Port]) -> ModelProto:
    import tensorflow as tf
    import tf2onnx

    (port,) = ports
    kind = tf.dtypes.as_dtype(ELEMENTS[port.element])
    signature = [tf.TensorSpec((None, *port.shape), kind, name=port.name)]
    function = tf.function(lambda x: {OUTPUT: call(x)}, input_signature=signature)
    tf2onnx_logger = logging.getLogger("tf2onnx")
    level = tf2onnx_logger.level
    tf2onnx_logger.setLevel(logging.CRITICAL)  # it logs what it cannot convert and goes on; we look for ourselves
    try:
        # Not `from_keras`, which raises KeyError on a Sequential of Keras 3.
        converted: tuple[ModelProto, Any] = tf2onnx.convert.from_function(
            function,
            input_signature=signature,
            opset=OPSET,
            custom_op_handlers={"Erfc": (_erfc, []), "Expm1": (_expm1, [])},
        )
    except Exception as exc:  # it raises whatever goes wrong inside
        raise ConversionFailed(f"tf2onnx cannot convert it: {first_line(exc)}") from exc
    finally:
        tf2onnx_logger.setLevel(level)
    return _hold_captured(converted[0], function.get_concrete_function())


def _hold_captured(model: ModelProto, function: Any) -> ModelProto:
    """Make constants of tensors that a function has caught, as Normalization's mean: tf2onnx makes them inputs."""
    caught = {inside.name: tensor for tensor, inside in function.graph.captures if inside.dtype.is_numeric}
    for value in list(model.graph.input):
        if value.name in caught:
            model.graph.input.remove(value)
            model.graph.initializer.append(numpy_helper.from_array(caught[value.name].numpy(), value.name))
    return model


def _erfc(context: Any, node: Any, name: str, args: Any) -> None:
    """1 - erf(x), which GELU is made of: tf2onnx does not know it."""
    one = context.make_const(f"{name}_one", np.array(1, dtype=np.float32)).output[0]
    erf = context.insert_new_node_on_input(node, "Erf", node.input[0])
    node.type = "Sub"
    context.replace_inputs(node, [one, erf.output[0]])


def _expm1(context: Any, node: Any, name: str, args: Any) -> None:
    """exp(x) - 1, which CELU is made of."""
    one = context.make_const(f"{name}_one", np.array(1, dtype=np.float32)).output[0]
    exp = context.insert_new_node_on_input(node, "Exp", node.input[0])
    node.type = "Sub"
    context.replace_inputs(node, [exp.output[0], one])


def _logits(model: Any) -> Any:
    """What the last softmax sees, `(n, k)`; what a last layer without activation answers; None where it is neither."""
    keras = import_keras()
    last = model.layers[-1]
    activation = getattr(getattr(last, "activation", None), "__name__", None)
    if isinstance(last, keras.layers.Softmax) or (
        isinstance(last, keras.layers.Activation) and activation == "softmax"
    ):
        return partial(_of_features, keras.Model(model.inputs, last.input), None)
    if isinstance(last, keras.layers.Dense) and activation in ("softmax", "linear"):
        return partial(_of_features, keras.Model(model.inputs, last.input), last)
    return None


def _of_features(features: Any, last: Any, arrays: list[NDArray[Any]]) -> NDArray[np.float64]:
    """`features` answers the last layer's input; what that layer makes of it is added up in float64."""
    values: NDArray[np.float64] = features.predict(arrays[0], batch_size=PREDICT_BATCH, verbose=0).astype(np.float64)
    if last is None:
        return values
    kernel, *bias = (weight.astype(np.float64) for weight in last.get_weights())
    return np.asarray(values @ kernel + (bias[0] if bias else 0))


def _element(dtype: str) -> int:
    found = [element for element, kind in ELEMENTS.items() if kind is not object and np.dtype(kind).name == dtype]
    if not found:
        raise InvalidModel(f"expected a model that takes numbers, got one that takes {dtype}")
    return found[0]
