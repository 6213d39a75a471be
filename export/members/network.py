"""Builds Keras networks from a recipe's layers, and trains them: one way for members, searches and comparisons."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.datasets import Split
from export.formats.keras_models import import_keras
from export.members.feed import make_feed
from export.recipe import (
    Activation,
    AvgPool,
    Conv,
    Dense,
    Dropout,
    Flatten,
    GlobalPool,
    Layer,
    MaxPool,
    Training,
)
from server.fusion import FLOOR
from server.manifest import InputSpec

OnEpoch = Callable[[int, Mapping[str, float]], object]
"""Called after each epoch with its number from 0 and its figures; whatever it raises ends the training."""
PREDICT_BATCH = 512
WIDTH_STEP = 16
"""Widths are multiples of it: ONNX Runtime lays channels out in blocks of 16, and widths between bring no speed."""
MOMENTUM = 0.9
"""Of batch normalisation's running mean and variance: Keras's own 0.99 takes more steps than a short search has."""


def build(
    layers: Sequence[Layer], spec: InputSpec, n_classes: int, *, name: str, l1: float = 0.0, l2: float = 0.0
) -> Any:
    """The untrained Keras model: raw values `(n, *spec.shape)` in, probabilities `(n, n_classes)` out.

    Its weights come of Keras's seed. `l1` and `l2` are penalties on the kernels of all layers but the last.
    """
    keras = import_keras()
    penalty = keras.regularizers.L1L2(l1=l1, l2=l2) if l1 or l2 else None
    return keras.Sequential(
        [
            keras.Input(spec.shape, dtype="float32", name=spec.name),
            # Here and not in front of the model: the same raw values then go to every member, and to every graph.
            keras.layers.Rescaling(1.0 / (spec.high or 1.0)),
            *(made for layer in layers for made in _layer(keras, layer, penalty)),
            keras.layers.Dense(n_classes, activation="softmax"),
        ],
        name=name,
    )


def learn(
    model: Any,
    training: Training,
    train: Split,
    validation: Split,
    *,
    learning_rate: float,
    batch_size: int,
    seed: int,
    targets: Sequence[tuple[NDArray[np.float32], NDArray[np.float32]]] = (),
    on_epoch: OnEpoch = lambda epoch, figures: None,
    watch_train: Split | None = None,
) -> dict[str, list[float]]:
    """Train the model in place; returns its curves, a figure an epoch.

    The curves are `loss` (as it is minimised, penalties and smoothing and all), `validation_log_loss`,
    `validation_accuracy` and, of the rows `watch_train` as they are, `train_log_loss` and `train_accuracy`. `targets`
    are pairs of pictures `(n, *shape)` and distributions `(n, n_classes)` to learn instead of the labels of `train`,
    one pair an epoch in turn. Deterministic: the same seed gives the same weights on the same machine.
    """
    keras = import_keras()
    keras.utils.set_random_seed(seed)
    feed = make_feed(training, train, model.output_shape[-1], batch_size=batch_size, seed=seed, targets=targets)
    _compile(model, training, learning_rate, steps=training.epochs * feed.n_batches, soft=feed.soft)
    curves = _Curves(keras, validation, watch_train, training.early_stopping, on_epoch)
    model.fit(
        *feed.arguments,
        epochs=training.epochs,
        verbose=0,
        callbacks=[curves.callback],
    )
    curves.restore(model)
    return curves.values


def log_loss(probabilities: NDArray[np.float32], y: NDArray[np.int64]) -> float:
    """Mean −log of the true class's probability, in nats, floored as the fusion floors it."""
    hits = probabilities[np.arange(len(y)), y].astype(np.float64)
    return float(-np.log(np.maximum(hits, float(FLOOR))).mean())


def _compile(model: Any, training: Training, learning_rate: float, *, steps: int, soft: bool) -> None:
    keras = import_keras()
    rate = (
        keras.optimizers.schedules.CosineDecay(learning_rate, steps) if training.schedule == "cosine" else learning_rate
    )
    if training.weight_decay:
        optimizer = keras.optimizers.AdamW(rate, weight_decay=training.weight_decay)
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    else:
        optimizer = keras.optimizers.Adam(rate)
    loss = (
        keras.losses.CategoricalCrossentropy(label_smoothing=training.label_smoothing)
        if soft
        else keras.losses.SparseCategoricalCrossentropy()
    )
    model.compile(optimizer=optimizer, loss=loss)


class _Curves:
    """Follows a training: its figures after each epoch, and the best weights where it may stop early."""

    def __init__(
        self, keras: Any, validation: Split, watch_train: Split | None, patience: int | None, on_epoch: OnEpoch
    ) -> None:
        self.values: dict[str, list[float]] = {}
        self._splits = {"validation": validation} | ({} if watch_train is None else {"train": watch_train})
        self._patience = patience
        self._on_epoch = on_epoch
        self._best: list[Any] = []
        self.callback = keras.callbacks.LambdaCallback(on_epoch_end=self._after)

    def restore(self, model: Any) -> None:
        if self._best:
            model.set_weights(self._best)

    def _after(self, epoch: int, logs: Mapping[str, float]) -> None:
        model = self.callback.model
        figures = {"loss": float(logs["loss"])}
        for name, split in self._splits.items():
            answer = model.predict(split.x, batch_size=PREDICT_BATCH, verbose=0)
            figures[f"{name}_log_loss"] = log_loss(answer, split.y)
            figures[f"{name}_accuracy"] = float((answer.argmax(axis=1) == split.y).mean())
        for name, value in figures.items():
            self.values.setdefault(name, []).append(value)
        if self._patience is not None:
            losses = self.values["validation_log_loss"]
            best = int(np.argmin(np.nan_to_num(losses, nan=np.inf)))
            if best == epoch:
                self._best = model.get_weights()
            model.stop_training = epoch - best >= self._patience
        self._on_epoch(epoch, figures)


# ---- Layers ---------------------------------------------------------------------------------------------------------


def _layer(keras: Any, layer: Layer, penalty: Any) -> list[Any]:
    match layer:
        case Conv():
            return _normalised(keras, layer.activation, layer.batch_norm, _convolution(keras, layer, penalty))
        case Dense():
            made = keras.layers.Dense(layer.units, use_bias=not layer.batch_norm, kernel_regularizer=penalty)
            return _normalised(keras, layer.activation, layer.batch_norm, made)
        case MaxPool():
            return [keras.layers.MaxPooling2D(layer.size)]
        case AvgPool():
            return [keras.layers.AveragePooling2D(layer.size)]
        case GlobalPool():
            return [keras.layers.GlobalAveragePooling2D()]
        case Flatten():
            return [keras.layers.Flatten()]
        case Dropout():
            return [keras.layers.Dropout(layer.rate)]


def _convolution(keras: Any, layer: Conv, penalty: Any) -> Any:
    same = {"strides": layer.stride, "padding": layer.padding, "use_bias": not layer.batch_norm}
    if layer.separable:
        return keras.layers.SeparableConv2D(
            layer.filters, layer.size, depthwise_regularizer=penalty, pointwise_regularizer=penalty, **same
        )
    return keras.layers.Conv2D(layer.filters, layer.size, kernel_regularizer=penalty, **same)


def _normalised(keras: Any, activation: Activation, batch_norm: bool, made: Any) -> list[Any]:
    """The layer and its activation, with normalisation between them if it is wanted."""
    if not batch_norm:
        made.activation = keras.activations.get(activation)
        return [made]
    return [made, keras.layers.BatchNormalization(momentum=MOMENTUM), keras.layers.Activation(activation)]
