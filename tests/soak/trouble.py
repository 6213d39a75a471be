"""What happens to the server meanwhile: versions are loaded and unloaded, workers rolled, and workers killed."""

import asyncio
import json
import os
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from itertools import cycle
from random import Random
from time import monotonic

from bench.serving import Serving

SIGNALS = (signal.SIGKILL, signal.SIGSEGV, signal.SIGKILL, signal.SIGABRT)
KILLED_SECONDS = 2.0
"""For so long after a kill connections end that had been to that worker."""
REPLACED_SECONDS = 60.0
CHANGES = (
    ("load", "changing", "2"),
    ("unload", "fashion-fast", ""),
    ("load", "changing", "1,2"),
    ("load", "fashion-fast", ""),
    ("unload", "changing", ""),
    ("load", "changing", "1"),
)
MEANT = frozenset({200, 409, 503})
"""A change beside another one is a conflict; one that a worker does not follow, as it has been killed, is given up."""


class Trouble:
    """`words` counts what was done; `events` are told as they happen; `failures` lists what should not have been."""

    def __init__(self, server: Serving, key: str, random: Random) -> None:
        self._server, self._key, self._random = server, key, random
        self._workers = len(server.ready())
        self.words: Counter[str] = Counter()
        self.failures: list[str] = []
        self.tell: Callable[[str], None] = lambda event: None
        self.killed: set[int] = set()
        """Process ids."""
        self._killed_at = -KILLED_SECONDS
        self._changes = cycle(CHANGES)
        self._kinds: Iterator[Callable[[], Awaitable[None]]] = cycle((self._kill, self._roll))
        self._signals = cycle(SIGNALS)

    @property
    def has_killed(self) -> bool:
        """Just now."""
        return monotonic() - self._killed_at < KILLED_SECONDS

    async def change(self) -> None:
        """The next load or unload."""
        action, name, versions = next(self._changes)
        path = f"/v2/repository/models/{name}/{action}"
        body = {"parameters": {"versions": versions}} if versions else {}
        try:
            status = await self._post(path, json.dumps(body).encode())
        except (OSError, EOFError):
            status = 0
        if status not in MEANT and not (status == 0 and self.has_killed):
            self.failures.append(f"{action} {name} {versions}: {status}")
        self.words[f"{action}ed" if status == 200 else f"{action} {status}"] += 1
        self.tell(f"{action} {name} {versions}".strip())

    async def disturb(self) -> None:
        """The next kill of a worker, or reload of all."""
        await next(self._kinds)()

    async def _kill(self) -> None:
        sign = next(self._signals)
        victim = self._random.choice(sorted(self._server.workers() & self._server.ready()))
        before = self._server.ready()
        self._killed_at = monotonic()
        self.killed.add(victim)
        os.kill(victim, sign)
        self.words[f"killed by {sign.name}"] += 1
        self.tell(f"{sign.name} {victim}")
        await self._until(lambda: len(self._server.ready() - before) >= 1, f"{victim} was not replaced")

    async def _roll(self) -> None:
        before = self._server.ready()
        self._server.process.send_signal(signal.SIGHUP)
        self.words["rolled"] += 1
        self.tell("SIGHUP")
        await self._until(
            lambda: len(self._server.ready() - before) >= self._workers and not self._server.workers() & before,
            "the workers were not rolled",
        )

    async def _until(self, condition: Callable[[], bool], otherwise: str) -> None:
        end = monotonic() + REPLACED_SECONDS
        while not condition():
            if monotonic() > end:
                self.failures.append(otherwise)
                return
            await asyncio.sleep(0.1)

    async def _post(self, path: str, body: bytes) -> int:
        """The status. Raises OSError, EOFError."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._server.port)
        head = (
            f"POST {path} HTTP/1.1\r\nHost: x\r\nX-Api-Key: {self._key}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        try:
            writer.write(head.encode() + body)
            answer = await reader.read()
            if not answer:
                raise EOFError
            return int(answer[9:12])
        finally:
            writer.close()
