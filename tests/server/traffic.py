"""Clients that ask for what they know the answer to, over connections that stay, and count what becomes of it."""

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests import tiny
from tests.server.processes import until

SECONDS = 30
"""How long a client waits for an answer."""
ROWS = tiny.rows(32, seed=5)
N_MEMBERS = 3
"""Of the version that has most."""


@dataclass(frozen=True, slots=True)
class Lost:
    """A request that was sent, and whose connection ended before the answer did."""

    at: float
    why: str
    fresh: bool
    """Whether it was the first of its connection."""
    n_bytes: int
    """Of the answer that came."""


@dataclass
class Count:
    """What became of the requests: each that was sent is counted under exactly one other name."""

    sent: int = 0
    right: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    """With 503 or 504, by code."""
    wrong: list[object] = field(default_factory=list)
    """Another status, or a 200 with another answer."""
    lost: list[Lost] = field(default_factory=list)
    unconnected: int = 0
    """Connections that were refused, on which nothing was sent."""
    degraded: int = 0
    """Of the right ones, those without all members."""
    by_version: Counter[int] = field(default_factory=Counter)
    longest: float = 0.0
    """Seconds that an answer took at most."""

    def figures(self) -> dict[str, int]:
        """For a report."""
        return {
            "sent": self.sent,
            "right": self.right,
            "refused": self.refused.total(),
            "wrong": len(self.wrong),
            "lost": len(self.lost),
            "unconnected": self.unconnected,
        }


class Traffic:
    """`clients` of them ask from the block's begin to its end; what is in flight then is waited for.

    Each rests for `pause` seconds between an answer and the next request. `options` stand behind the path's `?`;
    `n_members` says of a version how many members it has.
    """

    def __init__(
        self,
        port: int,
        *,
        clients: int = 8,
        pause: float = 0.01,
        options: str = "",
        n_members: Callable[[int], int] = lambda _: N_MEMBERS,
        ensemble: str | None = None,
        rows: NDArray[np.float32] = ROWS,
    ) -> None:
        self.count = Count()
        self._rows = rows
        self._port, self._clients, self._pause, self._n_members = port, clients, pause, n_members
        path = "/predict" if ensemble is None else f"/v1/ensembles/{ensemble}/predict"
        self._requests = [_request(path + options, row.tolist()) for row in rows]
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="traffic")

    def __enter__(self) -> Count:
        self._thread.start()
        return self.count

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    async def _run(self) -> None:
        await asyncio.gather(*(self._ask_on(number) for number in range(self._clients)))

    async def _ask_on(self, number: int) -> None:
        """One client: it connects again whenever its connection ends."""
        while not self._stopped.is_set():
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            except OSError:
                self.count.unconnected += 1
                await asyncio.sleep(0.01)
                continue
            try:
                fresh = True
                # Like any client, it does not ask on a connection that has been closed while it was idle.
                while (
                    not self._stopped.is_set()
                    and not reader.at_eof()
                    and await self._ask(reader, writer, number, fresh=fresh)
                ):
                    fresh, number = False, number + 1
                    await asyncio.sleep(self._pause)
            finally:
                writer.close()
                with suppress(OSError):
                    await writer.wait_closed()

    async def _ask(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int, *, fresh: bool
    ) -> bool:
        """Returns whether the connection stays."""
        self.count.sent += 1
        began, came = monotonic(), bytearray()
        try:
            writer.write(self._requests[number % len(self._requests)])
            status, stays, body = await asyncio.wait_for(_read(reader, came), SECONDS)
        except (OSError, EOFError, TimeoutError) as exc:
            self.count.lost.append(Lost(monotonic(), type(exc).__name__, fresh, len(came)))
            return False
        self.count.longest = max(self.count.longest, monotonic() - began)
        self._judge(status, json.loads(body), number % len(self._requests))
        return stays

    def _judge(self, status: int, answer: dict[str, Any], row: int) -> None:
        if status in (503, 504):
            self.count.refused[answer["code"]] += 1
        elif status == 200 and self._is_right(answer, row):
            self.count.right += 1
            self.count.degraded += answer["degraded"]
            self.count.by_version[answer["version"]] += 1
        else:
            self.count.wrong.append((status, answer))

    def _is_right(self, answer: dict[str, Any], row: int) -> bool:
        """Whether it is that of the version and the members which it names, in all its parts."""
        there = self._n_members(answer["version"])
        members = [int(name.removeprefix("m")) - 1 for name in answer["members"]]
        if len(members) + len(answer["missing"]) != there:
            return False
        expected = tiny.answers(self._rows[row : row + 1], N_MEMBERS)[members].mean(axis=0)[0]
        return bool(np.allclose(answer["predictions"][0]["probabilities"], expected, atol=1e-6))


def after(n: int, count: Count) -> None:
    """Returns once so many more have been answered."""
    before = count.right
    until(lambda: count.right >= before + n)


def _request(target: str, row: list[float]) -> bytes:
    body = json.dumps({"instances": [row]}).encode()
    head = f"POST {target} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def _read(reader: asyncio.StreamReader, came: bytearray) -> tuple[int, bool, bytes]:
    """An answer's status, whether the connection stays, and the body. Raises OSError, EOFError."""
    head = await _more(reader, came, b"\r\n\r\n")
    lines = head.decode("latin-1").lower().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines[1:] if line)
    body = b""
    while len(body) < int(headers["content-length"]):
        body += await _more(reader, came, None, int(headers["content-length"]) - len(body))
    return int(lines[0].split()[1]), headers.get("connection") != "close", body


async def _more(reader: asyncio.StreamReader, came: bytearray, end: bytes | None, n: int = 0) -> bytes:
    try:
        data = await reader.readuntil(end) if end else await reader.readexactly(n)
    except asyncio.IncompleteReadError as exc:
        came += exc.partial
        raise
    came += data
    return data
