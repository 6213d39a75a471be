"""Messages of ModelInfer to what `server.oip` asks with, and its answers to messages.

A request holds its tensors as bytes, in `raw_input_contents`, or as typed lists, in each one's `contents`; one of the
two for all of them. An answer holds them as the request did, unless its parameter `binary_data_output` says otherwise.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from server.codec.bodies import MAX_ID_LENGTH
from server.codec.messages import named, shown
from server.errors import InvalidInput
from server.oip.infer import InferRequest, InferResponse
from server.oip.models import Model
from server.oip.parameters import (
    BINARY_DATA_OUTPUT,
    Scalar,
    check_input_parameters,
    parse_parameters,
    parse_wanted,
)
from server.oip.tensors import ELEMENTS, Datatype, Tensor, check_datatype, check_shape, from_list, from_raw, to_raw
from server.rpc.inference_pb2 import ModelInferRequest, ModelInferResponse

CONTENTS: Mapping[Datatype, str] = {
    "BOOL": "bool_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
"""The field that a datatype's values stand in; FP16 has none, and comes as bytes."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, and how it is to be answered."""

    request: InferRequest
    raw: bool
    """Whether the answer's tensors are bytes."""


def read_request(message: ModelInferRequest, model: Model) -> Asked:
    """Raises InvalidInput, which says what was expected, what came and where; Unsupported for shared memory."""
    if len(message.id) > MAX_ID_LENGTH:
        raise InvalidInput(f"id: expected at most {MAX_ID_LENGTH} characters; got {len(message.id)}")
    parameters = scalars(message.parameters)
    raw = parameters.get(BINARY_DATA_OUTPUT, not any(entry.HasField("contents") for entry in message.inputs))
    if not isinstance(raw, bool):
        raise InvalidInput(f"parameters: {BINARY_DATA_OUTPUT}: expected true or false; got {shown(raw)}")
    request = InferRequest(
        model=model,
        inputs=_read_inputs(message),
        outputs=[parse_wanted(output.name, scalars(output.parameters)) for output in message.outputs],
        options=parse_parameters(parameters),
        id=message.id,
    )
    return Asked(request, raw)


def write_response(response: InferResponse, *, raw: bool) -> ModelInferResponse:
    message = ModelInferResponse(
        model_name=response.model.name, model_version=response.model.version, id=response.id or ""
    )
    for name, value in response.parameters.items():
        _set_parameter(message.parameters[name], value)
    for tensor in response.outputs:
        output = message.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        if raw:
            message.raw_output_contents.append(to_raw(tensor))
        else:
            getattr(output.contents, CONTENTS[tensor.datatype]).extend(_values(tensor))
    return message


def scalars(parameters: Mapping[str, Any]) -> dict[str, Scalar]:
    """Those that a request has. Raises InvalidInput for one without a value."""
    read: dict[str, Scalar] = {}
    for name, parameter in parameters.items():
        field = parameter.WhichOneof("parameter_choice")
        if field is None:
            raise InvalidInput(f"parameters: {named(name)}: expected a value; got none")
        read[name] = getattr(parameter, field)
    return read


def _set_parameter(parameter: Any, value: Scalar) -> None:
    """Of the answer: these are all the kinds that it has."""
    if isinstance(value, bool):
        parameter.bool_param = value
    else:
        parameter.string_param = str(value)


def _read_inputs(message: ModelInferRequest) -> list[Tensor]:
    raws = message.raw_input_contents
    if raws and len(raws) != len(message.inputs):
        raise InvalidInput(
            f"raw_input_contents: expected one for each of {len(message.inputs)} inputs; got {len(raws)}"
        )
    tensors = []
    for place, entry in enumerate(message.inputs):
        datatype, shape = check_datatype(entry.name, entry.datatype), check_shape(entry.name, list(entry.shape))
        check_input_parameters(entry.name, scalars(entry.parameters))
        if not raws:
            tensors.append(_from_contents(entry, datatype, shape))
        elif entry.HasField("contents"):
            raise InvalidInput(f"input {named(entry.name)}: contents: expected none beside raw_input_contents")
        else:
            tensors.append(from_raw(entry.name, datatype, shape, raws[place]))
    return tensors


def _from_contents(entry: Any, datatype: Datatype, shape: tuple[int, ...]) -> Tensor:
    name, field = entry.name, CONTENTS.get(datatype)
    if field is None:
        raise InvalidInput(f"input {named(name)}: {datatype}: expected raw_input_contents; got none")
    for other, values in entry.contents.ListFields():
        if other.name != field:
            raise InvalidInput(f"input {named(name)}: {datatype}: expected {field}; got {len(values)} {other.name}")
    values, element = getattr(entry.contents, field), ELEMENTS[datatype]
    if element.kind != "f":
        return from_list(name, datatype, shape, list(values))
    if len(values) != math.prod(shape):
        raise InvalidInput(
            f"input {named(name)}: {field}: expected {math.prod(shape)} values, as {list(shape)}; got {len(values)}"
        )
    return Tensor(name, datatype, np.fromiter(values, element, count=len(values)).reshape(shape))


def _values(tensor: Tensor) -> list[Any]:
    values: list[Any] = tensor.values.ravel().tolist()
    if tensor.datatype != "BYTES":
        return values
    return [value.encode() if isinstance(value, str) else value for value in values]
