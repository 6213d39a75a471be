import math
from typing import Any

import numpy as np
import pytest

from export.compare.measures import dead_units, gradient_norm, kernels, near_zero, plotted, scored, some_rows
from export.datasets import Split
from export.errors import InvalidRecipe
from export.formats.keras_models import import_keras
from export.members.network import build
from export.recipe import Activation, Conv, Dense, Flatten, Layer
from server.manifest import InputSpec

SPEC = InputSpec(name="image", shape=[2, 2, 1], low=0.0, high=1.0)
X = np.random.default_rng(0).random((20, 2, 2, 1), dtype=np.float32)


def _network(activation: Activation = "relu", *, batch_norm: bool = False) -> Any:
    """Two channels, two units, two classes."""
    import_keras().utils.set_random_seed(0)
    layers: list[Layer] = [
        Conv(layer="conv", filters=2, size=1, activation=activation, batch_norm=batch_norm),
        Flatten(layer="flatten"),
        Dense(layer="dense", units=2, activation=activation),
    ]
    return build(layers, SPEC, 2, name="network")


def _split(n: int) -> Split:
    return Split(np.arange(n, dtype=np.float32).reshape(n, 1), np.arange(n) % 2)


# ---- Rows -----------------------------------------------------------------------------------------------------------


def test_rows_keep_the_classes_shares() -> None:
    some = some_rows(_split(100), 20, seed=0)
    assert (some.y == 0).sum() == (some.y == 1).sum() == 10
    np.testing.assert_array_equal(some.x[:, 0] % 2, some.y)
    np.testing.assert_array_equal(some.x, some_rows(_split(100), 20, seed=0).x)
    assert not np.array_equal(some.x, some_rows(_split(100), 20, seed=1).x)


@pytest.mark.parametrize("rows", [None, 99, 100, 1000])
def test_where_no_more_are_wanted_or_there_it_is_all(rows: int | None) -> None:
    split = _split(100)
    assert some_rows(split, rows, seed=0) is split


def test_fewer_rows_than_classes_are_refused() -> None:
    with pytest.raises(InvalidRecipe, match=r"^compare: rows: expected enough for 2 classes, got 1: .*$"):
        some_rows(_split(100), 1, seed=0)


# ---- Scores ---------------------------------------------------------------------------------------------------------


def test_a_network_that_answers_no_number_knows_nothing() -> None:
    assert scored(0.5, 1.5, 10) == {"accuracy": 0.5, "log_loss": 1.5, "diverged": False}
    assert scored(0.1, math.nan, 4) == {"accuracy": 0.25, "log_loss": math.log(4), "diverged": True}
    assert plotted([1.0, math.nan, math.inf], 4) == [1.0, math.log(4), math.log(4)]


# ---- Networks -------------------------------------------------------------------------------------------------------


def test_a_gradient_is_that_of_finite_differences() -> None:
    model, y = _network("tanh"), np.arange(20) % 2
    norm, ratio = gradient_norm(model, X, y)

    def loss() -> float:
        answer = model(X, training=False).numpy().astype(np.float64)
        return float(-np.log(answer[np.arange(20), y]).mean())

    squares = []
    for kernel in kernels(model)[:-1]:
        start, slopes = kernel.numpy(), []
        for place in np.ndindex(start.shape):
            step = np.zeros_like(start)
            step[place] = 1e-2
            kernel.assign(start + step)
            above = loss()
            kernel.assign(start - step)
            slopes.append((above - loss()) / 2e-2)
        kernel.assign(start)
        squares.append(np.square(slopes).sum())
    assert norm == pytest.approx(math.sqrt(sum(squares)), rel=1e-2)
    assert ratio == pytest.approx(math.sqrt(squares[0] / squares[-1]), rel=1e-2)


def test_a_gradient_beyond_float32_is_its_largest_number() -> None:
    model = _network("exponential")
    for kernel in kernels(model):
        kernel.assign(np.full(kernel.shape, 100.0))
    largest = float(np.finfo(np.float32).max)
    assert gradient_norm(model, X, np.arange(20) % 2) == (largest, largest)


@pytest.mark.parametrize(
    ("activation", "bias"), [("relu", -100.0), ("sigmoid", 20.0), ("sigmoid", -20.0), ("tanh", 20.0), ("elu", -20.0)]
)
def test_units_that_level_off_are_dead(activation: Activation, bias: float) -> None:
    model = _network(activation)
    _, first_bias, _, second_bias, *_ = model.trainable_variables
    for kernel in kernels(model):
        kernel.assign(np.ones(kernel.shape))
    assert dead_units(model, X) == 0.0
    second_bias.assign([bias, bias])
    assert dead_units(model, X) == 0.5
    first_bias.assign([bias, bias])
    assert dead_units(model, X) == 1.0


def test_a_channel_is_dead_that_is_the_same_in_all_rows_if_not_in_all_places() -> None:
    x = np.repeat(X[:1], 300, axis=0)
    assert dead_units(_network("linear"), x) == 1.0


def test_a_unit_that_lives_in_one_row_of_many_is_alive() -> None:
    model = _network("linear")
    x = np.zeros((600, 2, 2, 1), dtype=np.float32)
    assert dead_units(model, x) == 1.0
    x[555] = 1.0
    assert dead_units(model, x) == 0.0


def test_units_that_give_no_number_are_dead() -> None:
    model = _network()
    kernels(model)[0].assign(np.full((1, 1, 1, 2), np.nan))
    assert dead_units(model, X) == 1.0


def test_where_values_are_normalised_a_unit_is_what_comes_after() -> None:
    model = _network(batch_norm=True)
    normalisation = next(layer for layer in model.layers if "normalization" in layer.name)
    gamma, beta, *_ = normalisation.weights
    gamma.assign([1.0, 0.0])
    beta.assign([0.5, 0.5])
    kernels(model)[0].assign(np.ones((1, 1, 1, 2)))
    kernels(model)[1].assign(np.ones((8, 2)))
    assert dead_units(model, X) == 0.25


def test_weights_near_zero_are_counted_in_hidden_kernels() -> None:
    model = _network()
    first, second, last = kernels(model)
    assert (first.shape, second.shape, last.shape) == ((1, 1, 1, 2), (8, 2), (2, 2))
    for kernel in (first, second):
        kernel.assign(np.ones(kernel.shape))
    last.assign(np.zeros((2, 2)))
    assert near_zero(model) == 0.0
    first.assign(np.array([0.0009, -0.0009]).reshape(1, 1, 1, 2))
    assert near_zero(model) == 2 / 18
