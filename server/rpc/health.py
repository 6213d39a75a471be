"""`grpc.health.v1`: whether the server can answer, as of now, and, to those who watch, when that changes."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from grpc_health.v1.health import aio
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

REFRESH_SECONDS = 1.0
"""How often those who watch are told of a change: circuits close by the clock, and nobody says so."""


class Health(aio.HealthServicer):  # type: ignore[misc]
    """Of the server as a whole, whose service is the empty one, and of `service`, which is all that it has."""

    def __init__(self, service: str, is_ready: Callable[[], bool]) -> None:
        super().__init__()
        self._services, self._is_ready = ("", service), is_ready
        self._refreshing: asyncio.Task[None] | None = None

    async def Check(self, request: HealthCheckRequest, context: Any) -> HealthCheckResponse:  # noqa: N802
        await self._refresh()
        return await super().Check(request, context)

    async def start(self) -> None:
        await self._refresh()
        self._refreshing = asyncio.create_task(self._refresh_for_ever())

    async def close(self) -> None:
        """From now on it is not serving."""
        if self._refreshing is not None:
            self._refreshing.cancel()
            with suppress(asyncio.CancelledError):
                await self._refreshing
        await self.enter_graceful_shutdown()

    async def _refresh(self) -> None:
        status = HealthCheckResponse.SERVING if self._is_ready() else HealthCheckResponse.NOT_SERVING
        for service in self._services:
            await self.set(service, status)

    async def _refresh_for_ever(self) -> None:
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            await self._refresh()
