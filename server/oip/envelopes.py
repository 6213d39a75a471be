"""The JSON of a request over HTTP, but for large data: what it asks for, and of which tensors.

Clients say the same over and over, so what has been read of short ones is remembered.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from server.bounds import Bounds
from server.codec.bodies import BOUNDS, MAX_ID_LENGTH
from server.codec.json_text import parse_object
from server.codec.messages import listed, named, shown
from server.codec.options import RequestOptions
from server.errors import InvalidInput
from server.oip.parameters import (
    BINARY_DATA,
    BINARY_DATA_OUTPUT,
    BINARY_DATA_SIZE,
    Wanted,
    check_input_parameters,
    parse_wanted,
    split_parameters,
)
from server.oip.tensors import Datatype, check_datatype, check_shape

FIELDS = ("id", "parameters", "inputs", "outputs", "model_name", "model_version")
"""Of a request; KServe's client names the model in it, too."""
INPUT_FIELDS = ("name", "shape", "datatype", "parameters", "data")
OUTPUT_FIELDS = ("name", "parameters")
LONGEST_NAME = 1024
SHORT = 2048
"""Bytes of what is remembered."""


@dataclass(frozen=True, slots=True)
class InputHead:
    """An input but for its values; of `size` and `data` it has one."""

    name: str
    datatype: Datatype
    shape: tuple[int, ...]
    size: int | None
    """Bytes behind the JSON."""
    data: object


@dataclass(frozen=True, slots=True)
class Envelope:
    inputs: Sequence[InputHead]
    outputs: Sequence[Wanted]
    options: RequestOptions
    timeout: float | None
    """In milliseconds."""
    id: str | None
    binary: bool
    """Whether outputs come back as bytes, if it is not said of them."""
    binary_outputs: Mapping[str, bool]
    """By name, those of which it is said."""


def read_envelope(text: bytes, bounds: Bounds = BOUNDS) -> Envelope:
    """Raises InvalidInput, which says what was expected, what came and where; Unsupported for shared memory."""
    return _remembered(text, bounds) if len(text) <= SHORT else _read(text, bounds)


def _read(text: bytes, bounds: Bounds) -> Envelope:
    fields = parse_object(text, bounds)
    _check_fields(fields, FIELDS, "body")
    for name in ("model_name", "model_version"):
        if not isinstance(fields.get(name), str | None):
            raise InvalidInput(f"{name}: expected a string; got {shown(fields[name])}")
    id_ = fields.get("id")
    if id_ is not None and (not isinstance(id_, str) or len(id_) > MAX_ID_LENGTH):
        raise InvalidInput(f"id: expected a string of at most {MAX_ID_LENGTH} characters; got {shown(id_)}")
    parameters = _object(fields, "parameters", "parameters")
    options, timeout = split_parameters(parameters)
    wanted, binary_outputs = _read_outputs(fields.get("outputs"))
    return Envelope(
        inputs=[_read_input(entry, index) for index, entry in enumerate(_array(fields.get("inputs"), "inputs"))],
        outputs=wanted,
        options=options,
        timeout=timeout,
        id=id_,
        binary=bool(_flag(parameters, BINARY_DATA_OUTPUT, "parameters")),
        binary_outputs=binary_outputs,
    )


_remembered = lru_cache(maxsize=128)(_read)


def _read_input(entry: object, index: int) -> InputHead:
    fields, name = _named_object(entry, f"inputs[{index}]", INPUT_FIELDS)
    datatype = check_datatype(name, fields.get("datatype"))
    shape = check_shape(name, fields.get("shape"))
    parameters = _object(fields, "parameters", f"input {named(name)}: parameters")
    check_input_parameters(name, parameters)
    size = parameters.get(BINARY_DATA_SIZE)
    if size is None and "data" not in fields:
        raise InvalidInput(f"input {named(name)}: expected data; got none")
    if size is not None and "data" in fields:
        raise InvalidInput(f"input {named(name)}: {BINARY_DATA_SIZE}: expected none beside data; got both")
    if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 0):
        raise InvalidInput(f"input {named(name)}: {BINARY_DATA_SIZE}: expected a number of bytes; got {shown(size)}")
    return InputHead(name, datatype, shape, size, fields.get("data"))


def _read_outputs(entries: object) -> tuple[list[Wanted], dict[str, bool]]:
    """Those asked for, and of which it is said whether they are to come as bytes."""
    wanted: list[Wanted] = []
    binary: dict[str, bool] = {}
    for index, entry in enumerate([] if entries is None else _array(entries, "outputs")):
        fields, name = _named_object(entry, f"outputs[{index}]", OUTPUT_FIELDS)
        parameters = _object(fields, "parameters", f"output {named(name)}: parameters")
        wanted.append(parse_wanted(name, parameters))
        flag = _flag(parameters, BINARY_DATA, f"output {named(name)}: parameters")
        if flag is not None:
            binary[name] = flag
    return wanted, binary


def _check_fields(fields: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    for name in fields:
        if name not in known:
            raise InvalidInput(f"{where}: expected no fields but {listed(known, name)}; got {named(name)}")


def _array(value: object, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise InvalidInput(f"{where}: expected an array; got {'none' if value is None else shown(value)}")
    return value


def _object(fields: Mapping[str, Any], name: str, where: str) -> Mapping[str, Any]:
    """That of this name, or an empty one."""
    value = fields.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidInput(f"{where}: expected an object; got {shown(value)}")
    return value


def _flag(parameters: Mapping[str, Any], name: str, where: str) -> bool | None:
    value = parameters.get(name)
    if value is not None and not isinstance(value, bool):
        raise InvalidInput(f"{where}: {name}: expected true or false; got {shown(value)}")
    return value


def _named_object(entry: object, where: str, known: Sequence[str]) -> tuple[Mapping[str, Any], str]:
    if not isinstance(entry, dict):
        raise InvalidInput(f"{where}: expected an object; got {shown(entry)}")
    _check_fields(entry, known, where)
    name = entry.get("name")
    if not isinstance(name, str) or len(name) > LONGEST_NAME:
        raise InvalidInput(f"{where}: name: expected a string; got {'none' if name is None else shown(name)}")
    return entry, name
