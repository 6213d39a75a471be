"""A client of an ASGI application in the same process, for tests that are not coroutines themselves."""

import asyncio
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self

import httpx
from fastapi import FastAPI


class Client:
    """Runs the application's lifespan while it is open."""

    def __init__(self, app: FastAPI) -> None:
        self.app = app
        self._runner = asyncio.Runner()
        self._stack = AsyncExitStack()

    def __enter__(self) -> Self:
        self._runner.run(self._open())
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._runner.run(self._stack.aclose())
        self._runner.close()

    async def _open(self) -> None:
        await self._stack.enter_async_context(self.app.router.lifespan_context(self.app))
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        self._http = await self._stack.enter_async_context(
            httpx.AsyncClient(transport=transport, base_url="http://committee.test")
        )

    def request(self, method: str, url: str, **options: Any) -> httpx.Response:
        return self._runner.run(self._http.request(method, url, **options))

    def together(self, *posts: tuple[str, dict[str, Any]]) -> list[httpx.Response]:
        """The answers to posts, each a path and a JSON body, that are sent at the same time."""

        async def send() -> list[httpx.Response]:
            return list(await asyncio.gather(*(self._http.post(path, json=body) for path, body in posts)))

        return self._runner.run(send())

    def pass_time(self, seconds: float) -> None:
        """Put the event loop's clock forward."""
        loop = self._runner.get_loop()
        now = loop.time
        loop.time = lambda: now() + seconds  # type: ignore[method-assign]

    def get(self, url: str, **options: Any) -> httpx.Response:
        return self.request("GET", url, **options)

    def post(self, url: str, **options: Any) -> httpx.Response:
        return self.request("POST", url, **options)
