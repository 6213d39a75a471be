"""A network's layers, and how it is trained, as a recipe says them."""

from typing import Annotated, Literal, get_args

from pydantic import Field

from server.toml import Table

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(gt=0, le=1)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Penalty = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Activation = Literal["linear", "exponential", "sigmoid", "tanh", "relu", "elu", "selu", "swish", "mish", "leaky_relu"]
ACTIVATIONS: tuple[Activation, ...] = get_args(Activation)


class Conv(Table):
    """2-D convolution with `size` x `size` filters; `separable` does it a channel at a time, then across channels.

    With `batch_norm` values are normalised between the convolution and its activation (Ioffe & Szegedy 2015).
    """

    layer: Literal["conv"]
    filters: Count
    size: Count = 3
    stride: Count = 1
    padding: Literal["valid", "same"] = "valid"
    activation: Activation = "relu"
    batch_norm: bool = False
    separable: bool = False


class MaxPool(Table):
    """The largest value of each `size` x `size` window; windows do not overlap."""

    layer: Literal["maxpool"]
    size: Annotated[int, Field(ge=2)] = 2


class AvgPool(Table):
    """The mean of each `size` x `size` window; windows do not overlap."""

    layer: Literal["avgpool"]
    size: Annotated[int, Field(ge=2)] = 2


class GlobalPool(Table):
    """The mean of each channel: what comes out is flat."""

    layer: Literal["globalpool"]


class Flatten(Table):
    layer: Literal["flatten"]


class Dense(Table):
    layer: Literal["dense"]
    units: Count
    activation: Activation = "relu"
    batch_norm: bool = False


class Dropout(Table):
    """Zeroes this share of values while training; nothing of it is left in the graph."""

    layer: Literal["dropout"]
    rate: Annotated[float, Field(gt=0, lt=1)]


Layer = Annotated[Conv | MaxPool | AvgPool | GlobalPool | Flatten | Dense | Dropout, Field(discriminator="layer")]
Layers = Annotated[list[Layer], Field(min_length=1)]


class Augment(Table):
    """What may happen to each training picture before each epoch: mirrored left to right, moved by up to `shift`
    pixels each way with zeros coming in."""

    flip: bool = False
    shift: Annotated[int, Field(ge=0, le=1 << 10)] = 0


class Regime(Table):
    """How a network learns: Adam on cross-entropy, or AdamW (Loshchilov & Hutter 2019) with `weight_decay`."""

    schedule: Literal["constant", "cosine"] = "constant"
    """`cosine` brings the learning rate down to zero over all the epochs (Loshchilov & Hutter 2017)."""
    weight_decay: Penalty = 0.0
    l1: Penalty = 0.0
    l2: Penalty = 0.0
    """Penalties on the kernels of all layers but the last."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    early_stopping: Count | None = None
    """Stop after so many epochs without a lower validation log-loss, and go back to the best epoch's weights."""
    augment: Augment | None = None


class Training(Regime):
    """And for how long."""

    epochs: Count = 10
