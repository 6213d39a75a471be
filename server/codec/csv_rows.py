"""Rows as CSV: RFC 4180 in UTF-8. A table's first line names its columns; a tensor has no such line."""

import csv
import io
import math
from collections.abc import Iterable, Iterator, Sequence

import jiter
import numpy as np
from numpy.typing import NDArray

from server.codec.messages import listed, named, shown
from server.codec.numbers import FLOAT32_LIMIT, NUMBER, check_domain, check_finite
from server.codec.tables import TEXT_LIMIT, column
from server.errors import InvalidInput, TooLarge
from server.manifest import InputSpec
from server.rows import Rows, join_tensors

FIELD_LIMIT = 2 * TEXT_LIMIT + 3
"""Characters of a field of the longest text: every one of them a quote that is doubled, in quotes."""

_LETTERS_OF_NUMBERS = b"0123456789+-.eE,"


def decode_csv_table(body: bytes, inputs: Sequence[InputSpec], *, max_rows: int) -> Rows:
    """A table's rows `(n,)`; the columns may stand in any order, and an empty field is a missing value.

    A number is written as in JSON. Raises InvalidInput, which names line and column, and TooLarge.
    """
    lines = _read(body, width=len(inputs))
    _, header = next(lines, (1, []))
    _check_header(header, inputs)
    records = []
    for line, record in _take(lines, max_rows):
        if len(record) != len(header):
            raise InvalidInput(f"line {line}: expected {len(header)} fields; got {len(record)}")
        records.append((line, record))
    tensors = {}
    for spec in inputs:
        index = header.index(spec.name)
        if spec.shape != [1]:
            raise InvalidInput(f"column {named(spec.name)}: expected JSON: it holds more than a number a row; got CSV")
        fields = [record[index] for _, record in records]
        values: Sequence[object] = fields if spec.datatype == "BYTES" else [_value(field) for field in fields]
        _check_present(fields, spec, records)
        tensors[spec.name] = column(values, spec, lambda row: f"line {records[row][0]}")
    return join_tensors(tensors, inputs)


def decode_csv_tensor(body: bytes, spec: InputSpec, *, max_rows: int) -> NDArray[np.float32]:
    """`(n, *spec.shape)`: a line is a row, its numbers flat; there is no header line.

    Raises InvalidInput, which names the line, and TooLarge.
    """
    size = int(np.prod(spec.shape))
    numbers: list[int] = []
    rows: list[NDArray[np.float32]] = []
    for line, record in _take(_read(body, width=size), max_rows):
        if len(record) != size:
            raise InvalidInput(f"line {line}: expected {size} numbers; got {len(record)} fields")
        numbers.append(line)
        rows.append(_parse_numbers(record, spec, line))
    stacked = np.stack(rows)
    check_finite(stacked, spec, lambda row: f"line {numbers[row]}")
    check_domain(stacked, spec, lambda row: f"line {numbers[row]}")
    return stacked.reshape(-1, *spec.shape)


def _read(body: bytes, *, width: int) -> Iterator[tuple[int, list[str]]]:
    """Records of about `width` fields, each with the number of its last line. Raises InvalidInput."""
    try:
        body.decode()
    except UnicodeDecodeError as exc:
        raise InvalidInput(f"body: expected CSV in UTF-8; byte {exc.start} is none") from exc
    text = io.TextIOWrapper(io.BytesIO(body), "utf-8-sig", newline="")  # StringIO would take four bytes a character
    reader = csv.reader(_bounded(text, width * FIELD_LIMIT), strict=True)
    try:
        for record in reader:
            yield reader.line_num, record
    except csv.Error as exc:
        raise InvalidInput(f"line {reader.line_num}: expected CSV; {exc}") from exc


def _bounded(text: Iterable[str], limit: int) -> Iterator[str]:
    """The lines; one that is too long is refused before it becomes a million strings."""
    for number, line in enumerate(text, 1):
        if len(line) > limit:
            raise InvalidInput(f"line {number}: expected at most {limit} characters; got {len(line)}")
        yield line


def _take(lines: Iterator[tuple[int, list[str]]], max_rows: int) -> Iterator[tuple[int, list[str]]]:
    """Raises TooLarge for more than `max_rows`, InvalidInput for none."""
    count = 0
    for count, line in enumerate(lines, 1):
        if count > max_rows:
            raise TooLarge(f"body: expected at most {max_rows} rows; got more")
        yield line
    if not count:
        raise InvalidInput("body: expected at least one row; got none")


def _check_header(header: Sequence[str], inputs: Sequence[InputSpec]) -> None:
    names = [spec.name for spec in inputs]
    known, given = set(names), set(header)
    if strangers := [name for name in header if name not in known]:
        raise InvalidInput(f"line 1: expected the columns {listed(names, strangers[0])}; got {named(strangers[0])}")
    if len(given) < len(header):
        twice = next(name for name in names if header.count(name) > 1)
        raise InvalidInput(f"line 1: expected each column once; got {named(twice)} twice")
    if absent := [name for name in names if name not in given]:
        raise InvalidInput(f"line 1: expected the columns {listed(names)}; got none named {named(absent[0])}")


def _check_present(fields: Sequence[str], spec: InputSpec, records: Sequence[tuple[int, list[str]]]) -> None:
    if not spec.missing and spec.datatype == "FP32" and "" in fields:
        line, _ = records[fields.index("")]
        raise InvalidInput(f"line {line}: expected a value for column {named(spec.name)}; got none")


def _value(field: str) -> float | str | None:
    """A field of a column of numbers; what is no number stays text, to be refused as such."""
    if not field:
        return None
    return float(field) if NUMBER.fullmatch(field) else field


def _parse_numbers(record: list[str], spec: InputSpec, line: int) -> NDArray[np.float32]:
    """One row `(size,)`; an empty field is NaN where values may be missing."""
    text = ",".join(record).encode()
    if not text.translate(None, _LETTERS_OF_NUMBERS):
        try:  # the usual case, told without a loop in Python: such letters are JSON only if they make numbers
            values = jiter.from_json(b"[" + text + b"]")
            if len(values) == len(record):  # else there were commas inside quotes
                return _float32(values)
        except ValueError:
            pass
    values = [_value(field) for field in record]
    for index, value in enumerate(values):
        if isinstance(value, str) or (value is None and not spec.missing):
            hint = " There is no header line." if line == 1 else ""
            raise InvalidInput(
                f"line {line}: expected a number as field {index + 1}; got {shown(record[index])}.{hint}"
            )
    return _float32(values)


def _float32(values: Sequence[float | None]) -> NDArray[np.float32]:
    """What is beyond float32 becomes infinite, to be refused as such."""
    with np.errstate(over="ignore"):
        try:
            return np.array(values, dtype=np.float32)
        except OverflowError:  # an integer that not even float64 holds
            return np.array([_clipped(value) for value in values], dtype=np.float32)


def _clipped(value: float | None) -> float | None:
    return value if value is None or abs(value) < FLOAT32_LIMIT else math.inf if value > 0 else -math.inf
