"""Takes channels out of Keras networks: whole filters and dense units go, with all that reads them.

It knows the layers that `export.members.network.build` makes, in a row, channels last.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.errors import InvalidModel
from export.formats.keras_models import import_keras

Channels = NDArray[np.int64]
"""Sorted indices `(k,)` of a layer's filters or units."""

WIDE = ("Conv2D", "SeparableConv2D", "Dense")
SAME_CHANNELS = (
    "Rescaling",
    "Activation",
    "MaxPooling2D",
    "AveragePooling2D",
    "GlobalAveragePooling2D",
    "Dropout",
)


def widths(model: Any) -> list[int]:
    """How many filters or units each layer has; not of the last, whose units are the classes."""
    return [layer.output.shape[-1] for layer in _wide(model)]


def strongest(model: Any, wanted: Sequence[int]) -> list[Channels]:
    """As many channels of each of these layers as `wanted` says, those of largest L1 norm.

    The norm is that of a channel's kernel, of a separable convolution's its pointwise kernel (Li et al. 2017, "Pruning
    Filters for Efficient ConvNets").
    """
    norms = [np.abs(_kernel(layer)).reshape(-1, layer.output.shape[-1]).sum(axis=0) for layer in _wide(model)]
    return [np.sort(np.argsort(-norm, kind="stable")[:n]) for norm, n in zip(norms, wanted, strict=True)]


def narrowed(model: Any, kept: Sequence[Channels]) -> Any:
    """A new model of the same layers with only the channels `kept` of each that `widths` counts; weights are copied.

    What it answers differs from the model's by what the other channels brought. Raises InvalidModel for a layer that it
    does not know.
    """
    keras = import_keras()
    (inputs,) = model.inputs
    before = np.arange(inputs.shape[-1])
    left = iter([*kept, np.arange(model.output_shape[-1])])
    layers, weights = [], []
    for layer in model.layers:
        after = next(left) if type(layer).__name__ in WIDE else before
        layers.append(type(layer).from_config(layer.get_config() | _new_width(layer, len(after))))
        weights.append(_sliced(layer, before, after))
        before = _flattened(layer.input.shape, after) if type(layer).__name__ == "Flatten" else after
    result = keras.Sequential([keras.Input(inputs.shape[1:], dtype=inputs.dtype, name=inputs.name), *layers])
    for layer, values in zip(result.layers, weights, strict=True):
        layer.set_weights(values)
    return result


def _wide(model: Any) -> list[Any]:
    *hidden, _ = (layer for layer in model.layers if type(layer).__name__ in WIDE)
    return hidden


def _kernel(layer: Any) -> NDArray[np.float32]:
    kernel: NDArray[np.float32] = layer.get_weights()[1 if type(layer).__name__ == "SeparableConv2D" else 0]
    return kernel


def _new_width(layer: Any, width: int) -> dict[str, int]:
    return {name: width for name in ("filters", "units") if name in layer.get_config()}


def _sliced(layer: Any, before: Channels, after: Channels) -> list[NDArray[np.float32]]:
    """The layer's weights, of its inputs `before` and its outputs `after`."""
    kind, weights = type(layer).__name__, layer.get_weights()
    if kind in SAME_CHANNELS or kind == "Flatten":
        return []
    if kind == "BatchNormalization":
        return [vector[after] for vector in weights]
    if kind not in WIDE:
        raise InvalidModel(f"expected layers that a recipe can say, got {layer.name!r}, a {kind}")
    depthwise = [weights.pop(0)[:, :, before]] if kind == "SeparableConv2D" else []
    kernel, *bias = weights
    return [*depthwise, kernel[..., before, :][..., after], *(vector[after] for vector in bias)]


def _flattened(shape: Sequence[int], channels: Channels) -> Channels:
    """Where the channels of values `(n, …, n_channels)` are once they are flat: at every place."""
    places = np.arange(int(np.prod(shape[1:-1])))
    return np.asarray(places[:, None] * shape[-1] + channels).ravel()
