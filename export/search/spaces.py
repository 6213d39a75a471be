"""Spaces of networks: what a search may vary, and the layers that a draw of it stands for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from export.members.network import WIDTH_STEP
from export.recipe import Activation, AvgPool, Conv, Dense, Dropout, Flatten, GlobalPool, Layer, MaxPool

MOST_FILTERS = 128
LEAST_SIDE = 2
"""Pixels: a picture is halved no further than this."""
ACTIVATIONS: tuple[Activation, ...] = ("relu", "leaky_relu", "elu", "swish", "mish")

Choice = TypeVar("Choice")


class Draws(Protocol):
    """Who draws: a trial of Optuna."""

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1) -> int: ...

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float: ...

    def suggest_categorical(self, name: str, choices: Sequence[Choice]) -> Choice: ...


@dataclass(frozen=True, slots=True)
class Space:
    """How far a draw may go: blocks and convolutions a block from 1, dense layers from 0. `widths` are those of the
    first block, `units` those of the dense layers: from, and to."""

    blocks: int
    convs: int
    widths: tuple[int, int]
    dense: int
    units: tuple[int, int]


SPACES: Mapping[str, Space] = {
    "deeper": Space(blocks=4, convs=3, widths=(16, 32), dense=2, units=(32, 64)),
    "wider": Space(blocks=2, convs=1, widths=(16, 128), dense=1, units=(32, 256)),
    "deeper_and_wider": Space(blocks=4, convs=3, widths=(16, 64), dense=2, units=(32, 256)),
}


@dataclass(frozen=True, slots=True)
class Proposal:
    layers: list[Layer]
    learning_rate: float
    batch_size: int


def propose(space: Space, draws: Draws, side: int) -> Proposal:
    """A network for pictures whose shorter side is `side` pixels.

    A stem may halve the picture before anything is computed on it, which is what makes a network cheap. Blocks of
    convolutions follow, each of which halves it, by the stride of its first convolution or by pooling, as long as it
    is large enough. Then all of what is left, or the mean of each channel, goes into the dense layers.

    Two things that would cost much and bring little are left out: more than one convolution on the whole picture, and
    plain 5x5 convolutions of many channels, which two of 3x3 do better (Simonyan & Zisserman 2015).
    """
    activation = draws.suggest_categorical("activation", ACTIVATIONS)
    batch_norm = draws.suggest_categorical("batch_norm", [False, True])
    layers = [*_trunk(space, draws, side, activation, batch_norm), *_head(space, draws, activation, batch_norm)]
    learning_rate = draws.suggest_float("learning_rate", 5e-4, 1e-2, log=True)
    return Proposal(layers, learning_rate, draws.suggest_categorical("batch_size", [32, 64, 128]))


def _trunk(space: Space, draws: Draws, side: int, activation: Activation, batch_norm: bool) -> list[Layer]:
    stem = draws.suggest_categorical("stem", ["none", "stride", "avgpool"])
    down = draws.suggest_categorical("down", ["stride", "maxpool", "avgpool"])
    kernel = draws.suggest_categorical("kernel", [3, 5])
    separable = draws.suggest_categorical("separable", [False, True])
    n_blocks = draws.suggest_int("blocks", 1, max(1, min(space.blocks, side.bit_length() - 1)))
    n_convs = draws.suggest_int("convs", 1, space.convs)
    width = draws.suggest_int("width", *space.widths, step=WIDTH_STEP)
    growth = draws.suggest_int("growth", 1, 2)

    def conv(block: int, stride: int, *, first: bool) -> Conv:
        return Conv(
            layer="conv",
            filters=min(width * growth**block, MOST_FILTERS),
            size=kernel if first or separable else 3,
            stride=stride,
            padding="same",
            activation=activation,
            batch_norm=batch_norm,
            separable=separable and not first,  # the first sees too few channels
        )

    layers: list[Layer] = []
    stride = 1
    """Of the next convolution."""
    whole = True
    """Whether the picture still has all its pixels."""
    if stem != "none" and _is_large(side):
        side, whole = side // 2, False
        if stem == "avgpool":
            layers.append(AvgPool(layer="avgpool"))
        else:
            stride = 2
    for block in range(n_blocks):
        halved = _is_large(side)
        if halved:
            side //= 2
        if halved and down == "stride":
            stride, whole = 2 * stride, False
        layers.append(conv(block, stride, first=block == 0))
        stride = 1
        layers += [conv(block, 1, first=False) for _ in range(0 if whole else n_convs - 1)]
        if halved and down != "stride":
            layers.append(MaxPool(layer="maxpool") if down == "maxpool" else AvgPool(layer="avgpool"))
            whole = False
    return layers


def _is_large(side: int) -> bool:
    return side // 2 >= LEAST_SIDE


def _head(space: Space, draws: Draws, activation: Activation, batch_norm: bool) -> list[Layer]:
    """Flat values, then dense layers, with dropout in front of each and of the softmax."""
    flat = draws.suggest_categorical("flat", ["flatten", "globalpool"])
    rate = draws.suggest_float("dropout", 0.0, 0.4, step=0.1)
    dropout: list[Layer] = [Dropout(layer="dropout", rate=round(rate, 1))] if rate else []
    layers: list[Layer] = [Flatten(layer="flatten") if flat == "flatten" else GlobalPool(layer="globalpool")]
    layers += dropout
    n_dense = draws.suggest_int("dense", 0, space.dense)
    if n_dense:
        units = draws.suggest_int("units", *space.units, step=WIDTH_STEP)
        for _ in range(n_dense):
            layers += [Dense(layer="dense", units=units, activation=activation, batch_norm=batch_norm), *dropout]
    return layers
