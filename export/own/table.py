"""A table from a `.csv` file: a column is an input of numbers or of text, one column holds the labels.

The first line names the columns. A column is one of numbers if all its cells are numbers, but those that are empty or
say `NA`, `NaN` or `null`: their values are missing, NaN. Any other column is text, taken as it stands, and only its
empty cells are missing. The values that occur are the column's categories, unless so many do that it is free text.
"""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from export.errors import InvalidData
from export.samples import NUMBER, Samples, index_labels
from server.manifest import InputSpec
from server.rows import join_tensors
from server.toml import first_repeated

TARGETS = frozenset({"target", "label", "class", "y"})
"""Names, in whatever case, by which a column is known to hold the labels."""
NO_NUMBER = frozenset({"", "NA", "N/A", "NaN", "nan", "null", "NULL"})
"""What pandas and R write where a number is missing."""
MOST_CATEGORIES = 10_000
MOST_COLUMNS = 4096


@dataclass(frozen=True, slots=True)
class Lines:
    """A file's cells, a tuple a column, and the number of the line that each row ends on."""

    path: Path
    columns: dict[str, tuple[str, ...]]
    numbers: list[int]


def read_table(path: Path, target: str | None) -> Samples:
    """Rows of a table, `(n,)` structured as `server.rows` has them, and labels from the column `target`.

    Without `target` it is the column named target, label, class or y, else the last. Raises InvalidData.
    """
    lines = _read(path)
    name = _target(lines, target)
    where = f"{path}: column {name!r}, the labels"
    labels = lines.columns[name]
    for line, label in zip(lines.numbers, labels, strict=True):
        if not label.strip():
            raise InvalidData(f"{where}: expected a label in every row, got none in line {line}")
    features = {column: cells for column, cells in lines.columns.items() if column != name}
    inputs, tensors = [], {}
    for column, cells in features.items():
        spec, tensors[column] = _column(column, cells, lines)
        inputs.append(spec)
    y, classes = index_labels([label.strip() for label in labels])
    return Samples(inputs, join_tensors(tensors, inputs), y, classes, where)


def _read(path: Path) -> Lines:
    try:
        reader = csv.reader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline=""), strict=True)
    except OSError as exc:
        raise InvalidData(f"{path}: cannot be read: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise InvalidData(f"{path}: expected UTF-8, got byte {exc.object[exc.start]:#x} at {exc.start}") from exc
    try:
        header = next(reader, [])
        _check_header(path, header)
        rows = [(reader.line_num, row) for row in _rows(path, reader, header)]
    except csv.Error as exc:
        raise InvalidData(f"{path}: line {reader.line_num}: expected CSV, got: {exc}") from exc
    if not rows:
        raise InvalidData(f"{path}: expected rows below the line of names, got none")
    columns = dict(zip(header, zip(*(row for _, row in rows), strict=True), strict=True))
    return Lines(path, columns, [number for number, _ in rows])


def _check_header(path: Path, header: Sequence[str]) -> None:
    where = f"{path}: line 1"
    if not 2 <= len(header) <= MOST_COLUMNS:
        shown = ",".join(header)[:80]
        raise InvalidData(
            f"{where}: expected 2 to {MOST_COLUMNS} names with commas between, got {len(header)}: {shown!r}"
        )
    if "" in header:
        hint = "; pandas writes an index so, unless told to_csv(index=False)" if header[0] == "" else ""
        raise InvalidData(f"{where}: expected a name for each column, got none for number {header.index('') + 1}{hint}")
    if twice := first_repeated(header):
        raise InvalidData(f"{where}: expected each name once, got {twice!r} twice")


def _rows(path: Path, reader: Any, header: Sequence[str]) -> Iterator[list[str]]:
    """The rows that are not blank. Raises InvalidData at one with more or fewer cells than there are names."""
    for row in reader:
        if row and len(row) != len(header):
            raise InvalidData(f"{path}: line {reader.line_num}: expected {len(header)} cells, got {len(row)}")
        if row:
            yield row


def _target(lines: Lines, target: str | None) -> str:
    names = list(lines.columns)
    if target is not None:
        if target not in names:
            raise InvalidData(f"{lines.path}: expected a column {target!r} with the labels, got {_shown(names)}")
        return target
    known = [name for name in names if name.lower() in TARGETS]
    if len(known) > 1:
        raise InvalidData(f"{lines.path}: expected to be told which column holds the labels: {' or '.join(known)}")
    return known[0] if known else names[-1]


def _column(name: str, cells: Sequence[str], lines: Lines) -> tuple[InputSpec, NDArray[Any]]:
    """The input that a column is, and its values `(n, 1)`, float32 or str."""
    where = f"{lines.path}: column {name!r}"
    stripped = [cell.strip() for cell in cells]
    if not any(stripped):
        raise InvalidData(f"{where}: expected a value in some row, got none in any")
    if all(cell in NO_NUMBER or NUMBER.fullmatch(cell) for cell in stripped):
        values: NDArray[Any] = _numbers(stripped, lines.numbers, where)
        return _spec(where, name=name, shape=[1], missing=bool(np.isnan(values).any())), values
    texts = ["" if not plain else cell for cell, plain in zip(cells, stripped, strict=True)]
    values = np.array(texts, dtype=object)[:, None]
    spec = _spec(where, name=name, datatype="BYTES", shape=[1], missing="" in texts, categories=_categories(texts))
    return spec, values


def _numbers(cells: Sequence[str], numbers: Sequence[int], where: str) -> NDArray[np.float32]:
    exact = np.array([np.nan if cell in NO_NUMBER else float(cell) for cell in cells])
    with np.errstate(over="ignore"):
        values = exact.astype(np.float32)
    beyond = np.flatnonzero(np.isinf(values))
    if len(beyond):
        row = beyond[0]
        raise InvalidData(f"{where}: expected numbers that float32 holds, got {cells[row]} in line {numbers[row]}")
    return values[:, None]


def _categories(texts: Sequence[str]) -> list[str] | None:
    """The values that occur; None for free text, such as names: of that, most values occur once."""
    filled = [text for text in texts if text]
    distinct = sorted(set(filled))
    return distinct if len(distinct) <= min(MOST_CATEGORIES, len(filled) // 2) else None


def _spec(where: str, **fields: Any) -> InputSpec:
    try:
        return InputSpec(**fields)
    except ValidationError as exc:
        reason = exc.errors()[0]["msg"].removeprefix("Value error, ")
        raise InvalidData(f"{where}: cannot be the name of an input: {reason}") from exc


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
