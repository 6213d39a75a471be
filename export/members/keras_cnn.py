"""Convolutional networks of Keras on TensorFlow."""

from typing import Any

from rich.progress import Progress

from export.adapt import member_of
from export.datasets import Dataset
from export.formats.keras_models import import_keras, keras_source
from export.recipe import Conv, Dense, Dropout, Flatten, KerasCnn, Layer, MaxPool
from export.trained import TrainedMember
from server.manifest import InputSpec


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
    return member_of(keras_source(model), recipe.name, dataset)


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
