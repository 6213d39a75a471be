"""Rows made to be awkward, on which a wrong graph shows what is wrong with it."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.datasets import Dataset
from export.trained import TrainedMember
from server.manifest import InputSpec
from server.rows import Rows

BATCH = 1024
OFFSETS = (1e4, -1e4, 1e6, -1e6)
N_OFFSET_ROWS = 256
N_NOISE_ROWS = 256
N_EXTREME_ROWS = 8
N_EDGES = 256
MOST_PATTERN_VALUES = 1 << 24
"""Values in all rows of patterns: a large picture has more pixels than there can be rows."""


@dataclass(frozen=True, slots=True)
class RowSet:
    """Rows of one sort, as `server.rows` has them; `first` is the number of the first among all of that sort."""

    name: str
    rows: Rows
    first: int = 0
    inside: bool = True
    """Of the input's domain."""


def base_rows(dataset: Dataset) -> Rows:
    """Real rows to make others of: the ones trained on, or for a stranger's models, which bring none, validation's."""
    return dataset.train.x if len(dataset.train) else dataset.validation.x


def row_sets(member: TrainedMember, dataset: Dataset) -> Iterator[RowSet]:
    """All rows to compare, in batches of at most BATCH."""
    validation = dataset.validation.x
    yield from _batches("validation", [validation])
    yield from _batches("thresholds", threshold_rows(member, dataset))
    if member.splits is None and not member.smooth:
        yield from _batches("edges", [edge_rows(member, dataset)])
    if validation.dtype.names is None:
        yield from _tensor_sets(dataset)
    else:
        yield from _table_sets(dataset)
    for offset in OFFSETS:
        shifted = _moved(validation[:N_OFFSET_ROWS], dataset.inputs, np.float32(offset))
        yield from _batches(f"offset {offset:+.0e}", [shifted], inside=False)


# ---- Next to where a tree decides -----------------------------------------------------------------------------------


