"""What stands around every call: its request id, its metrics, and a status for whatever is raised."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from grpc import StatusCode
from grpc.aio import ServicerContext

from server import telemetry, tracing
from server.errors import CommitteeError, InternalError, Unavailable
from server.faults import message_of, message_of_unforeseen
from server.rpc.errors import status_of

REQUEST_ID = "x-request-id"
RETRY = "grpc-retry-pushback-ms"
"""Clients that try again by themselves wait so long, in milliseconds."""

Method = Callable[[bytes, Any], Awaitable[bytes]]
"""Of one call: from the bytes of its message to those of its answer, with gRPC's context. Raises CommitteeError."""


@dataclass(frozen=True, slots=True)
class _Refusal:
    status: StatusCode
    code: str
    message: str
    metadata: tuple[tuple[str, str], ...] = ()


def observed(name: str, method: Method) -> Method:
    """The method of this name, counted, and with an end in a status of gRPC."""

    async def call(request: bytes, context: ServicerContext[bytes, bytes]) -> bytes:
        began = time.perf_counter()
        status = StatusCode.CANCELLED
        id_ = telemetry.choose_request_id(_metadata(context, REQUEST_ID))
        token = telemetry.request_id.set(id_)
        trace = tracing.begin(name, partial(_metadata, context), began)
        traced = () if trace is None else ((tracing.TRACEPARENT, trace.traceparent),)
        context.set_trailing_metadata(((REQUEST_ID, id_), *traced))
        try:
            outcome = await _outcome(method, request, context)
            if isinstance(outcome, bytes):
                status = StatusCode.OK
                return outcome
            status = outcome.status
            request = b""  # gRPC keeps the error of an abort, and by it this frame, until garbage is collected
            await _abort(context, outcome)
        finally:
            telemetry.request_id.reset(token)
            telemetry.count_call(method=name, status=status.name, seconds=time.perf_counter() - began)
            if trace is not None:
                said = {"rpc.system": "grpc", "rpc.method": name, "rpc.grpc.status_code": status.value[0]}
                tracing.end(trace, said, failed=status is not StatusCode.OK)
        raise AssertionError("an aborted call goes on")

    return call


async def _outcome(method: Method, request: bytes, context: ServicerContext[bytes, bytes]) -> bytes | _Refusal:
    """The answer, or why there is none; of a call that is cancelled, by its client or its deadline, neither."""
    try:
        return await method(request, context)
    except CommitteeError as exc:
        return _Refusal(status_of(type(exc)), exc.code, message_of(exc), _retry_after(exc))
    except Exception as exc:
        return _Refusal(StatusCode.INTERNAL, InternalError.code, message_of_unforeseen(exc))


async def _abort(context: ServicerContext[bytes, bytes], refusal: _Refusal) -> None:
    telemetry.count_error(refusal.code)
    await context.abort(refusal.status, refusal.message, (*context.trailing_metadata(), *refusal.metadata))


def _retry_after(exc: CommitteeError) -> tuple[tuple[str, str], ...]:
    return ((RETRY, str(exc.retry_after * 1000)),) if isinstance(exc, Unavailable) else ()


def _metadata(context: ServicerContext[bytes, bytes], name: str) -> str | None:
    values = [value for key, value in context.invocation_metadata() or () if key == name]
    return values[0] if values and isinstance(values[0], str) else None
