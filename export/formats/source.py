"""A trained model of any family, behind one face: what it wants, what it answers, and its own ONNX graph."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto

from export.reading import Port
from export.trained import Splits


@dataclass(frozen=True, slots=True)
class WantsArray:
    """One array of numbers, rows of `shape` (None: any size), in input `name` of the model's graph.

    `features` are the names of a flat row's places, if the model knows them.
    """

    shape: tuple[int | None, ...]
    name: str = "rows"
    features: tuple[str, ...] | None = None
    element: int = TensorProto.FLOAT


@dataclass(frozen=True, slots=True)
class WantsColumns:
    """A value of each of these columns of a table; `elements` say of what type, if the model knows."""

    names: tuple[str, ...]
    elements: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """`predict` takes an array a port, `(n, *shape)`, and answers `(n, n_outputs)`; it raises whatever it likes.

    `to_onnx` takes the ports as they were fitted to the data, and answers a graph whose inputs they are, and whose
    output named `output` is what `predict` answers. `classes` are its own names of the columns, None if it knows
    none; `splits` takes the port's array.
    """

    framework: str
    wants: WantsArray | WantsColumns
    n_outputs: int
    predict: Callable[[list[NDArray[Any]]], NDArray[Any]]
    to_onnx: Callable[[Sequence[Port]], ModelProto]
    output: str = "probabilities"
    classes: tuple[str, ...] | None = None
    logits: Callable[[list[NDArray[Any]]], NDArray[np.float64]] | None = None
    splits: Callable[[NDArray[Any]], Splits] | None = None
    smooth: bool = False


def class_name(value: Any) -> str:
    """`3` for 3 and for 3.0, as a file of labels would have it."""
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))
    return str(value)
