"""Bodies of requests and answers over HTTP: JSON, and behind it, with the binary extension, the bytes of tensors.

Bodies are bounded by the transport; nothing is allocated for what they only claim.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from server.bounds import Bounds
from server.codec.bodies import BOUNDS
from server.codec.fast_json import cut_numbers, read_array
from server.codec.json_text import check_weight
from server.codec.messages import named
from server.codec.options import NO_OPTIONS, RequestOptions
from server.errors import InvalidInput
from server.oip.envelopes import Envelope, InputHead, read_envelope
from server.oip.infer import InferRequest, InferResponse
from server.oip.models import Model
from server.oip.parameters import BINARY_DATA_SIZE
from server.oip.tensors import ELEMENTS, Tensor, check_rows, from_list, from_raw, to_list, to_raw

_RAW = Envelope((), (), NO_OPTIONS, timeout=None, id=None, binary=True, binary_outputs={})
"""Of a body that is nothing but bytes: all outputs come back as bytes."""
_HOLD_BYTES = frozenset({"UINT8", "UINT16", "UINT32", "UINT64", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64"})
"""Datatypes that hold the integers from 0 to 255."""


@dataclass(slots=True)  # not frozen: that takes three times as long to make
class InferBody:
    envelope: Envelope
    tensors: Sequence[Tensor]

    def request(self, model: Model, options: RequestOptions) -> InferRequest:
        said = self.envelope
        return InferRequest(model=model, inputs=self.tensors, outputs=said.outputs, options=options, id=said.id)


def read_infer(body: bytes, model: Model, *, json_length: int | None, bounds: Bounds = BOUNDS) -> InferBody:
    """Read a request to this model; `json_length` is that of the JSON, if bytes follow it; 0: there are only bytes.

    Raises InvalidInput, which says what was expected, what came and where; Unsupported for shared memory.
    """
    if json_length == 0:
        return _checked(InferBody(_RAW, [_read_raw(body, model)]), bounds)
    if json_length is None:
        check_weight(body, bounds)
        return _checked(_read_fast(body, bounds) or _read_all(read_envelope(body, bounds), None), bounds)
    if json_length > len(body):
        raise InvalidInput(
            f"Inference-Header-Content-Length: expected at most the body's {len(body)} bytes; got {json_length}"
        )
    envelope = read_envelope(body[:json_length], bounds)
    return _checked(_read_all(envelope, memoryview(body)[json_length:]), bounds)


def _checked(body: InferBody, bounds: Bounds) -> InferBody:
    """Raises TooLarge."""
    check_rows(body.tensors, bounds.max_rows)
    return body


def write_infer(response: InferResponse, asked: Envelope) -> tuple[bytes, int | None]:
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
    answer["outputs"] = outputs
    head = orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)
    return (b"".join([head, *tails]), len(head)) if tails else (head, None)


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


def _read_fast(body: bytes, bounds: Bounds) -> InferBody | None:
    """Of JSON with one tensor of nothing but numbers; None if it holds more, or if anything is wrong."""
    cut = cut_numbers(body, b"data")
    if cut is None:
        return None
    rest, numbers = cut
    try:
        envelope = read_envelope(rest, bounds)
    except InvalidInput:
        return None
    if len(envelope.inputs) != 1 or envelope.inputs[0].data != []:
        return None
    [head] = envelope.inputs
    values = read_array(numbers, head.shape)
    if values is None or not _holds(head, values):
        return None
    return InferBody(envelope, [Tensor(head.name, head.datatype, values)])


def _holds(head: InputHead, values: NDArray[Any]) -> bool:
    """Whether the numbers, uint8 or float32, are plainly of the datatype: an infinite one was beyond float32."""
    if values.dtype == np.uint8:
        return head.datatype in _HOLD_BYTES
    return head.datatype in ("FP32", "FP64") and bool(np.isfinite(values).all())


def _read_all(envelope: Envelope, tail: memoryview | None) -> InferBody:
    """With the tensors; `tail` is what follows the JSON."""
    tensors = []
    place = 0
    for head in envelope.inputs:
        if head.size is None:
            tensors.append(from_list(head.name, head.datatype, head.shape, head.data))
            continue
        where = f"input {named(head.name)}: {BINARY_DATA_SIZE}"
        if tail is None:
            raise InvalidInput(f"{where}: expected the header Inference-Header-Content-Length too; got none")
        if head.size > len(tail) - place:
            raise InvalidInput(
                f"{where}: expected at most the {len(tail) - place} bytes that are left; got {head.size}"
            )
        tensors.append(from_raw(head.name, head.datatype, head.shape, tail[place : place + head.size]))
        place += head.size
    if tail is not None and place < len(tail):
        raise InvalidInput(f"body: expected {place} bytes behind the JSON, as the inputs say; got {len(tail)}")
    return InferBody(envelope, tensors)
