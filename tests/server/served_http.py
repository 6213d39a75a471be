"""A uvicorn server in a thread, and raw sockets to it."""

import asyncio
import json
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import uvicorn
from fastapi import FastAPI

from server.protocol import FastLane

SECONDS = 30
"""How long to wait for what must happen; it takes well under one."""
BODY = b'{"instances":[[1,2,3,4]]}'
RESET = struct.pack("ii", 1, 0)
"""For SO_LINGER: whoever closes the connection resets it."""


class SlowRoad(FastLane):
    """The same bounds, and every request through FastAPI."""

    FAST = False


@dataclass
class Served:
    """`uvicorn`'s server, and where it listens."""

    server: uvicorn.Server
    port: int
    thread: threading.Thread

    @property
    def connections(self) -> set[Any]:
        return self.server.server_state.connections

    @property
    def tasks(self) -> set[asyncio.Task[None]]:
        return self.server.server_state.tasks

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=SECONDS)

    def send(self, data: bytes) -> bytes:
        """All that comes back on a connection until the server closes it."""
        with self.connect() as connection:
            connection.sendall(data)
            return read_all(connection)


@contextmanager
def served(app: FastAPI, http: type[FastLane] = FastLane, **options: Any) -> Iterator[Served]:
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    given: dict[str, Any] = {"ws": "none", "loop": "uvloop", "access_log": False, "server_header": False}
    config = uvicorn.Config(app, http=http, log_config=None, **{"lifespan": "on", **given, **options})
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    until(lambda: server.started or not thread.is_alive())
    try:
        yield Served(server, listener.getsockname()[1], thread)
    finally:
        server.should_exit = True
        thread.join(SECONDS)
        assert not thread.is_alive()


def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


def post(
    path: str = "/predict",
    body: bytes = BODY,
    headers: Mapping[str, str] | list[tuple[str, str]] | None = None,
    *,
    close: bool = False,
    version: str = "1.1",
) -> bytes:
    """A request as bytes; JSON with a Content-Length, unless the headers say otherwise."""
    given = list(headers.items()) if isinstance(headers, Mapping) else list(headers or ())
    names = {name.lower() for name, _ in given}
    if "host" not in names:
        given.insert(0, ("Host", "x"))
    if "content-type" not in names and headers is None:
        given.append(("Content-Type", "application/json"))
    if not names & {"content-length", "transfer-encoding"}:
        given.append(("Content-Length", str(len(body))))
    if close:
        given.append(("Connection", "close"))
    lines = [f"POST {path} HTTP/{version}", *(f"{name}: {value}" for name, value in given)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def get(path: str, *, method: str = "GET", close: bool = False) -> bytes:
    ending = "Connection: close\r\n\r\n" if close else "\r\n"
    return f"{method} {path} HTTP/1.1\r\nHost: x\r\n{ending}".encode()


@dataclass(frozen=True)
class Answer:
    status: int
    headers: tuple[tuple[str, str], ...]
    """All but the date, in their order."""
    body: bytes

    def header(self, name: str) -> str | None:
        return dict(self.headers).get(name)

    def json(self) -> Any:
        return json.loads(self.body)


def read_all(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(65536), b""))


class Reader:
    """Takes answers off a connection one by one."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._data = b""

    def answer(self, *, head: bool = False) -> Answer:
        """The next one; `head`: to a HEAD request, which has no body."""
        while b"\r\n\r\n" not in self._data:
            self._more()
        top, _, self._data = self._data.partition(b"\r\n\r\n")
        first, *lines = top.decode("latin-1").split("\r\n")
        headers = [(name, value) for name, _, value in (line.partition(": ") for line in lines)]
        match = re.fullmatch(r"HTTP/1\.1 (\d{3}) .*", first)
        assert match, first
        n = 0 if head else int(dict(headers).get("content-length", 0))
        while len(self._data) < n:
            self._more()
        body, self._data = self._data[:n], self._data[n:]
        return Answer(int(match[1]), tuple(pair for pair in headers if pair[0] != "date"), body)

    def end(self) -> None:
        """Nothing more comes."""
        assert self._data == b""
        assert self._connection.recv(65536) == b""

    def _more(self) -> None:
        data = self._connection.recv(65536)
        assert data, f"the connection was closed after {self._data!r}"
        self._data += data


def parse(data: bytes) -> list[Answer]:
    """All answers of a connection that has been closed."""
    answers = []
    while data:
        top, _, rest = data.partition(b"\r\n\r\n")
        first, *lines = top.decode("latin-1").split("\r\n")
        headers = [(name, value) for name, _, value in (line.partition(": ") for line in lines)]
        n = int(dict(headers).get("content-length", 0))
        answers.append(Answer(int(first.split(" ")[1]), tuple(p for p in headers if p[0] != "date"), rest[:n]))
        data = rest[n:]
    return answers
