"""Compares activations: one network, trained with each of them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from onnx import ModelProto
from rich.progress import Progress

from export.adapt import answer_of, reading_of
from export.compare.measures import dead_units, gradient_norm, plotted, scored, some_rows
from export.convert import normalised
from export.costs import measure_costs
from export.datasets import Dataset, Split
from export.formats.keras_models import import_keras, keras_source
from export.members.network import build, learn
from export.recipe import Activation, CompareActivations, Conv, Dense, Layer, Training
from server.rows import Rows

WATCHED = 1_000
"""Validation rows on which units are looked for that are dead."""
MEANS = ("accuracy", "log_loss", "dead_units", "gradient_norm", "gradient_ratio")
Measure = Callable[[Mapping[str, ModelProto], Rows], Mapping[str, float]]


def compare_activations(
    settings: CompareActivations,
    dataset: Dataset,
    *,
    seed: int,
    progress: Progress,
    measure: Measure = measure_costs,
) -> dict[str, Any]:
    """Train the network with each activation, from the same weights and on the same rows in the same order.

    What comes back is ready for JSON. `rows` has an activation from a seed: its `accuracy` and `log_loss` on the
    validation rows, `curve`, the log-loss after each epoch; `dead_units`, a share; `gradient_norm` of the first batch,
    before any step, and `gradient_ratio`, the first layer's norm as a multiple of the last hidden one's. Where a
    network's answers are no numbers any more, as can come of `exponential`, `diverged` is true, and it is put down with
    chance's accuracy and the uniform distribution's log-loss. `summary` has their means over the seeds, the standard
    deviations of the first two, how many `diverged`, and `cost_us`: microseconds a row in ONNX Runtime, all measured in
    turn.

    Raises InvalidRecipe.
    """
    train = some_rows(dataset.train, settings.rows, seed=seed)
    runs = [(activation, (seed + k) % (1 << 32)) for activation in settings.activations for k in range(settings.seeds)]
    shown = progress.add_task("activations", total=len(runs) * settings.epochs)
    rows: list[dict[str, Any]] = []
    graphs: dict[str, ModelProto] = {}
    for activation, own_seed in runs:
        model, row = _run(settings, activation, train, dataset, own_seed, lambda *_: progress.advance(shown))
        rows.append({"activation": activation, "seed": own_seed, **row})
        if activation not in graphs:
            graphs[activation] = _graph(model, dataset)
    costs = measure(graphs, dataset.validation.x)
    return {
        "settings": settings.model_dump(mode="json"),
        "rows": rows,
        "summary": [_summary(activation, rows, costs[activation]) for activation in settings.activations],
    }


def _run(
    settings: CompareActivations,
    activation: Activation,
    train: Split,
    dataset: Dataset,
    seed: int,
    on_epoch: Callable[..., object],
) -> tuple[Any, dict[str, Any]]:
    """The trained model, and its row."""
    n_classes = len(dataset.classes)

    def untrained() -> Any:
        import_keras().utils.set_random_seed(seed)
        return build(_activated(settings.layers, activation), dataset.input, n_classes, name=activation)

    first = np.random.default_rng(seed).permutation(len(train))[: settings.batch_size]
    # Of a model of its own: to be answered as in training changes the running means of batch normalisation.
    norm, ratio = gradient_norm(untrained(), train.x[first], train.y[first])
    model = untrained()
    curves = learn(
        model,
        Training(epochs=settings.epochs),
        train,
        dataset.validation,
        learning_rate=settings.learning_rate,
        batch_size=settings.batch_size,
        seed=seed,
        on_epoch=on_epoch,
    )
    losses = curves["validation_log_loss"]
    return model, {
        **scored(curves["validation_accuracy"][-1], losses[-1], n_classes),
        "dead_units": dead_units(model, dataset.validation.x[:WATCHED]),
        "gradient_norm": norm,
        "gradient_ratio": ratio,
        "curve": plotted(losses, n_classes),
    }


def _activated(layers: Sequence[Layer], activation: Activation) -> list[Layer]:
    return [
        layer.model_copy(update={"activation": activation}) if isinstance(layer, Conv | Dense) else layer
        for layer in layers
    ]


def _graph(model: Any, dataset: Dataset) -> ModelProto:
    """As a member's graph, but without a look at its answers: they may be no numbers."""
    source = keras_source(model)
    reading = reading_of(source.wants, dataset.inputs, model.name)
    answer = answer_of(source, dataset.classes, model.name)
    return normalised(source.to_onnx(reading.ports), reading, answer, dataset.inputs, output=source.output)


def _summary(activation: Activation, rows: Sequence[dict[str, Any]], cost: float) -> dict[str, Any]:
    own = [row for row in rows if row["activation"] == activation]
    means = {key: float(np.mean([row[key] for row in own])) for key in MEANS}
    spreads = {f"{key}_std": float(np.std([row[key] for row in own])) for key in ("accuracy", "log_loss")}
    diverged = sum(row["diverged"] for row in own)
    return {"activation": activation, **means, **spreads, "diverged": diverged, "cost_us": cost}
