from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from export.errors import InvalidModel
from export.formats.keras_models import import_keras
from export.members.network import build
from export.members.surgery import narrowed, strongest, widths
from export.recipe import Layer
from export.recipe.layers import AvgPool, Conv, Dense, Dropout, Flatten, GlobalPool, MaxPool
from server.manifest import InputSpec

SPEC = InputSpec(name="image", shape=[8, 8, 2], low=0.0, high=16.0)
FLAT = Flatten(layer="flatten")
NETWORKS: dict[str, list[Layer]] = {
    "plain": [
        Conv(layer="conv", filters=5),
        MaxPool(layer="maxpool"),
        Conv(layer="conv", filters=6, size=2, padding="same"),
        FLAT,
        Dense(layer="dense", units=7),
        Dense(layer="dense", units=4),
    ],
    "normalised": [
        Conv(layer="conv", filters=5, batch_norm=True, stride=2),
        AvgPool(layer="avgpool"),
        Dropout(layer="dropout", rate=0.5),
        FLAT,
        Dense(layer="dense", units=7, batch_norm=True, activation="swish"),
    ],
    "separable": [
        Conv(layer="conv", filters=5, separable=True, batch_norm=True),
        Conv(layer="conv", filters=6, separable=True),
        GlobalPool(layer="globalpool"),
        Dense(layer="dense", units=4),
    ],
    "dense": [FLAT, FLAT, Dense(layer="dense", units=6)],
}


def _network(name: str) -> Any:
    """With weights, biases and running statistics that are all different and not what they begin as."""
    import_keras().utils.set_random_seed(3)
    model = build(NETWORKS[name], SPEC, 3, name="net")
    generator = np.random.default_rng(5)
    model.set_weights([generator.uniform(0.1, 1, w.shape) * generator.choice([-1, 1]) for w in model.get_weights()])
    for layer in model.layers:
        if type(layer).__name__ == "BatchNormalization":
            layer.set_weights([np.abs(vector) for vector in layer.get_weights()])
    return model


def _answers(model: Any) -> NDArray[np.float32]:
    x = np.random.default_rng(1).uniform(0, 16, (9, 8, 8, 2)).astype(np.float32)
    return np.asarray(model(x, training=False))


def _silence(model: Any, silent: list[NDArray[np.int64]]) -> None:
    """Zero the kernel, the bias, and beta and gamma of these channels of each layer: they then answer zero."""
    left = iter(silent)
    for layer in model.layers[:-1]:
        weights = layer.get_weights()
        if type(layer).__name__ in ("Conv2D", "SeparableConv2D", "Dense"):
            channels = next(left)
            weights[1 if type(layer).__name__ == "SeparableConv2D" else 0][..., channels] = 0
            if layer.use_bias:
                weights[-1][channels] = 0
        elif type(layer).__name__ == "BatchNormalization":
            weights[0][channels] = weights[1][channels] = 0
        layer.set_weights(weights)


def test_widths_are_those_of_all_layers_but_the_last() -> None:
    assert {name: widths(_network(name)) for name in NETWORKS} == {
        "plain": [5, 6, 7, 4],
        "normalised": [5, 7],
        "separable": [5, 6, 4],
        "dense": [6],
    }


@pytest.mark.parametrize("name", NETWORKS)
def test_all_channels_kept_is_the_same_network_in_its_own_memory(name: str) -> None:
    model = _network(name)
    copy = narrowed(model, strongest(model, widths(model)))
    assert widths(copy) == widths(model)
    before = _answers(model)
    np.testing.assert_array_equal(_answers(copy), before)
    copy.set_weights([weights * 2 for weights in copy.get_weights()])
    np.testing.assert_array_equal(_answers(model), before)


@pytest.mark.parametrize("name", NETWORKS)
@given(data=st.data())
@settings(max_examples=5, deadline=None)
def test_channels_that_are_zero_go_without_a_trace(name: str, data: st.DataObject) -> None:
    model = _network(name)
    kept = [
        np.array(sorted(data.draw(st.sets(st.integers(0, width - 1), min_size=1, max_size=width))))
        for width in widths(model)
    ]
    _silence(
        model, [np.setdiff1d(np.arange(width), channels) for width, channels in zip(widths(model), kept, strict=True)]
    )
    smaller = narrowed(model, kept)
    assert widths(smaller) == [len(channels) for channels in kept]
    np.testing.assert_allclose(_answers(smaller), _answers(model), rtol=1e-4, atol=1e-6)


def test_the_strongest_channels_are_those_of_largest_l1_norm() -> None:
    """Kernels of one value a channel: the norms are its size times the kernel's."""
    model = _network("separable")
    values = {"first": [3, -5, 1, 4, 2], "second": [1, 1, -2, 1, 2, 1], "third": [0, -1, 3, 2]}
    wide = [layer for layer in model.layers if hasattr(layer, "filters") or hasattr(layer, "units")]
    for layer, row in zip(wide, values.values(), strict=False):
        weights = layer.get_weights()
        kernel = 1 if hasattr(layer, "filters") else 0
        weights[kernel] = np.broadcast_to(np.array(row, dtype=np.float32), weights[kernel].shape)
        layer.set_weights(weights)
    kept = strongest(model, [3, 4, 1])
    assert [channels.tolist() for channels in kept] == [[0, 1, 3], [0, 1, 2, 4], [2]]  # of equals, the first


def test_a_layer_that_no_recipe_can_say_is_refused() -> None:
    keras = import_keras()
    layers = [keras.layers.Conv2D(4, 3), keras.layers.UpSampling2D(name="up"), keras.layers.Flatten()]
    model = keras.Sequential([keras.Input((8, 8, 1)), *layers, keras.layers.Dense(3)])
    with pytest.raises(InvalidModel, match=r"expected layers that a recipe can say, got 'up', a UpSampling2D"):
        narrowed(model, [np.array([0, 1])])
