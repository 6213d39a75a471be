"""Somebody's own data as test rows of an ensemble that is there already: not split, and held to what it says it reads.

Files and folders are those of `export.own.data`. Labels are names among the ensemble's classes or, if they are none,
integers that count them from 0. Of a regression `y` is numbers: an array `(n,)` or `(n, n_targets)` of an `.npz`, or
columns of a `.csv`.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.errors import InvalidData, Mismatch
from export.evaluating.inputs import fit_inputs
from export.own.arrays import X_NAMES, Y_NAMES, array_of, open_arrays, read_arrays, spec_of, to_rows
from export.own.images import read_images
from export.own.table import read_table
from export.samples import Samples
from server.manifest import InputSpec, Manifest
from server.rows import Rows

SHOWN = 10
"""Names of classes in a message."""


@dataclass(frozen=True, slots=True)
class OwnRows:
    """Rows as a file or folder has them, and what is true of them.

    `y` are `(n,)` int64, indices into `classes`; of a regression, which has no classes, `(n, n_targets)` float64.
    `where` says what `y` was, for messages.
    """

    path: Path
    inputs: list[InputSpec]
    x: Rows
    y: NDArray[Any]
    classes: list[str]
    where: str


@dataclass(frozen=True, slots=True)
class FittedRows:
    """Rows as an ensemble reads them, and `y` in the order of its classes, or of its targets."""

    x: Rows
    y: NDArray[Any]
    notes: list[str]


def read_own_rows(path: Path, manifest: Manifest, *, target: str | None = None) -> OwnRows:
    """All rows of a `.csv`, an `.npz` or a folder of pictures. `target` names the column or array of the labels.

    Of a regression with several targets it names their columns, with commas between; by default columns named as the
    ensemble's targets are taken. Raises InvalidData, in one line: what was expected, what came, where.
    """
    if manifest.task == "regression":
        return _read_values(path, manifest, target)
    samples = _read_labelled(path, target)
    if not len(samples.y):
        raise InvalidData(f"{samples.where}: expected at least one row, got none")
    return OwnRows(path, samples.inputs, samples.x, samples.y, samples.classes, samples.where)


def fit_rows(own: OwnRows, manifest: Manifest, *, where: str) -> FittedRows:
    """As this ensemble reads them; `where` names it, for messages. Raises Mismatch."""
    x, notes = fit_inputs(own.inputs, own.x, manifest.inputs, data=str(own.path), where=where)
    y = own.y if manifest.task == "regression" else _indices(own, manifest.classes, where)
    return FittedRows(x, y, notes)


def _read_labelled(path: Path, target: str | None) -> Samples:
    if path.is_dir():
        if target is not None:
            raise InvalidData(
                f"{path}: expected no target for a folder, whose subfolders are the classes; got {target!r}"
            )
        return read_images(path)
    match path.suffix.lower():
        case ".csv":
            return read_table(path, target)
        case ".npz":
            return read_arrays(path, target)
    raise InvalidData(f"{path}: expected a .csv, an .npz, or a folder with a subfolder of pictures a class")


def _indices(own: OwnRows, classes: Sequence[str], where: str) -> NDArray[np.int64]:
    """`(n,)` into the ensemble's classes."""
    present = [own.classes[index] for index in np.unique(own.y)]
    places = {name: place for place, name in enumerate(classes)}
    if not places.keys() >= set(present):
        places = {str(place): place for place in range(len(classes))}
    if not places.keys() >= set(present):
        known = ", ".join(classes[:SHOWN]) + (" …" if len(classes) > SHOWN else "")
        strange = [name for name in present if name not in classes]
        first = next((name for name in strange if name not in places), strange[0])
        raise Mismatch(f"{own.where}: expected classes of {where} ({known}), or 0 to {len(classes) - 1}; got {first!r}")
    index = np.array([places.get(name, 0) for name in own.classes], dtype=np.int64)
    return np.asarray(index[own.y])


# ---- Regression -----------------------------------------------------------------------------------------------------


def _read_values(path: Path, manifest: Manifest, target: str | None) -> OwnRows:
    match path.suffix.lower():
        case ".csv":
            return _read_columns(path, manifest.targets, target)
        case ".npz":
            return _read_numbers(path, manifest.targets, target)
    raise InvalidData(f"{path}: expected a .csv or an .npz, for the ensemble predicts numbers; got something else")


def _read_columns(path: Path, targets: Sequence[str], target: str | None) -> OwnRows:
    """A column a target; of one target that is not named, whichever `read_table` takes."""
    names: list[str | None] = [*(target.split(",") if target is not None else targets)]
    if len(names) != len(targets):
        raise InvalidData(
            f"{path}: expected {len(targets)} columns as target, for {', '.join(targets)}; got {target!r}"
        )
    if target is None and len(targets) == 1 and targets[0] not in _header(path):
        names = [None]
    read = [read_table(path, name) for name in names]
    taken = {name for name in names if name is not None}
    inputs = [spec for spec in read[0].inputs if spec.name not in taken]
    return OwnRows(path, inputs, read[0].x, np.column_stack([_values(samples) for samples in read]), [], read[0].where)


def _header(path: Path) -> list[str]:
    """The names in the first line; none of a file that cannot be read, of which `read_table` says more."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return next(csv.reader(file), [])
    except (OSError, UnicodeDecodeError, csv.Error):
        return []


def _values(samples: Samples) -> NDArray[np.float64]:
    """`(n,)`: the numbers that its labels are."""
    try:
        return np.asarray(np.array([float(name) for name in samples.classes])[samples.y])
    except ValueError as exc:
        strange = str(exc).rpartition(": ")[2]
        raise InvalidData(f"{samples.where}: expected numbers, got {strange}") from exc


def _read_numbers(path: Path, targets: Sequence[str], target: str | None) -> OwnRows:
    with open_arrays(path) as arrays:
        x = array_of(path, arrays, X_NAMES)
        y = array_of(path, arrays, Y_NAMES if target is None else (target,))
    rows = to_rows(path, x)
    where = f"{path}: the targets"
    shape = (len(rows), len(targets))
    if y.shape != shape and not (len(targets) == 1 and y.shape == shape[:1]):
        wanted = f"{shape[:1]} or {shape}" if len(targets) == 1 else str(shape)
        raise InvalidData(f"{where}: expected shape {wanted}, {', '.join(targets)} of each row of x; got {y.shape}")
    if y.dtype.kind not in "biuf" or not np.isfinite(y).all():
        raise InvalidData(f"{where}: expected finite numbers, got {_strange(y)}")
    return OwnRows(path, [spec_of(x)], rows, y.reshape(shape).astype(np.float64), [], where)


def _strange(y: NDArray[Any]) -> str:
    if y.dtype.kind not in "biuf":
        return str(y.dtype)
    place = tuple(map(int, np.argwhere(~np.isfinite(y))[0]))
    return f"{y[place]} at {list(place)}"
