from typing import Any

import numpy as np
import pytest

from export.datasets import Split
from export.formats.keras_models import import_keras
from export.members.network import build, learn, log_loss
from export.recipe import (
    ACTIVATIONS,
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
from tests.export.small import digits

FLAT: list[Layer] = [Flatten(layer="flatten"), Dense(layer="dense", units=16)]


def _network(layers: list[Layer] = FLAT, **penalties: float) -> Any:
    keras = import_keras()
    keras.utils.set_random_seed(1)
    return build(layers, digits().input, 10, name="network", **penalties)


def _learn(model: Any, training: Training, **more: Any) -> dict[str, list[float]]:
    dataset = digits()
    return learn(model, training, dataset.train, dataset.validation, learning_rate=0.01, batch_size=64, seed=2, **more)


def test_every_layer_is_built_as_the_recipe_says() -> None:
    layers: list[Layer] = [
        Conv(layer="conv", filters=4, size=5, stride=2, padding="same", activation="elu", batch_norm=True),
        Conv(layer="conv", filters=6, separable=True, activation="tanh"),
        AvgPool(layer="avgpool"),
        Dropout(layer="dropout", rate=0.5),
        GlobalPool(layer="globalpool"),
        Dense(layer="dense", units=8, activation="swish", batch_norm=True),
    ]
    model = _network(layers)
    kinds = [type(layer).__name__ for layer in model.layers]
    assert kinds == [
        "Rescaling",
        "Conv2D",
        "BatchNormalization",
        "Activation",
        "SeparableConv2D",
        "AveragePooling2D",
        "Dropout",
        "GlobalAveragePooling2D",
        "Dense",
        "BatchNormalization",
        "Activation",
        "Dense",
    ]
    assert [tuple(layer.output.shape[1:]) for layer in model.layers[1:7]] == [
        (4, 4, 4),
        (4, 4, 4),
        (4, 4, 4),
        (2, 2, 6),
        (1, 1, 6),
        (1, 1, 6),
    ]
    assert not model.layers[1].use_bias, "batch normalisation has a bias of its own"
    assert model.layers[4].use_bias
    assert model.layers[4].activation.__name__ == "tanh"


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_is_built(activation: Any) -> None:
    model = _network([Flatten(layer="flatten"), Dense(layer="dense", units=4, activation=activation)])
    answer = model.predict(digits().validation.x[:8], verbose=0)
    np.testing.assert_allclose(answer.sum(axis=1), 1, atol=1e-5)


def test_curves_are_of_the_rows_as_they_are() -> None:
    model = _network()
    dataset = digits()
    seen: list[int] = []
    curves = _learn(
        model,
        Training(epochs=3, schedule="cosine"),
        watch_train=dataset.train,
        on_epoch=lambda epoch, figures: seen.append(epoch),
    )
    assert seen == [0, 1, 2]
    assert {name: len(values) for name, values in curves.items()} == dict.fromkeys(
        ("loss", "validation_log_loss", "validation_accuracy", "train_log_loss", "train_accuracy"), 3
    )
    answer = model.predict(dataset.validation.x, verbose=0)
    assert curves["validation_log_loss"][-1] == pytest.approx(log_loss(answer, dataset.validation.y), abs=1e-5)
    assert curves["validation_accuracy"][-1] == (answer.argmax(axis=1) == dataset.validation.y).mean()


def test_the_same_seed_learns_the_same() -> None:
    weights = []
    for _ in range(2):
        model = _network()
        _learn(model, Training(epochs=1))
        weights.append(model.get_weights())
    for one, other in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_early_stopping_goes_back_to_the_best_epoch() -> None:
    """A learning rate that makes it worse after a while: the end is not the best there was."""
    dataset = digits()
    few = Split(dataset.train.x[:60], dataset.train.y[:60])
    model = _network()
    curves = learn(
        model,
        Training(epochs=60, early_stopping=3),
        few,
        dataset.validation,
        learning_rate=0.05,
        batch_size=20,
        seed=0,
    )
    losses = curves["validation_log_loss"]
    best = int(np.argmin(losses))
    assert len(losses) == best + 4 < 60
    answer = model.predict(dataset.validation.x, verbose=0)
    assert log_loss(answer, dataset.validation.y) == pytest.approx(losses[best], abs=1e-5)


def test_penalties_shrink_the_kernels_of_all_layers_but_the_last() -> None:
    free, held = _network(), _network(l1=0.01, l2=0.01)
    for model in (free, held):
        _learn(model, Training(epochs=3))
    kernel = [np.abs(model.layers[2].get_weights()[0]).mean() for model in (free, held)]
    assert kernel[1] < 0.5 * kernel[0]
    assert held.layers[3].kernel_regularizer is None


def test_weight_decay_shrinks_kernels_and_spares_biases() -> None:
    model = _network([Flatten(layer="flatten"), Dense(layer="dense", units=16, batch_norm=True)])
    _learn(model, Training(epochs=1, weight_decay=0.1))
    assert type(model.optimizer).__name__ == "AdamW"
    names = {variable.path: model.optimizer._use_weight_decay(variable) for variable in model.trainable_variables}
    assert {path.rpartition("/")[2]: decays for path, decays in names.items()} == {
        "kernel": True,
        "bias": False,
        "gamma": False,
        "beta": False,
    }


def test_targets_are_learnt_instead_of_labels() -> None:
    """Every picture is said to be half a three and half a seven."""
    dataset = digits()
    target = np.zeros((len(dataset.train), 10), dtype=np.float32)
    target[:, [3, 7]] = 0.5
    model = _network()
    _learn(model, Training(epochs=3), targets=[(dataset.train.x, target)])
    mean = model.predict(dataset.validation.x, verbose=0).mean(axis=0)
    assert mean[[3, 7]] == pytest.approx([0.5, 0.5], abs=0.1)


def test_whoever_watches_may_end_the_training() -> None:
    class Enough(Exception):
        pass

    def stop(epoch: int, figures: object) -> None:
        raise Enough

    with pytest.raises(Enough):
        _learn(_network([MaxPool(layer="maxpool"), *FLAT]), Training(epochs=50), on_epoch=stop)
