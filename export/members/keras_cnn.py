"""Convolutional networks of Keras on TensorFlow."""

import logging
import os
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from export.convert import from_keras
from export.datasets import Dataset
from export.members.trained import Rows, TrainedMember
from export.recipe import Conv, Dense, Dropout, Flatten, KerasCnn, Layer, MaxPool
from server.manifest import InputSpec

PREDICT_BATCH = 1024


def import_keras() -> Any:
    """Keras on TensorFlow, without the log lines that TensorFlow greets with; seconds to import, hence not above."""
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    import keras

    return keras


def train_keras_cnn(recipe: KerasCnn, dataset: Dataset, *, seed: int, progress: Progress) -> TrainedMember:
    """Train a network for all its epochs. Deterministic: the same seed gives the same weights on the same machine."""
    keras = import_keras()
    keras.utils.set_random_seed(seed)
    keras.config.disable_interactive_logging()
    task = progress.add_task(recipe.name, total=recipe.epochs)
    model = build(recipe, dataset.input, len(dataset.classes))
    model.compile(optimizer=keras.optimizers.Adam(recipe.learning_rate), loss="sparse_categorical_crossentropy")
    model.fit(
        dataset.train.x,
        dataset.train.y,
        batch_size=recipe.batch_size,
        epochs=recipe.epochs,
        verbose=0,
        callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: progress.advance(task))],
    )
    return member_of(model, recipe.name, dataset)


def member_of(model: Any, name: str, dataset: Dataset) -> TrainedMember:
    """A trained Keras model, whose last layer is a dense softmax over the classes, as a member."""
    keras = import_keras()
    last = model.layers[-1]
    return TrainedMember(
        name=name,
        framework=f"keras {keras.__version__}",
        predict_proba=partial(model.predict, batch_size=PREDICT_BATCH, verbose=0),
        to_onnx=partial(from_keras, model, dataset.input, len(dataset.classes)),
        logits=partial(_logits, keras.Model(model.inputs, last.input), last),
    )


def build(recipe: KerasCnn, spec: InputSpec, n_classes: int) -> Any:
    """The untrained Keras model: raw values `(n, *spec.shape)` in, probabilities `(n, n_classes)` out."""
    keras = import_keras()
    return keras.Sequential(
        [
            keras.Input(spec.shape, dtype="float32", name=spec.name),
            # Here and not in front of the model: the same raw values then go to every member, and to every graph.
            keras.layers.Rescaling(1.0 / (spec.high or 1.0)),
            *(_layer(keras, layer) for layer in recipe.layers),
            keras.layers.Dense(n_classes, activation="softmax"),
        ],
        name=recipe.name,
    )


def _layer(keras: Any, layer: Layer) -> Any:
    match layer:
        case Conv():
            return keras.layers.Conv2D(layer.filters, layer.size, padding=layer.padding, activation=layer.activation)
        case MaxPool():
            return keras.layers.MaxPooling2D(layer.size)
        case Flatten():
            return keras.layers.Flatten()
        case Dense():
            return keras.layers.Dense(layer.units, activation=layer.activation)
        case Dropout():
            return keras.layers.Dropout(layer.rate)


def _logits(features: Any, last: Any, x: Rows) -> NDArray[np.float64]:
    """What the last layer's softmax sees, `(n, n_classes)`; `features` answers that layer's input."""
    kernel, bias = last.get_weights()
    values = features.predict(x, batch_size=PREDICT_BATCH, verbose=0)
    return np.asarray(values.astype(np.float64) @ kernel.astype(np.float64) + bias)
