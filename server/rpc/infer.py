"""ModelInfer, from bytes to bytes."""

import asyncio
from concurrent.futures import Executor
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from google.protobuf.message import DecodeError, Message

from server import telemetry
from server.bounds import Bounds
from server.budget import Budget, Share
from server.codec.bodies import INLINE_BYTES
from server.codec.options import LONGEST_MS
from server.engine import Engine
from server.errors import DeadlineExceeded, InvalidInput
from server.oip.infer import infer as ask
from server.oip.models import find_model, parse_version
from server.oip.tensors import check_rows
from server.rpc.inference_pb2 import ModelInferRequest
from server.rpc.tensors import Asked, read_request, write_response

SPARE_SECONDS = 0.01
SPARE_SHARE = 0.1
"""Of the time to a call's deadline, what is left for its answer to get back: this share, but no more than that."""


@dataclass(frozen=True, slots=True)
class Inferring:
    """What requests are read by, and within what."""

    decoding: Executor
    bounds: Bounds
    budget: Budget


async def infer(data: bytes, engine: Engine, by: Inferring, *, seconds: float | None) -> bytes:
    """The answer, if there are so many seconds for it; None: as many as it takes. Raises CommitteeError."""
    share = Share(by.budget)
    try:
        engine.check_load()
        share.hold(len(data))
        return await _infer(data, engine, by, share, seconds=seconds)
    finally:
        share.give_back()


async def _infer(data: bytes, engine: Engine, by: Inferring, share: Share, *, seconds: float | None) -> bytes:
    loop = asyncio.get_running_loop()
    began, clock = loop.time(), perf_counter()
    at_most = _deadline_ms(seconds)
    if len(data) <= INLINE_BYTES:
        asked = _read(data, engine)
    else:
        asked = await loop.run_in_executor(by.decoding, _read, data, engine)
    telemetry.observe_part("decode", perf_counter() - clock, asked.request.model.ensemble.labels)
    inputs = asked.request.inputs
    check_rows(inputs, by.bounds.max_rows)
    share.hold(len(data) + sum(tensor.values.nbytes for tensor in inputs))
    response = await ask(engine, asked.request, at_most_ms=at_most, began=began)
    clock = perf_counter()
    answer: bytes = write_response(response, raw=asked.raw).SerializeToString()
    telemetry.observe_part("encode", perf_counter() - clock, asked.request.model.ensemble.labels)
    return answer


def parse(kind: Any, data: bytes) -> Any:
    """A message of this kind. Raises InvalidInput."""
    try:
        message: Message = kind.FromString(data)
    except DecodeError as exc:
        raise InvalidInput(f"message: expected {kind.DESCRIPTOR.full_name}; got other bytes") from exc
    return message


def _read(data: bytes, engine: Engine) -> Asked:
    message = parse(ModelInferRequest, data)
    return read_request(message, find_model(engine, message.model_name, parse_version(message.model_version)))


def _deadline_ms(seconds: float | None) -> float | None:
    if seconds is None:
        return None
    left = (seconds - min(SPARE_SECONDS, seconds * SPARE_SHARE)) * 1000
    if left <= 0:
        raise DeadlineExceeded("the deadline of the call is over")
    return min(left, LONGEST_MS)
