"""Bytes on a connection, fed to the protocol in this process: no socket, so a second holds thousands of connections."""

import asyncio
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

from uvicorn.config import Config
from uvicorn.server import ServerState

from server.app import create_app
from server.protocol import FastLane
from server.settings import Settings
from tests import tiny
from tests.fuzz.answers import read_statuses
from tests.fuzz.targets import Target


class _Transport(asyncio.Transport):
    """Keeps what is written, and is closed at once."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.closed = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 1) if name in ("peername", "sockname") else default

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    abort = close

    def write_eof(self) -> None:
        self.closed = True

    def can_write_eof(self) -> bool:
        return True

    def pause_reading(self) -> None:
        return None

    resume_reading = pause_reading

    def get_write_buffer_size(self) -> int:
        return 0


class Requests(Target):
    """Every answer has to be one, and meant; afterwards nothing is held."""

    name = "requests"
    tokens = (
        *(
            b"Content-Length: 5\r\n",
            b"Transfer-Encoding: chunked\r\n",
            b"Host: x\r\n",
            b"GET / HTTP/1.1\r\n",
            b"\r\n\r\n",
        ),
        *(
            b"Transfer-Encoding:\x0bchunked\r\n",
            b"chunked, identity",
            b"Expect: 100-continue\r\n",
            b"Connection: close\r\n",
        ),
        *(
            b"0\r\n\r\n",
            b"5;x=y\r\n",
            b"ffffffffffffffff\r\n",
            b" HTTP/1.0\r\n",
            b"%2f",
            b"?strategy=",
            b"Upgrade: h2c\r\n",
        ),
        *(
            b"Content-Encoding: gzip\r\n",
            b"Accept: application/x-npy\r\n",
            b"X-Request-Id: \r\n",
            b"/v1/ensembles/tiny/predict",
        ),
    )

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory()
        root = Path(self._folder.name)
        tiny.write_ensemble(root, max_batch_size=8)
        self._app = create_app(Settings(models=root, default="tiny", log_level="critical"))
        self._app.state.ready = True
        self._config = Config(self._app, http=FastLane, ws="none", lifespan="off", log_config=None, access_log=False)
        self._config.load()
        self._server = ServerState()
        self._loop = asyncio.new_event_loop()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.run_until_complete(self._app.state.engine.close())
        self._app.state.decoding.shutdown()
        self._loop.close()
        self._folder.cleanup()

    def run(self, data: bytes) -> str:
        return self._loop.run_until_complete(self._run(data))

    async def _run(self, data: bytes) -> str:
        transport = _Transport()
        protocol = FastLane(self._config, self._server, {}, self._loop)
        protocol.connection_made(cast(asyncio.Transport, transport))
        third = len(data) // 3
        for piece in (data[:third], data[third : 2 * third], data[2 * third :]):
            if piece and not transport.closed:
                protocol.data_received(piece)
        await self._settle()
        statuses = read_statuses(bytes(transport.written))
        protocol.connection_lost(None)
        await self._settle()
        assert not self._server.connections
        assert self._app.state.budget.taken == 0
        return ",".join(map(str, statuses[:2])) or "waits"

    async def _settle(self) -> None:
        """Until all requests are answered, but for those whose bodies have not come."""
        for _ in range(3):
            await asyncio.sleep(0)
        if waiting := {task for task in self._server.tasks if not task.done()}:
            await asyncio.wait(waiting, timeout=0.01)
