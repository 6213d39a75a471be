"""A few of the digits and a network that learns from them in a moment."""

from dataclasses import replace
from functools import cache

from export.datasets import Dataset, Split
from export.recipe import Conv, Dense, Flatten, Layer, MaxPool
from tests.export.small import digits

LAYERS: list[Layer] = [
    Conv(layer="conv", filters=4),
    MaxPool(layer="maxpool"),
    Flatten(layer="flatten"),
    Dense(layer="dense", units=8),
]


@cache
def few_digits() -> Dataset:
    dataset = digits()
    return replace(
        dataset,
        train=Split(dataset.train.x[:300], dataset.train.y[:300]),
        validation=Split(dataset.validation.x[:100], dataset.validation.y[:100]),
    )
