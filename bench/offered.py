"""HTTP load that does not wait for answers: requests are sent when they are due, over as many connections as it takes.

What is sent late, because this process or the server was late, counts as having waited since it was due.
"""

import asyncio
import re
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)
RETRY_AFTER = re.compile(rb"\r\nretry-after: \d+\r\n", re.IGNORECASE)
LAST_SECONDS = 10.0
"""How long answers are waited for once everything was sent."""


@dataclass(frozen=True, slots=True)
class Answer:
    request: int
    """Which of them."""
    due: float
    """Seconds since the beginning."""
    seconds: float
    """From then to the end of the answer."""
    status: int
    """0: the connection was closed without one."""
    head: bytes
    """Its first line and headers."""
    body: bytes

    @property
    def says_when(self) -> bool:
        """Whether it has a Retry-After."""
        return RETRY_AFTER.search(self.head) is not None


@dataclass(slots=True)
class _Sent:
    request: int
    due: float


class _Connection(asyncio.Protocol):
    def __init__(self, pool: "Pool") -> None:
        self._pool = pool
        self._data = b""
        self._transport: asyncio.Transport | None = None
        self.sent: _Sent | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def send(self, data: bytes, sent: _Sent) -> None:
        assert self._transport is not None
        self.sent = sent
        self._transport.write(data)

    def data_received(self, data: bytes) -> None:
        data = self._data = self._data + data if self._data else data
        end = data.find(b"\r\n\r\n")
        if end < 0 or self.sent is None:
            return
        length = LENGTH.search(data, 0, end + 2)
        whole = end + 4 + (int(length[1]) if length else 0)
        if len(data) >= whole:
            self._data = b""
            sent, self.sent = self.sent, None
            self._pool.answered(sent, data[: end + 2], data[end + 4 : whole])
            if b"\r\nconnection: close" in data[:end].lower():
                self.close()
            else:
                self._pool.free(self)

    def connection_lost(self, exc: Exception | None) -> None:
        sent, self.sent = self.sent, None
        self._pool.gone(self, sent)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


class Pool:
    """Connections to a port of this machine, at most `limit`; those that wait for one wait in turn.

    `on_answer` hears of every request once: when it is answered, or its connection is gone.
    """

    def __init__(
        self, port: int, requests: Sequence[bytes], *, limit: int, on_answer: Callable[[Answer], None]
    ) -> None:
        self._port, self._requests, self._limit = port, requests, limit
        self._on_answer = on_answer
        self._loop = asyncio.get_running_loop()
        self._idle: deque[_Connection] = deque()
        self._waiting: deque[_Sent] = deque()
        self._all: set[_Connection] = set()
        self._opening: set[asyncio.Task[None]] = set()
        self.began = self._loop.time()
        self.in_flight = 0

    @property
    def now(self) -> float:
        """Seconds since the beginning."""
        return self._loop.time() - self.began

    async def open(self, count: int) -> None:
        """So many connections, before the beginning. Raises OSError."""
        for _ in range(count):
            await self._connect()
        self._idle.extend(self._all)
        self.began = self._loop.time()

    def send(self, request: int, due: float) -> None:
        """One of the requests, that is due so many seconds after the beginning."""
        self.in_flight += 1
        self._send(_Sent(request, due))

    def _send(self, sent: _Sent) -> None:
        if self._idle:
            self._idle.popleft().send(self._requests[sent.request], sent)
        elif len(self._all) + len(self._opening) < self._limit:
            task = self._loop.create_task(self._open(sent))
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)
        else:
            self._waiting.append(sent)

    async def _open(self, sent: _Sent) -> None:
        try:
            connection = await self._connect()
        except OSError:
            self.answered(sent, b"HTTP/1.1 000", b"")
            return
        connection.send(self._requests[sent.request], sent)

    async def _connect(self) -> _Connection:
        _, connection = await self._loop.create_connection(lambda: _Connection(self), "127.0.0.1", self._port)
        self._all.add(connection)
        return connection

    def free(self, connection: _Connection) -> None:
        if self._waiting:
            sent = self._waiting.popleft()
            connection.send(self._requests[sent.request], sent)
        else:
            self._idle.append(connection)

    def answered(self, sent: _Sent, head: bytes, body: bytes) -> None:
        self.in_flight -= 1
        self._on_answer(Answer(sent.request, sent.due, self.now - sent.due, int(head[9:12]), head, body))

    def gone(self, connection: _Connection, sent: _Sent | None) -> None:
        self._all.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if sent is not None:
            self.answered(sent, b"HTTP/1.1 000", b"")
        if self._waiting:
            self._send(self._waiting.popleft())

    async def close(self) -> int:
        """Once all is answered, or soon. Returns how many requests have no answer."""
        end = self._loop.time() + LAST_SECONDS
        while self.in_flight and self._loop.time() < end:
            await asyncio.sleep(0.01)
        unanswered = self.in_flight
        for connection in self._all:
            connection.close()
        while self._all:
            await asyncio.sleep(0.001)
        return unanswered


@dataclass(frozen=True, slots=True)
class Load:
    seconds: float
    """For which it was sent."""
    answers: list[Answer]
    unanswered: int

    def of(self, *statuses: int) -> list[Answer]:
        return [answer for answer in self.answers if answer.status in statuses]

    def p99(self, *statuses: int) -> float:
        """Seconds; NaN if there are none."""
        return percentile([answer.seconds for answer in self.of(*statuses)], 99)


def percentile(values: Sequence[float], which: float) -> float:
    return float(np.percentile(values, which)) if values else float("nan")


async def saturate(port: int, requests: Sequence[bytes], *, connections: int, seconds: float) -> Load:
    """Each connection sends its next request as soon as the last is answered."""
    answers: list[Answer] = []

    def go_on(answer: Answer) -> None:
        answers.append(answer)
        if pool.now < seconds:
            pool.send((answer.request + connections) % len(requests), pool.now)

    pool = Pool(port, requests, limit=connections, on_answer=go_on)
    for k in range(connections):
        pool.send(k % len(requests), 0.0)
    await asyncio.sleep(seconds)
    return Load(seconds, answers, await pool.close())


async def offer(
    port: int,
    requests: Sequence[bytes],
    *,
    rate: float,
    seconds: float,
    connections: int,
    ready: int = 0,
    seed: int = 0,
) -> Load:
    """So many a second, at random times, whatever becomes of them; over `ready` connections that are there before.

    They take turns: where there are only few, some workers of the server are asked more than others.
    """
    answers: list[Answer] = []
    pool = Pool(port, requests, limit=connections, on_answer=answers.append)
    await pool.open(ready)
    rng = np.random.default_rng(seed)
    gaps = rng.exponential(1 / rate, int(rate * seconds * 1.5) + 100)
    for k, due in enumerate(np.cumsum(gaps).tolist()):
        if due > seconds:
            break
        while (wait := due - pool.now) > 0:
            await asyncio.sleep(max(wait, 0.001))
        pool.send(k % len(requests), due)
        if k % 64 == 0:
            await asyncio.sleep(0)  # answers are read also if this is late
    return Load(seconds, answers, await pool.close())
