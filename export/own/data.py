"""Somebody's own data, which their models have not seen: rows with labels, from a file or a folder.

| what | rows |
|---|---|
| `.csv` | a table: a named column an input, of numbers or of text |
| `.npz` | an array `x (n, …)` of numbers, and labels `y (n,)` |
| a folder | pictures, in a subfolder a class |
"""

from pathlib import Path

from export.datasets import Dataset
from export.errors import InvalidData
from export.own.arrays import read_arrays
from export.own.images import read_images
from export.own.table import read_table
from export.samples import part


def load_own_data(path: Path, *, target: str | None = None, seed: int = 0) -> Dataset:
    """Load rows and labels, split by `seed`: train is empty, validation has half, calibration a fifth, test the rest.

    `target` names the column of a `.csv`, or the array of an `.npz`, that holds the labels. Splits are stratified.
    Equal arrays and equal pictures share a split. Equal rows of a table need not: they are often different people with
    the same answers. Raises InvalidData, in one line: what was expected, what came, where.
    """
    if path.is_dir():
        if target is not None:
            raise InvalidData(
                f"{path}: expected no target for a folder, whose subfolders are the classes; got {target!r}"
            )
        return part(read_images(path), name=path.resolve().name, seed=seed, keep_together=True)
    match path.suffix.lower():
        case ".csv":
            return part(read_table(path, target), name=path.stem, seed=seed, keep_together=False)
        case ".npz":
            return part(read_arrays(path, target), name=path.stem, seed=seed, keep_together=True)
    raise InvalidData(f"{path}: expected a .csv, an .npz, or a folder with a subfolder of pictures a class")
