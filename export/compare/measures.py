"""What comparisons train on, and what they read off a network before and after."""

import math
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.datasets import Split
from export.errors import InvalidRecipe
from export.formats.keras_models import import_keras
from server.errors import first_line
from server.rows import Rows

CONSTANT = 1e-3
"""Values that differ by no more are the same: activations level off at values of about 1, or at 0."""
WATCHED_BATCH = 250
NEAR_ZERO = 1e-3


def some_rows(split: Split, rows: int | None, *, seed: int) -> Split:
    """So many rows, which keep the classes' shares; all of them if it has no more, or hardly more.

    Raises InvalidRecipe where a class would have no row.
    """
    n_classes = len(np.unique(split.y))
    if rows is None or rows + n_classes > len(split):
        return split
    try:
        return split.some(rows, seed=seed)
    except ValueError as exc:
        raise InvalidRecipe(
            f"compare: rows: expected enough for {n_classes} classes, got {rows}: {first_line(exc)}"
        ) from exc


def scored(accuracy: float, log_loss: float, n_classes: int) -> dict[str, Any]:
    """What a network is put down as: one whose answers are no numbers any more knows nothing.

    It has then `diverged`, its log-loss is that of the uniform distribution and its accuracy that of chance.
    """
    if math.isfinite(log_loss):
        return {"accuracy": accuracy, "log_loss": log_loss, "diverged": False}
    return {"accuracy": 1 / n_classes, "log_loss": math.log(n_classes), "diverged": True}


def plotted(curve: Iterable[float], n_classes: int) -> list[float]:
    """A curve of losses, with the uniform distribution's log-loss wherever it is not finite."""
    return [value if math.isfinite(value) else math.log(n_classes) for value in curve]


def gradient_norm(model: Any, x: Rows, y: NDArray[np.int64]) -> tuple[float, float]:
    """The L2 norm of the cross-entropy's gradient by all hidden kernels, and the first one's by the last one's.

    The ratio tells gradients that vanish on their way to the first layer, or explode. What float32 cannot hold is
    put down as its largest number.
    """
    import tensorflow as tf

    keras = import_keras()
    hidden = kernels(model)[:-1]
    with tf.GradientTape() as tape:
        loss = keras.ops.mean(keras.losses.sparse_categorical_crossentropy(y, model(x, training=True)))
    gradients = tape.gradient(loss, [kernel.value for kernel in hidden])
    norms = [float(np.linalg.norm(gradient.numpy().astype(np.float64))) for gradient in gradients]
    return _capped(math.hypot(*norms)), _capped(norms[0] / (norms[-1] or math.nan))


def dead_units(model: Any, x: Rows) -> float:
    """The share of hidden units, dense ones and channels of convolutions, that answer the same whatever the row of `x`.

    A unit is dead if what its activation gives differs by no more than `CONSTANT` between rows, in any place of a
    picture: relu's that is always 0, sigmoid's or tanh's that is pressed against one end, and one that gives no number.
    """
    keras = import_keras()
    watched = keras.Model(model.inputs[0], [layer.output for layer in _activated(model)])
    lowest: list[NDArray[np.float32]] = []
    highest: list[NDArray[np.float32]] = []
    for start in range(0, len(x), WATCHED_BATCH):
        answers = [*map(np.asarray, keras.tree.flatten(watched(x[start : start + WATCHED_BATCH], training=False)))]
        lows, highs = [answer.min(axis=0) for answer in answers], [answer.max(axis=0) for answer in answers]
        lowest = [*map(np.minimum, lowest, lows)] or lows
        highest = [*map(np.maximum, highest, highs)] or highs
    with np.errstate(invalid="ignore"):  # infinity less infinity is no number, as it should be
        spreads = [high - low for low, high in zip(lowest, highest, strict=True)]
    alive = [spread.reshape(-1, spread.shape[-1]).max(axis=0) > CONSTANT for spread in spreads]
    return float(1 - np.concatenate(alive).mean())


def near_zero(model: Any) -> float:
    """The share of the hidden kernels' weights that are less than `NEAR_ZERO` from 0."""
    weights = np.concatenate([np.ravel(kernel.numpy()) for kernel in kernels(model)[:-1]])
    return float((np.abs(weights) < NEAR_ZERO).mean())


def kernels(model: Any) -> list[Any]:
    """Keras's variables, from the first layer to the last, whose kernel is the last of them."""
    return [variable for variable in model.trainable_variables if variable.name.endswith("kernel")]


def _activated(model: Any) -> list[Any]:
    """The layers that give a hidden layer's activation: where it is normalised before, a layer of its own."""
    keras = import_keras()
    normalisation = keras.layers.BatchNormalization
    kinds = (keras.layers.Conv2D, keras.layers.SeparableConv2D, keras.layers.Dense, keras.layers.Activation)
    return [
        layer
        for layer, after in pairwise(model.layers)
        if isinstance(layer, kinds) and not isinstance(after, normalisation)
    ]


def _capped(value: float) -> float:
    largest = float(np.finfo(np.float32).max)
    return value if value <= largest else largest
