import asyncio
from typing import Any

import pytest
from grpc import StatusCode

from server import telemetry
from server.errors import NotReady
from server.rpc.observer import observed
from tests.server.test_telemetry import value


class Aborted(Exception):  # what gRPC raises is not to be caught either
    pass


class Context:
    """As much of gRPC's as a call without a connection needs."""

    def __init__(self) -> None:
        self.trailing: tuple[Any, ...] = ()
        self.status: tuple[StatusCode, str] | None = None

    def invocation_metadata(self) -> None:
        return None

    def set_trailing_metadata(self, metadata: Any) -> None:
        self.trailing = metadata

    def trailing_metadata(self) -> Any:
        return self.trailing

    async def abort(self, status: StatusCode, message: str, metadata: Any) -> None:
        self.status, self.trailing = (status, message), metadata
        raise Aborted


def call(method: Any) -> Context:
    context = Context()
    with pytest.raises((Aborted, asyncio.CancelledError)):
        asyncio.run(_run(method, context))
    telemetry.flush()
    assert telemetry.request_id.get() is None
    return context


async def _run(method: Any, context: Any) -> bytes:
    return await observed("Tried", method)(b"", context)


def counted(status: str) -> float:
    return value(f'committee_grpc_requests_total{{method="Tried",status="{status}"}}')


def test_what_nobody_foresaw_is_a_fault_of_ours(caplog: pytest.LogCaptureFixture) -> None:
    async def fail(*_: Any) -> bytes:
        raise ZeroDivisionError("/etc/secret")

    before = counted("INTERNAL")
    assert call(fail).status == (StatusCode.INTERNAL, "internal error; the server's log says more")
    assert counted("INTERNAL") == before + 1
    assert [record.getMessage() for record in caplog.records] == ["unexpected ZeroDivisionError"]


def test_when_to_try_again() -> None:
    async def refuse(*_: Any) -> bytes:
        raise NotReady("not yet", retry_after=2)

    context = call(refuse)
    assert context.status == (StatusCode.UNAVAILABLE, "not yet")
    assert [key for key, _ in context.trailing] == ["x-request-id", "grpc-retry-pushback-ms"]
    assert context.trailing[1][1] == "2000"


def test_a_call_that_is_cancelled_is_counted() -> None:
    async def cancelled(*_: Any) -> bytes:
        raise asyncio.CancelledError

    before = counted("CANCELLED")
    assert call(cancelled).status is None
    assert counted("CANCELLED") == before + 1
