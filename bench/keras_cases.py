"""Keras: layers, activations and last layers that a classifier may have, each in a network of three layers or so."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from bench.case import Case, Data, Training
from export.adapt import Adaptation
from export.formats.keras_models import import_keras

LAYERS = "Keras layers"
ACTIVATIONS = "Keras activations"
OUTPUTS = "Keras outputs"

Body = Callable[[Any, Any], Any]
"""`(layers, x) -> x`: from the input tensor to what the last layer takes."""

ACTIVATION_NAMES = (
    "linear", "relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "softplus", "softsign",
    "softmax", "log_softmax", "sigmoid", "log_sigmoid", "hard_sigmoid", "hard_silu", "tanh", "hard_tanh",
    "tanh_shrink", "hard_shrink", "soft_shrink", "squareplus", "sparse_plus", "exponential",
)  # fmt: skip

LAYER_BODIES: Mapping[str, Body] = {
    "Dense": lambda k, x: k.Dense(8, "relu")(k.Flatten()(x)),
    "Conv2D": lambda k, x: k.Conv2D(4, 3, activation="relu")(x),
    "Conv2D, padding=same, strides=2": lambda k, x: k.Conv2D(4, 3, padding="same", strides=2)(x),
    "Conv2D, dilation_rate=2": lambda k, x: k.Conv2D(4, 3, dilation_rate=2)(x),
    "Conv2D, groups=2": lambda k, x: k.Conv2D(4, 3, groups=2)(k.Conv2D(4, 1)(x)),
    "SeparableConv2D": lambda k, x: k.SeparableConv2D(4, 3)(k.Conv2D(2, 1)(x)),
    "DepthwiseConv2D": lambda k, x: k.DepthwiseConv2D(3, depth_multiplier=2)(k.Conv2D(2, 1)(x)),
    "Conv2DTranspose": lambda k, x: k.Conv2DTranspose(4, 3)(x),
    "Conv1D": lambda k, x: k.Conv1D(4, 3)(k.Reshape((8, 8))(x)),
    "MaxPooling2D": lambda k, x: k.MaxPooling2D()(x),
    "MaxPooling2D, padding=same": lambda k, x: k.MaxPooling2D(3, padding="same")(x),
    "AveragePooling2D": lambda k, x: k.AveragePooling2D(2)(x),
    "AveragePooling2D, padding=same": lambda k, x: k.AveragePooling2D(3, padding="same")(x),
    "GlobalMaxPooling2D": lambda k, x: k.GlobalMaxPooling2D()(k.Conv2D(8, 3)(x)),
    "GlobalAveragePooling2D": lambda k, x: k.GlobalAveragePooling2D()(k.Conv2D(8, 3)(x)),
    "ZeroPadding2D, Cropping2D": lambda k, x: k.Cropping2D(2)(k.ZeroPadding2D(1)(x)),
    "UpSampling2D": lambda k, x: k.UpSampling2D()(x),
    "Resizing": lambda k, x: k.Resizing(6, 6)(x),
    "CenterCrop": lambda k, x: k.CenterCrop(6, 6)(x),
    "BatchNormalization": lambda k, x: k.BatchNormalization()(k.Conv2D(4, 3)(x)),
    "LayerNormalization": lambda k, x: k.LayerNormalization()(k.Conv2D(4, 3)(x)),
    "GroupNormalization": lambda k, x: k.GroupNormalization(2)(k.Conv2D(4, 3)(x)),
    "UnitNormalization": lambda k, x: k.UnitNormalization()(k.Flatten()(x)),
    "Normalization": lambda k, x: k.Normalization(mean=5.0, variance=36.0)(x),
    "Rescaling": lambda k, x: k.Rescaling(1 / 16, offset=-0.5)(x),
    "Dropout, SpatialDropout2D": lambda k, x: k.SpatialDropout2D(0.2)(k.Dropout(0.2)(x)),
    "GaussianNoise": lambda k, x: k.GaussianNoise(0.1)(x),
    "RandomFlip, RandomRotation": lambda k, x: k.RandomRotation(0.1)(k.RandomFlip()(x)),
    "ActivityRegularization": lambda k, x: k.ActivityRegularization(l2=0.01)(x),
    "Reshape, Permute": lambda k, x: k.Permute((2, 1))(k.Reshape((16, 4))(x)),
    "RepeatVector": lambda k, x: k.RepeatVector(2)(k.Flatten()(x)),
    "Add (a residual block)": lambda k, x: k.Add()([x, k.Conv2D(1, 3, padding="same")(x)]),
    "Concatenate": lambda k, x: k.Concatenate()([x, k.Conv2D(2, 3, padding="same")(x)]),
    "Multiply, Average, Maximum": lambda k, x: k.Maximum()([k.Multiply()([x, x]), k.Average()([x, x])]),
    "SimpleRNN": lambda k, x: k.SimpleRNN(8)(k.Reshape((8, 8))(x)),
    "LSTM": lambda k, x: k.LSTM(8)(k.Reshape((8, 8))(x)),
    "LSTM, return_sequences": lambda k, x: k.LSTM(8, return_sequences=True)(k.Reshape((8, 8))(x)),
    "GRU": lambda k, x: k.GRU(8)(k.Reshape((8, 8))(x)),
    "Bidirectional LSTM": lambda k, x: k.Bidirectional(k.LSTM(4))(k.Reshape((8, 8))(x)),
    "TimeDistributed": lambda k, x: k.TimeDistributed(k.Dense(4))(k.Reshape((8, 8))(x)),
    "Embedding": lambda k, x: k.Embedding(17, 4)(k.Flatten()(x)),
    "MultiHeadAttention": lambda k, x: _attention(k, k.Reshape((8, 8))(x)),
    "PReLU": lambda k, x: k.PReLU()(k.Conv2D(4, 3)(x)),
    "LeakyReLU": lambda k, x: k.LeakyReLU()(k.Conv2D(4, 3)(x)),
}


def keras_cases() -> Iterator[Case]:
    for name, body in LAYER_BODIES.items():
        yield Case(LAYERS, name, "digits", partial(_save, body, _softmax))
    for name in ACTIVATION_NAMES:
        yield Case(ACTIVATIONS, name, "digits", partial(_save, partial(_activated, name), _softmax))
    outputs: Mapping[str, tuple[Data, Callable[..., Any]]] = {
        "Dense(n_classes), softmax": ("digits", _softmax),
        "Dense(n_classes), a layer Softmax": ("digits", lambda k, x, n: k.Softmax()(k.Dense(n)(x))),
        "Dense(n_classes), no activation": ("digits", _logits),
        "Dense(n_classes), sigmoid": ("digits", lambda k, x, n: k.Dense(n, "sigmoid")(x)),
        "Dense(1), sigmoid": ("two flowers", lambda k, x, n: k.Dense(1, "sigmoid")(x)),
    }
    for name, (data, output) in outputs.items():
        yield Case(OUTPUTS, name, data, partial(_save, _dense, output))
    said = Adaptation(logits=True)
    yield Case(OUTPUTS, "Dense(n_classes), no activation, --logits", "digits", partial(_save, _dense, _logits), said)


def _save(body: Body, output: Callable[..., Any], training: Training, folder: Path) -> Path:
    keras = import_keras()
    keras.utils.set_random_seed(0)
    keras.config.disable_interactive_logging()
    k = keras.layers
    entry = keras.Input(training.x.shape[1:])
    model = keras.Model(entry, output(k, k.Flatten()(body(k, entry)), training.n_classes))
    loss = "binary_crossentropy" if model.output_shape[-1] == 1 else "sparse_categorical_crossentropy"
    model.compile("adam", loss)
    model.fit(training.x[:256], training.y[:256], batch_size=64, verbose=0)
    file = folder / "model.keras"
    model.save(file)
    return file


def _dense(k: Any, x: Any) -> Any:
    return k.Dense(8, "relu")(x)


def _logits(k: Any, x: Any, n_classes: int) -> Any:
    return k.Dense(n_classes)(x)


def _softmax(k: Any, x: Any, n_classes: int) -> Any:
    return k.Dense(n_classes, "softmax")(x)


def _activated(name: str, k: Any, x: Any) -> Any:
    return k.Dense(8, activation=name)(k.Rescaling(1 / 16)(k.Flatten()(x)))


def _attention(k: Any, x: Any) -> Any:
    return k.MultiHeadAttention(2, 4)(x, x)
