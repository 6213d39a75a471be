"""Compares regularisation: one network, held back in several ways from learning its training rows by heart."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.progress import Progress

from export.compare.measures import kernels, near_zero, plotted, scored, some_rows
from export.datasets import Dataset
from export.formats.keras_models import import_keras
from export.members.network import build, learn
from export.recipe import AvgPool, CompareRegularisation, Conv, Dense, Dropout, GlobalPool, Layer, MaxPool, Variant

WATCHED = 5_000
"""Of the training rows, so many at most are answered after each epoch."""


def compare_regularisation(
    settings: CompareRegularisation, dataset: Dataset, *, seed: int, progress: Progress
) -> dict[str, Any]:
    """Train the network in each way, from the same kernels and on the same rows in the same order.

    What comes back is ready for JSON. `variants` has each way: `epochs_run`; its `accuracy` and `log_loss` on the
    validation rows, its `train_log_loss` on up to 5,000 of the training rows as they are, and their `gap`, what the
    validation log-loss has more, all with the weights that it ends with: after early stopping, those of the best epoch,
    `best_epoch` from 0; `near_zero`, the share of hidden kernels' weights below 1e-3; and `curves`, a figure an epoch.
    `diverged` is true of one whose answers are no numbers any more: its log-losses are then those of the uniform
    distribution, and its accuracy is chance's.

    Raises InvalidRecipe.
    """
    train = some_rows(dataset.train, settings.rows, seed=seed)
    watched = some_rows(train, WATCHED, seed=seed)
    ways = [(variant, variant.training(settings.epochs)) for variant in settings.variants]
    shown = progress.add_task("regularisation", total=sum(training.epochs for _, training in ways))
    n_classes = len(dataset.classes)
    start = _built(settings.layers, Variant(name="start"), dataset, seed)
    found, done = [], 0
    for variant, training in ways:
        model = _built(_held_back(settings.layers, variant), variant, dataset, seed)
        for kernel, first in zip(kernels(model), kernels(start), strict=True):
            kernel.assign(first)
        curves = learn(
            model,
            training,
            train,
            dataset.validation,
            learning_rate=settings.learning_rate,
            batch_size=settings.batch_size,
            seed=seed,
            on_epoch=lambda *_: progress.advance(shown),
            watch_train=watched,
        )
        found.append(_row(variant, model, curves, n_classes))
        done += training.epochs
        progress.update(shown, completed=done)
    return {"settings": settings.model_dump(mode="json"), "variants": found}


def _built(layers: Sequence[Layer], variant: Variant, dataset: Dataset, seed: int) -> Any:
    import_keras().utils.set_random_seed(seed)
    return build(layers, dataset.input, len(dataset.classes), name=variant.name, l1=variant.l1, l2=variant.l2)


def _row(variant: Variant, model: Any, curves: dict[str, list[float]], n_classes: int) -> dict[str, Any]:
    losses = curves["validation_log_loss"]
    best = int(np.argmin(np.nan_to_num(losses, nan=np.inf))) if variant.early_stopping is not None else len(losses) - 1
    score = scored(curves["validation_accuracy"][best], losses[best], n_classes)
    curves = {name: curve if name.endswith("accuracy") else plotted(curve, n_classes) for name, curve in curves.items()}
    train_log_loss = curves["train_log_loss"][best]
    return {
        "name": variant.name,
        "epochs_run": len(losses),
        "best_epoch": best,
        **score,
        "train_log_loss": train_log_loss,
        "gap": score["log_loss"] - train_log_loss,
        "near_zero": near_zero(model),
        "curves": curves,
    }


def _held_back(layers: Sequence[Layer], variant: Variant) -> list[Layer]:
    """With normalisation in every convolution and dense layer, dropout after pooling and dense ones, as it says."""
    held: list[Layer] = []
    for layer in layers:
        if variant.batch_norm and isinstance(layer, Conv | Dense):
            layer = layer.model_copy(update={"batch_norm": True})
        held.append(layer)
        if variant.dropout and isinstance(layer, MaxPool | AvgPool | GlobalPool | Dense):
            held.append(Dropout(layer="dropout", rate=variant.dropout))
    return held
