"""Bodies of requests and answers over HTTP: JSON, and behind it, with the binary extension, the bytes of tensors.

The JSON, and its length where bytes follow it, are bounded by the transport; nothing is allocated for what they claim.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from server.codec.bodies import MAX_ID_LENGTH, parse_object
from server.codec.fast_json import read_tensor
from server.codec.messages import listed, named, shown
from server.errors import InvalidInput
from server.oip.infer import InferRequest, InferResponse
from server.oip.models import Model
from server.oip.parameters import (
    BINARY_DATA,
    BINARY_DATA_OUTPUT,
    BINARY_DATA_SIZE,
    Wanted,
    check_input_parameters,
    parse_wanted,
)
from server.oip.tensors import ELEMENTS, Tensor, check_datatype, check_shape, from_list, from_raw, to_list, to_raw

FIELDS = ("id", "parameters", "inputs", "outputs", "model_name", "model_version")
"""Of a request; KServe's client names the model in it, too."""
INPUT_FIELDS = ("name", "shape", "datatype", "parameters", "data")
OUTPUT_FIELDS = ("name", "parameters")
LONGEST_NAME = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class InferBody:
    request: InferRequest
    binary: bool = False
    """Whether outputs come back as bytes, if it is not said of them."""
    binary_outputs: Mapping[str, bool]
    """By name, those of which it is said."""


def read_infer(body: bytes, model: Model, *, json_length: int | None, query: Sequence[tuple[str, str]]) -> InferBody:
    """Read a request to this model; `json_length` is that of the JSON, if bytes follow it; 0: there are only bytes.

    Raises InvalidInput, which says what was expected, what came and where; Unsupported for shared memory.
    """
    if json_length == 0:
        tensor = _read_raw(body, model)
        return InferBody(
            request=InferRequest(model=model, inputs=[tensor], query=query), binary=True, binary_outputs={}
        )
    if json_length is None and (read := read_tensor(body)) is not None:
        values, fields = read
        tensors = _read_plain(values, fields["inputs"][0])
        if tensors is not None:
            return _read_request(fields, tensors, model, query)
    if json_length is not None and json_length > len(body):
        raise InvalidInput(
            f"Inference-Header-Content-Length: expected at most the body's {len(body)} bytes; got {json_length}"
        )
    fields = parse_object(body if json_length is None else body[:json_length])
    tail = None if json_length is None else memoryview(body)[json_length:]
    return _read_request(fields, _read_inputs(fields, tail), model, query)


def write_infer(response: InferResponse, asked: InferBody) -> tuple[bytes, int | None]:
    """The body of an answer, and, if bytes follow its JSON, how long that is."""
    outputs: list[dict[str, Any]] = []
    tails: list[bytes] = []
    for tensor in response.outputs:
        output: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape}
        if asked.binary_outputs.get(tensor.name, asked.binary):
            tail = to_raw(tensor)
            output["parameters"] = {BINARY_DATA_SIZE: len(tail)}
            tails.append(tail)
        elif tensor.datatype == "BYTES":
            output["data"] = to_list(tensor)
        else:
            output["data"] = np.ascontiguousarray(tensor.values).reshape(-1)  # orjson writes NaN as null
        outputs.append(output)
    answer: dict[str, Any] = {"model_name": response.model.name, "model_version": response.model.version}
    if response.id is not None:
        answer["id"] = response.id
    if response.parameters:
        answer["parameters"] = response.parameters
    head = orjson.dumps({**answer, "outputs": outputs}, option=orjson.OPT_SERIALIZE_NUMPY)
    return (b"".join([head, *tails]), len(head)) if tails else (head, None)


# ---- A request ------------------------------------------------------------------------------------------------------


