"""What a network is fed, batch by batch: rows as they are, or pictures mirrored and moved anew in each epoch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.datasets import Split
from export.formats.keras_models import import_keras
from export.recipe import Augment, Training

Pictures = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Feed:
    """`arguments` are for Keras's `fit`; `soft` says that the targets are distributions and not labels."""

    arguments: tuple[Any, ...]
    n_batches: int
    soft: bool


def make_feed(
    training: Training,
    train: Split,
    n_classes: int,
    *,
    batch_size: int,
    seed: int,
    targets: Sequence[tuple[Pictures, NDArray[np.float32]]] = (),
) -> Feed:
    """Batches of `train`, or of each of `targets` in turn, shuffled anew in each epoch.

    Pictures of `targets` are taken as they are: they went through augmentation with their distributions.
    """
    soft = bool(targets) or training.label_smoothing > 0
    labels: NDArray[Any] = np.eye(n_classes, dtype=np.float32)[train.y] if soft else train.y
    pairs = list(targets) or [(train.x, labels)]
    augment = None if targets else training.augment
    batches = _batches(pairs, augment, batch_size, seed)
    return Feed((batches,), len(batches), soft)


def augmented(pictures: Pictures, augment: Augment, generator: np.random.Generator) -> Pictures:
    """A copy of `pictures (n, height, width, channels)`, each mirrored or not, and moved, by chance."""
    n, height, width, _ = pictures.shape
    if augment.flip:
        flipped = generator.random((n, 1, 1, 1)) < 0.5
        pictures = np.where(flipped, pictures[:, :, ::-1], pictures)
    if augment.shift:
        s = augment.shift
        padded = np.pad(pictures, ((0, 0), (s, s), (s, s), (0, 0)))
        down, right = generator.integers(0, 2 * s + 1, (2, n, 1))
        rows, columns = down + np.arange(height), right + np.arange(width)
        pictures = padded[np.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]]
    return pictures


def _batches(
    pairs: Sequence[tuple[Pictures, NDArray[Any]]], augment: Augment | None, batch_size: int, seed: int
) -> Any:
    keras = import_keras()

    class Batches(keras.utils.PyDataset):  # type: ignore[misc, name-defined]  # Keras is not typed
        def __init__(self) -> None:
            super().__init__()
            self._epoch = 0
            self._shuffle()

        def _shuffle(self) -> None:
            self._generator = np.random.default_rng([seed, self._epoch])
            self._x, self._y = pairs[self._epoch % len(pairs)]
            self._order = self._generator.permutation(len(self._x))

        def __len__(self) -> int:
            return -(-len(pairs[0][0]) // batch_size)

        def __getitem__(self, index: int) -> tuple[Pictures, NDArray[Any]]:
            chosen = self._order[index * batch_size : (index + 1) * batch_size]
            x = self._x[chosen]
            if augment is not None:
                x = augmented(x, augment, np.random.default_rng([seed, self._epoch, index]))
            return x, self._y[chosen]

        def on_epoch_end(self) -> None:
            self._epoch += 1
            self._shuffle()

    return Batches()
