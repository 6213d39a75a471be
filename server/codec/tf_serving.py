"""Bodies in TensorFlow Serving's form: rows as `instances`, or a tensor an input as `inputs`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from server.bounds import Bounds
from server.codec.bodies import BOUNDS
from server.codec.fast_json import read_numbers
from server.codec.json_text import check_weight, parse_object
from server.codec.messages import listed, named, shown
from server.codec.tables import decode_objects
from server.codec.tensors import decode_tensor
from server.errors import InvalidInput, TooLarge
from server.manifest import InputSpec
from server.rows import Rows, is_table

FIELDS = ("signature_name", "instances", "inputs")


@dataclass(frozen=True, slots=True)
class TfBody:
    rows: Rows
    columnar: bool
    """Whether the tensors came as `inputs`; then the answer goes out as `outputs`."""


def read_tf(body: bytes, inputs: Sequence[InputSpec], *, max_rows: int, bounds: Bounds = BOUNDS) -> TfBody:
    """Rows of an ensemble with these inputs. Raises InvalidInput and TooLarge.

    Of one input a row is as in any JSON. Of a table a row is an object, or each column an array; where a column holds
    one value a row, it may stand alone or in an array of its own.
    """
    check_weight(body, bounds)
    if not is_table(inputs) and (read := read_numbers(body, inputs[0], max_rows=max_rows)) is not None:
        rows, fields = read
        if not fields or (fields.keys() == {"signature_name"} and isinstance(fields["signature_name"], str)):
            return TfBody(rows, columnar=False)
    fields = parse_object(body, bounds)
    _check(fields)
    columnar = "inputs" in fields
    key = "inputs" if columnar else "instances"
    instances = _turned(fields[key], inputs) if isinstance(fields[key], dict) and columnar else fields[key]
    if not isinstance(instances, list) or not instances:
        raise InvalidInput(f"{key}: expected an array of at least one row; got {shown(instances)}")
    if len(instances) > max_rows:
        raise TooLarge(f"{key}: expected at most {max_rows} rows; got {len(instances)}")
    place = f"{key}[{{}}]".format
    if is_table(inputs):
        return TfBody(decode_objects([_object(row, inputs) for row in instances], inputs, place), columnar)
    [spec] = inputs
    return TfBody(decode_tensor([_plain(row, spec) for row in instances], spec, place), columnar)


def write_tf(answers: NDArray[np.float32], asked: TfBody) -> bytes:
    """The answers `(n, n_outputs)`: an array a row."""
    key = "outputs" if asked.columnar else "predictions"
    return orjson.dumps({key: np.ascontiguousarray(answers)}, option=orjson.OPT_SERIALIZE_NUMPY)


def _check(fields: Mapping[str, Any]) -> None:
    for name in fields:
        if name not in FIELDS:
            raise InvalidInput(f"body: expected no fields but {', '.join(FIELDS)}; got {named(name)}")
    if not isinstance(fields.get("signature_name", ""), str):
        raise InvalidInput(f"signature_name: expected a string; got {shown(fields['signature_name'])}")
    if ("instances" in fields) == ("inputs" in fields):
        raise InvalidInput(f"body: expected instances or inputs; got {'both' if 'inputs' in fields else 'neither'}")


def _turned(columns: Mapping[str, Any], inputs: Sequence[InputSpec]) -> list[dict[str, Any]]:
    """Rows from an array for each input. Raises InvalidInput."""
    known = [spec.name for spec in inputs]
    for name, column in columns.items():
        if name not in known:
            raise InvalidInput(f"inputs: expected none but {listed(known, name)}; got {named(name)}")
        if not isinstance(column, list):
            raise InvalidInput(f"inputs: {named(name)}: expected an array of rows; got {shown(column)}")
    lengths = {len(column) for column in columns.values()}
    if len(lengths) > 1:
        raise InvalidInput(f"inputs: expected as many rows of each; got {', '.join(map(str, sorted(lengths)))}")
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _plain(row: object, spec: InputSpec) -> object:
    """A row of the one input, which may be named in it."""
    return row[spec.name] if isinstance(row, dict) and row.keys() == {spec.name} else row


def _object(row: object, inputs: Sequence[InputSpec]) -> object:
    """A row of a table: of one input its value may stand without its name, and a single value in an array."""
    if not isinstance(row, dict):
        if len(inputs) > 1:
            return row
        row = {inputs[0].name: row}
    single = {spec.name for spec in inputs if spec.shape == [1]}
    return {
        name: value[0] if name in single and isinstance(value, list) and len(value) == 1 else value
        for name, value in row.items()
    }