def _read_raw(body: bytes, model: Model) -> Tensor:
    """The one input of the model, as the metadata have it: its rows, or one text."""
    specs = model.ensemble.manifest.inputs
    if len(specs) > 1:
        raise InvalidInput(
            f"Inference-Header-Content-Length: expected the length of JSON that names the {len(specs)} inputs; got 0"
        )
    [spec] = specs
    if spec.datatype == "BYTES":
        array = np.empty((1, 1), dtype=object)
        array[0, 0] = body
        return Tensor(spec.name, spec.datatype, array)
    row_bytes = math.prod(spec.shape) * ELEMENTS[spec.datatype].itemsize
    if not body or len(body) % row_bytes:
        raise InvalidInput(f"body: expected rows of {row_bytes} bytes of {spec.datatype}; got {len(body)} bytes")
    return from_raw(spec.name, spec.datatype, (len(body) // row_bytes, *spec.shape), body)


def _read_plain(values: Any, fields: Mapping[str, Any]) -> list[Tensor] | None:
    """Of numbers that have been read already; None if they are not plainly of the datatype."""
    name, datatype = fields.get("name"), fields.get("datatype")
    if not fields.keys() <= {"name", "shape", "datatype"} or not isinstance(name, str):
        return None
    small = values.dtype == np.uint8
    if datatype == "FP32" or datatype == "FP64" or (small and datatype in _HOLD_BYTES):
        return [Tensor(name, datatype, values)]
    return None


_HOLD_BYTES = frozenset({"UINT8", "UINT16", "UINT32", "UINT64", "INT16", "INT32", "INT64", "FP16"})
"""Datatypes that hold the integers from 0 to 255."""


def _read_request(
    fields: Mapping[str, Any], tensors: Sequence[Tensor], model: Model, query: Sequence[tuple[str, str]]
) -> InferBody:
    _check_fields(fields, FIELDS, "body")
    for name in ("model_name", "model_version"):
        if not isinstance(fields.get(name, ""), str | None):
            raise InvalidInput(f"{name}: expected a string; got {shown(fields[name])}")
    id_ = fields.get("id")
    if id_ is not None and (not isinstance(id_, str) or len(id_) > MAX_ID_LENGTH):
        raise InvalidInput(f"id: expected a string of at most {MAX_ID_LENGTH} characters; got {shown(id_)}")
    parameters = _object(fields, "parameters", "parameters")
    binary = _flag(parameters, BINARY_DATA_OUTPUT, "parameters")
    wanted, binary_outputs = _read_outputs(fields.get("outputs"))
    request = InferRequest(model=model, inputs=tensors, outputs=wanted, parameters=parameters, query=query, id=id_)
    return InferBody(request=request, binary=bool(binary), binary_outputs=binary_outputs)


def _read_inputs(fields: Mapping[str, Any], tail: memoryview | None) -> list[Tensor]:
    """The tensors; `tail` is what follows the JSON."""
    tensors = []
    place = 0
    for index, entry in enumerate(_array(fields, "inputs")):
        name = _name(entry, f"inputs[{index}]", INPUT_FIELDS)
        datatype = check_datatype(name, entry.get("datatype"))
        shape = check_shape(name, entry.get("shape"))
        parameters = _object(entry, "parameters", f"input {named(name)}: parameters")
        check_input_parameters(name, parameters)
        if BINARY_DATA_SIZE not in parameters:
            if "data" not in entry:
                raise InvalidInput(f"input {named(name)}: expected data; got none")
            tensors.append(from_list(name, datatype, shape, entry["data"]))
            continue
        size = _check_size(name, parameters[BINARY_DATA_SIZE], entry, tail, place)
        assert tail is not None
        tensors.append(from_raw(name, datatype, shape, tail[place : place + size]))
        place += size
    if tail is not None and place < len(tail):
        raise InvalidInput(f"body: expected {place} bytes behind the JSON, as the inputs say; got {len(tail)}")
    return tensors


def _check_size(name: str, size: object, entry: Mapping[str, Any], tail: memoryview | None, place: int) -> int:
    where = f"input {named(name)}: {BINARY_DATA_SIZE}"
    if "data" in entry:
        raise InvalidInput(f"{where}: expected none beside data; got both")
    if tail is None:
        raise InvalidInput(f"{where}: expected the header Inference-Header-Content-Length too; got none")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise InvalidInput(f"{where}: expected a number of bytes; got {shown(size)}")
    if size > len(tail) - place:
        raise InvalidInput(f"{where}: expected at most the {len(tail) - place} bytes that are left; got {size}")
    return size


def _read_outputs(entries: object) -> tuple[list[Wanted], dict[str, bool]]:
    """Those asked for, and of which it is said whether they are to come as bytes."""
    wanted: list[Wanted] = []
    binary: dict[str, bool] = {}
    for index, entry in enumerate(_array({"outputs": entries or []}, "outputs")):
        name = _name(entry, f"outputs[{index}]", OUTPUT_FIELDS)
        parameters = _object(entry, "parameters", f"output {named(name)}: parameters")
        wanted.append(parse_wanted(name, parameters))
        flag = _flag(parameters, BINARY_DATA, f"output {named(name)}: parameters")
        if flag is not None:
            binary[name] = flag
    return wanted, binary


# ---- JSON -----------------------------------------------------------------------------------------------------------


def _check_fields(fields: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    for name in fields:
        if name not in known:
            raise InvalidInput(f"{where}: expected no fields but {listed(known, name)}; got {named(name)}")


def _array(fields: Mapping[str, Any], name: str) -> list[Any]:
    value = fields.get(name)
    if not isinstance(value, list):
        raise InvalidInput(f"{name}: expected an array; got {'none' if value is None else shown(value)}")
    return value


def _object(fields: Mapping[str, Any], name: str, where: str) -> Mapping[str, Any]:
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


def _name(entry: object, where: str, known: Sequence[str]) -> str:
    if not isinstance(entry, dict):
        raise InvalidInput(f"{where}: expected an object; got {shown(entry)}")
    _check_fields(entry, known, where)
    name = entry.get("name")
    if not isinstance(name, str) or len(name) > LONGEST_NAME:
        raise InvalidInput(f"{where}: name: expected a string; got {'none' if name is None else shown(name)}")
    return name
