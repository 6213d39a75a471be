"""Rows and labels from an `.npz` file, as `np.savez` writes it: `x (n, …)` of numbers, `y (n,)` of numbers or text."""

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

from export.errors import InvalidData
from export.samples import Samples, index_labels, number_name
from server.manifest import InputSpec

X_NAMES = ("x", "X")
Y_NAMES = ("y", "labels", "target")
CLASSES = "classes"


def read_arrays(path: Path, target: str | None) -> Samples:
    """Rows `(n, *shape)` float32 from array `x` or `X`; labels from `target`, else from `y`, `labels` or `target`.

    An array `classes (n_classes,)` may give the classes' names in the order of the models' columns; labels are then
    names among them, or integers that count from 0. Bytes (uint8) are pixels, of low 0 and high 255. Never reads a
    pickle. Raises InvalidData.
    """
    with open_arrays(path) as arrays:
        x = array_of(path, arrays, X_NAMES)
        y = array_of(path, arrays, Y_NAMES if target is None else (target,))
        classes = array_of(path, arrays, (CLASSES,)) if CLASSES in arrays else None
    where = f"{path}: the labels"
    rows = to_rows(path, x)
    if y.shape != (len(rows),):
        raise InvalidData(f"{where}: expected shape ({len(rows)},), a label for each row of x; got {y.shape}")
    names = _names(y, where)
    indices, found = (
        index_labels(names) if classes is None else _indices(names, _names(classes, f"{path}: classes"), where)
    )
    return Samples([spec_of(x)], rows, indices, found, where)


@contextmanager
def open_arrays(path: Path) -> Iterator[NpzFile]:
    """The arrays of an `.npz`; no pickle is read. Raises InvalidData, also over what is read of them inside."""
    try:
        with path.open("rb") as file:
            if not zipfile.is_zipfile(file):
                raise InvalidData(f"{path}: expected the .npz of np.savez, got what is no zip archive")
            file.seek(0)
            with np.load(file, allow_pickle=False) as arrays:
                yield arrays
    except OSError as exc:
        raise InvalidData(f"{path}: cannot be read: {exc.strerror or exc}") from exc
    except (ValueError, EOFError, zipfile.BadZipFile) as exc:
        raise InvalidData(f"{path}: expected the .npz of np.savez, got: {exc}") from exc


def array_of(path: Path, arrays: NpzFile, names: tuple[str, ...]) -> NDArray[Any]:
    """The one of these names. Raises InvalidData."""
    found = [name for name in names if name in arrays]
    if len(found) != 1:
        raise InvalidData(f"{path}: expected one array named {' or '.join(names)}, got {', '.join(arrays) or 'none'}")
    try:
        return np.asarray(arrays[found[0]])
    except ValueError as exc:  # of Python objects, which only a pickle holds, and a pickle can run whatever it likes
        raise InvalidData(f"{path}: array {found[0]!r}: expected numbers or text, got: {exc}") from exc


def to_rows(path: Path, x: NDArray[Any]) -> NDArray[np.float32]:
    """`(n, …)` of any numbers as float32. Raises InvalidData."""
    where = f"{path}: x"
    if x.dtype.kind not in "biuf":
        raise InvalidData(f"{where}: expected numbers, got {x.dtype}; text belongs in a .csv")
    if x.ndim < 2 or 0 in x.shape:
        raise InvalidData(f"{where}: expected shape (n, …), a row a sample, none empty; got {x.shape}")
    with np.errstate(over="ignore"):
        rows = x.astype(np.float32)
    if np.isinf(rows).any():
        place = tuple(map(int, np.argwhere(np.isinf(rows))[0]))
        raise InvalidData(f"{where}: expected numbers that float32 holds, got {x[place]} at {list(place)}")
    return rows


def spec_of(x: NDArray[Any]) -> InputSpec:
    """The input that such rows are of; bytes are pixels."""
    pixels = x.dtype == np.uint8
    return InputSpec(
        name="image" if pixels and x.ndim > 2 else "x",
        shape=list(x.shape[1:]),
        low=0.0 if pixels else None,
        high=255.0 if pixels else None,
        missing=x.dtype.kind == "f" and bool(np.isnan(x).any()),
    )


def _names(labels: NDArray[Any], where: str) -> list[str]:
    """Labels as text; numbers as `1` and `0.5`."""
    if (
        labels.dtype.kind not in "biufU"
        or labels.ndim != 1
        or (labels.dtype.kind == "f" and not np.isfinite(labels).all())
    ):
        raise InvalidData(f"{where}: expected one dimension of numbers or text, got {labels.dtype} {labels.shape}")
    values = labels.tolist()
    return [number_name(value) if isinstance(value, float) else str(value) for value in values]


def _indices(labels: list[str], classes: list[str], where: str) -> tuple[NDArray[np.int64], list[str]]:
    """Indices `(n,)` into the classes that the file names."""
    if len(set(classes)) != len(classes):
        raise InvalidData(f"{where}: expected each class once in {CLASSES}, got {classes}")
    known = {name: place for place, name in enumerate(classes)}
    if not known.keys() >= set(labels):
        known = {str(place): place for place in range(len(classes))}
    if strange := sorted(set(labels) - known.keys()):
        raise InvalidData(f"{where}: expected names among {CLASSES}, or 0 to {len(classes) - 1}; got {strange[0]!r}")
    return np.array([known[label] for label in labels], dtype=np.int64), classes