def threshold_rows(member: TrainedMember, dataset: Dataset) -> Iterator[Rows]:
    """For each split of the member's trees, a row that comes by it with the feature *at* the threshold, one float32
    step below and one above; so wherever a converter rounds a float64 threshold to, a row lies between."""
    splits = member.splits
    if splits is None:
        return
    nearest = splits.thresholds.astype(np.float32)
    below, above = np.nextafter(nearest, np.float32(-np.inf)), np.nextafter(nearest, np.float32(np.inf))
    values = np.stack([below, nearest, above], axis=1)
    for start in range(0, len(splits), BATCH // 3):
        batch = slice(start, start + BATCH // 3)
        rows = np.repeat(base_rows(dataset)[splits.rows[batch]], 3, axis=0)
        yield _with_values(rows, np.repeat(splits.features[batch], 3), values[batch].ravel())


def edge_rows(member: TrainedMember, dataset: Dataset) -> Rows:
    """For models in steps that see the rows only through something else, a scaler say: the two neighbouring float32
    between which the model's answer changes, found by bisection, and one step to either side of them.

    From up to `N_EDGES` pairs of a row and the same row with one number of another's.
    """
    generator = np.random.default_rng(0)
    base = completed(base_rows(dataset), dataset.inputs)
    features = _number_features(dataset.inputs)
    if not len(features):
        return base[:0]
    rows = base[generator.integers(len(base), size=4 * N_EDGES)]
    chosen = features[generator.integers(len(features), size=len(rows))]
    low = _steps(_values(rows, chosen))
    high = _steps(_values(base[generator.integers(len(base), size=len(rows))], chosen))

    def answers(steps: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.asarray(member.predict_proba(_with_values(rows, chosen, _floats(steps))), dtype=np.float64)

    differ = np.flatnonzero((answers(low) != answers(high)).any(axis=1))[:N_EDGES]
    rows, chosen, low, high = rows[differ], chosen[differ], low[differ], high[differ]
    if not len(rows):
        return rows
    at_low = answers(low)
    while (np.abs(high - low) > 1).any():
        middle = (low + high) // 2
        same = (answers(middle) == at_low).all(axis=1)
        low, high = np.where(same, middle, low), np.where(same, high, middle)
    step = np.sign(high - low)
    return np.concatenate(
        [_with_values(rows, chosen, _floats(place)) for place in (low - step, low, high, high + step)]
    )


def _steps(values: NDArray[np.float32]) -> NDArray[np.int64]:
    """float32 as integers in the same order, one a step."""
    bits = np.ascontiguousarray(values).view(np.int32).astype(np.int64)
    return np.where(bits < 0, -(bits & 0x7FFFFFFF), bits)


def _floats(steps: NDArray[np.int64]) -> NDArray[np.float32]:
    magnitude = np.abs(steps).astype(np.int32).view(np.float32)
    return np.where(steps < 0, -magnitude, magnitude).astype(np.float32)


# ---- Tensors --------------------------------------------------------------------------------------------------------


def _tensor_sets(dataset: Dataset) -> Iterator[RowSet]:
    shape = dataset.input.shape
    low, high = _domain(dataset)
    yield from _batches("constants", [constant_rows(shape, low, high)])
    yield from _batches("patterns", [pattern_rows(shape, low, high)])
    noise = np.random.default_rng(0).uniform(low, high, (N_NOISE_ROWS, *shape)).astype(np.float32)
    yield from _batches("noise", [noise])


def constant_rows(shape: list[int], low: Any, high: Any) -> NDArray[np.float32]:
    """Five rows: all 0, the least and the highest, the middle, and a value next to the least.

    `low` and `high` are one number, or one for each place.
    """
    low, high = np.broadcast_to(np.float32(low), shape), np.broadcast_to(np.float32(high), shape)
    values = [np.clip(np.float32(0), low, high), low, high, (low + high) / 2, low + (high - low) / 1000]
    return np.stack([value.astype(np.float32) for value in values])


def pattern_rows(shape: list[int], low: Any, high: Any) -> NDArray[np.float32]:
    """Checkerboards of both phases, stripes, one value high in a low row, and one low in a high row."""
    n = int(np.prod(shape))
    places = np.indices(shape).reshape(len(shape), n)
    masks = [places.sum(axis=0) % 2 == 0, *(axis % 2 == 0 for axis in places), np.arange(n) < n // 2]
    boards = np.array([*masks, *(~mask for mask in masks)])
    single = np.zeros((min(n, max(1, MOST_PATTERN_VALUES // n)), n), dtype=np.bool_)
    single[np.arange(len(single)), np.linspace(0, n - 1, len(single)).astype(int)] = True
    bits = np.concatenate([boards, single, ~single]).reshape(-1, *shape)
    return np.where(bits, np.float32(high), np.float32(low))


def _domain(dataset: Dataset) -> tuple[Any, Any]:
    """The input's bounds; where the spec gives none, those that each place has in real rows."""
    spec, x = dataset.input, completed(base_rows(dataset), dataset.inputs)
    return (
        x.min(axis=0) if spec.low is None else spec.low,
        x.max(axis=0) if spec.high is None else spec.high,
    )


# ---- Tables ---------------------------------------------------------------------------------------------------------


def _table_sets(dataset: Dataset) -> Iterator[RowSet]:
    base = completed(base_rows(dataset), dataset.inputs)
    few = base[:N_EXTREME_ROWS]
    numbers = [spec for spec in dataset.inputs if spec.datatype == "FP32"]
    texts = [spec for spec in dataset.inputs if spec.datatype == "BYTES" and spec.categories]
    yield from _batches("extremes", [row for spec in numbers for row in _extremes(few, spec, base[spec.name])])
    yield from _batches("categories", [_filled(few, spec, value) for spec in texts for value in spec.categories or ()])
    generator = np.random.default_rng(0)
    mixed = base[generator.integers(len(base), size=N_NOISE_ROWS)]
    for spec in dataset.inputs:  # each column of its own row: combinations that no real row has
        mixed[spec.name] = base[spec.name][generator.integers(len(base), size=len(mixed))]
    yield from _batches("mixed", [mixed])


def _extremes(rows: Rows, spec: InputSpec, seen: NDArray[np.float32]) -> Iterator[Rows]:
    """The least and the highest, and the middle between them."""
    low = seen.min() if spec.low is None else spec.low
    high = seen.max() if spec.high is None else spec.high
    for value in (low, high, (low + high) / 2):
        yield _filled(rows, spec, np.float32(value))


def _filled(rows: Rows, spec: InputSpec, value: Any) -> Rows:
    """These rows with one value in this column."""
    filled = rows.copy()
    filled[spec.name] = value
    return filled


# ---- Rows, whatever they are ----------------------------------------------------------------------------------------


def completed(rows: Rows, inputs: Sequence[InputSpec]) -> Rows:
    """These rows with what is missing filled in: the median of what is there, or the text that is there first."""
    if rows.dtype.names is None:
        return np.where(np.isnan(rows), np.float32(0), rows) if np.isnan(rows).any() else rows
    filled = rows.copy()
    for spec in inputs:
        column, missing = filled[spec.name], is_missing(rows[spec.name])
        if missing.any():
            there = column[~missing]
            if spec.datatype == "FP32":
                column[missing] = np.median(there) if there.size else np.float32(spec.low or 0)
            else:
                column[missing] = there[0] if there.size else (spec.categories or ["text"])[0]
    return filled


def is_missing(values: NDArray[Any]) -> NDArray[np.bool_]:
    return np.asarray(values == "", dtype=np.bool_) if values.dtype == object else np.isnan(values)


def _number_features(inputs: Sequence[InputSpec]) -> NDArray[np.int64]:
    """Places in a flat row, or columns of a table, that hold numbers."""
    if len(inputs) == 1 and inputs[0].datatype == "FP32":
        return np.arange(np.prod(inputs[0].shape), dtype=np.int64)
    return np.array([index for index, spec in enumerate(inputs) if spec.datatype == "FP32"], dtype=np.int64)


def _values(rows: Rows, features: NDArray[np.int64]) -> NDArray[np.float32]:
    """One number of each row, `(n,)`: that of its feature."""
    if rows.dtype.names is None:
        return np.asarray(rows.reshape(len(rows), -1)[np.arange(len(rows)), features])
    values = np.empty(len(rows), dtype=np.float32)
    for feature in np.unique(features):
        mask = features == feature
        values[mask] = rows[rows.dtype.names[feature]][mask, 0]
    return values


def _with_values(rows: Rows, features: NDArray[np.int64], values: NDArray[np.float32]) -> Rows:
    """The rows with one number of each another, `(n,)`: that of its feature."""
    changed = rows.copy()
    if changed.dtype.names is None:
        changed.reshape(len(changed), -1)[np.arange(len(changed)), features] = values
        return changed
    for feature in np.unique(features):
        mask = features == feature
        column = changed[changed.dtype.names[feature]]
        column[mask, 0] = values[mask]
    return changed


def _moved(rows: Rows, inputs: Sequence[InputSpec], offset: np.float32) -> Rows:
    """All numbers with an offset."""
    if rows.dtype.names is None:
        return rows + offset
    moved = rows.copy()
    for spec in inputs:
        if spec.datatype == "FP32":
            moved[spec.name] += offset
    return moved


def jittered(rows: Rows, inputs: Sequence[InputSpec], generator: np.random.Generator, size: float) -> Rows:
    """All numbers moved by `size` of themselves, up or down by chance."""

    def move(values: NDArray[np.float32]) -> NDArray[np.float32]:
        signs = generator.choice(np.array([-size, size]), size=values.shape)
        return np.asarray(values * (1 + signs), dtype=np.float32)

    if rows.dtype.names is None:
        return move(rows)
    moved = rows.copy()
    for spec in inputs:
        if spec.datatype == "FP32":
            moved[spec.name] = move(moved[spec.name])
    return moved


def _batches(name: str, parts: Iterable[Rows], *, inside: bool = True) -> Iterator[RowSet]:
    first = 0
    for part in parts:
        for start in range(0, len(part), BATCH):
            batch = part[start : start + BATCH]
            yield RowSet(name, batch, first, inside)
            first += len(batch)
