"""All rows of somebody's own data, before they are split; and how they are split."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from export.datasets import Dataset, Split
from export.errors import InvalidData
from server.manifest import InputSpec
from server.rows import Rows

NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
"""A number as people write one; Python's own `float` takes `1_000`, `infinity` and digits of other scripts, too."""

VALIDATION, CALIBRATION = 0.5, 0.2
"""Shares of the rows; the rest is test. The members were trained on other rows, so none are kept for training."""
LEAST_ROWS = 10
"""Of a class: fewer leave a split without it."""


@dataclass(frozen=True, slots=True)
class Samples:
    """Rows and their labels, in the order of the file.

    `x` are rows as `server.rows` has them; `y` is `(n,)` int64, indices into `classes`. `where` says what the labels
    are, for messages.
    """

    inputs: list[InputSpec]
    x: Rows
    y: NDArray[np.int64]
    classes: list[str]
    where: str


def index_labels(labels: Sequence[str]) -> tuple[NDArray[np.int64], list[str]]:
    """The classes that labels name, in scikit-learn's order, and each label's index into them, `(n,)` int64.

    Labels that are all numbers are sorted as numbers, and `1`, `1.0` and `+1` are one class, `1`; others as text.
    """
    if all(NUMBER.fullmatch(label) for label in labels):
        labels = [number_name(float(label)) for label in labels]
        classes = sorted(set(labels), key=float)
    else:
        classes = sorted(set(labels))
    index = {name: place for place, name in enumerate(classes)}
    return np.array([index[label] for label in labels], dtype=np.int64), classes


def number_name(value: float) -> str:
    """`1` for 1.0, as it would have been written had it been an integer; `0.5` for 0.5."""
    return str(int(value)) if value.is_integer() else repr(value)


def part(samples: Samples, *, name: str, seed: int, keep_together: bool) -> Dataset:
    """Split the rows: none to train on, then half for validation, a fifth for calibration, the rest for test.

    Stratified, and fixed by `seed`. With `keep_together` rows that are equal go to one split, as a copy of a picture
    should. Raises InvalidData unless there are two classes or more, of at least `LEAST_ROWS` (different) rows each.
    """
    groups = _groups(samples.x) if keep_together else np.arange(len(samples.y))
    _check_classes(samples, groups)
    split_of_row = _assign(samples.y, groups, seed)
    validation, calibration, test = (np.flatnonzero(split_of_row == split) for split in range(3))
    return Dataset(
        name=name,
        classes=samples.classes,
        inputs=samples.inputs,
        train=Split(samples.x[:0], samples.y[:0]),
        validation=Split(samples.x[validation], samples.y[validation]),
        calibration=Split(samples.x[calibration], samples.y[calibration]),
        test=Split(samples.x[test], samples.y[test]),
    )


def _groups(x: Rows) -> NDArray[np.int64]:
    """`(n,)`: equal rows have equal numbers, each that of the first of them."""
    first: dict[bytes, int] = {}
    return np.array([first.setdefault(row.tobytes(), place) for place, row in enumerate(x)], dtype=np.int64)


def _check_classes(samples: Samples, groups: NDArray[np.int64]) -> None:
    if len(samples.classes) < 2:
        raise InvalidData(f"{samples.where}: expected two classes or more, got {samples.classes}")
    for name in samples.classes:
        if not 0 < len(name) <= 256:
            raise InvalidData(f"{samples.where}: expected class names of 1 to 256 characters, got {name[:300]!r}")
    counts = np.bincount(samples.y[np.unique(groups)], minlength=len(samples.classes))
    few = np.flatnonzero(counts < LEAST_ROWS)
    if len(few):
        raise InvalidData(
            f"{samples.where}: expected at least {LEAST_ROWS} different rows of each class, "
            f"got {counts[few[0]]} of {samples.classes[few[0]]!r}; so it is with {len(few)} of "
            f"{len(samples.classes)} classes"
        )


def _assign(y: NDArray[np.int64], groups: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """`(n,)`: 0 for validation, 1 for calibration, 2 for test. A group counts as of the class of its first row."""
    generator = np.random.default_rng(seed)
    leaders = np.unique(groups)
    split_of_leader = np.full(len(y), 2, dtype=np.int64)
    for label in np.unique(y[leaders]):
        shuffled = generator.permutation(leaders[y[leaders] == label])
        cuts = [round(VALIDATION * len(shuffled)), round((VALIDATION + CALIBRATION) * len(shuffled))]
        validation, calibration, _ = np.split(shuffled, cuts)
        split_of_leader[validation] = 0
        split_of_leader[calibration] = 1
    return split_of_leader[groups]
