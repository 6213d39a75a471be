"""A row that an ensemble takes, for examples: zeros, or what is nearest to them in the input's domain."""

import math
from collections.abc import Sequence
from typing import Any

from server.manifest import InputSpec
from server.rows import is_table


def size_of(inputs: Sequence[InputSpec]) -> int:
    """How many values a row has."""
    return sum(math.prod(spec.shape) for spec in inputs)


def row_of(inputs: Sequence[InputSpec]) -> Any:
    """As JSON has it: of a table an object, else numbers, flat."""
    if is_table(inputs):
        return {spec.name: value_of(spec) for spec in inputs}
    return [number_of(inputs[0])] * size_of(inputs)


def value_of(spec: InputSpec) -> Any:
    if spec.datatype == "BYTES":
        return spec.categories[0] if spec.categories else "text"
    number = number_of(spec)
    return number if spec.shape == [1] else [number] * math.prod(spec.shape)


def number_of(spec: InputSpec) -> float:
    number = max(spec.low or 0.0, 0.0) or min(spec.high if spec.high is not None else 0.0, 0.0)
    return int(number) if number.is_integer() else number
