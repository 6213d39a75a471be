"""Bad requests and hostile clients beside the good ones; nothing that they do may be answered by a fault."""

import asyncio
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from random import Random

from tests.fuzz.answers import read_statuses
from tests.fuzz.mutate import mutate
from tests.fuzz.requests import Requests
from tests.fuzz.sockets import make_seeds
from tests.server import test_hostile as kinds
from tests.server.served_http import RESET, get, post

AT_ONCE = 24
SECONDS = 30.0
"""Within which the server has answered, or closed."""
BIG = 256 << 10
BIG_SHARE = 0.02
"""Of the bad requests. They cost a worker as much as a hundred good ones."""
MAY_GO_UNHEARD = 64 << 10
"""Of a longer request the answer may be lost, as it comes before the request was read."""
BUSY = frozenset({503})
"""What anybody may be told."""


@dataclass(frozen=True, slots=True)
class Bad:
    name: str
    data: bytes
    statuses: frozenset[int]


def catalogue() -> list[Bad]:
    """What `tests/server/test_hostile.py` sends, with the statuses that each has to be answered by."""
    found: list[tuple[str, bytes, int]] = [(f"framing: {name}", data, 400) for name, data in kinds.FRAMING.items()]
    found += [(f"size: {name}", data, status) for name, (data, status) in kinds.SIZES.items()]
    found += [(f"JSON: {name}", kinds.ask(body), 400) for name, body in kinds.BAD_JSON.items()]
    found += [(f"query: {query[:20]}", kinds.ask(kinds.BODY, path=f"/predict?{query}"), 400) for query in kinds.QUERIES]
    found += [
        (f"gzip: {name}", kinds.ask(data, ("Content-Encoding", "gzip")), 400) for name, data in kinds.GZIPPED.items()
    ]
    found += [(f"npy: {name}", kinds.ask(data, type="application/x-npy"), 400) for name, data in kinds.NPY.items()]
    found += [
        (f"picture: {name}", kinds.ask(data, type=type_, path=kinds.PICTURES), status)
        for name, (data, type_, status) in kinds.BAD_PICTURES.items()
    ]
    found += [(f"CSV: {name}", kinds.ask(d, type="text/csv", path=path), 400) for name, (d, path) in kinds.CSV.items()]
    form = "multipart/form-data; boundary=b"
    found += [(f"form: {name}", kinds.ask(data, type=form), 400) for name, data in kinds.FORMS.items()]
    found += [
        (f"table: {name}", kinds.ask(kinds.instances(text), path=kinds.TABLE), 400)
        for name, text in kinds.TABLES.items()
    ]
    return [Bad(name, data, frozenset({status})) for name, data, status in found]


class Hostile:
    """Sends to a port; `words` counts what came of it, `unmeant` lists what should not have been."""

    def __init__(self, port: int, random: Random, *, patience: float) -> None:
        """`patience`: seconds that the server waits for clients."""
        self._port, self._random, self._patience = port, random, patience
        self.words: Counter[str] = Counter()
        self.unmeant: list[str] = []
        self.excused: Callable[[], bool] = lambda: False
        """Whether a worker has been killed just now: then connections end without an answer."""
        all_kinds = catalogue()
        self._small = [bad for bad in all_kinds if len(bad.data) <= BIG]
        self._big = [bad for bad in all_kinds if len(bad.data) > BIG]
        bodies = [post(seed.path.decode(), seed.body, [("Content-Type", seed.type.decode())]) for seed in make_seeds()]
        self._seeds: Sequence[bytes] = [*bodies, *(bad.data for bad in self._small)]
        self._room = asyncio.Semaphore(AT_ONCE)
        self._going: set[asyncio.Task[None]] = set()
        self._ways: list[tuple[Callable[[], Awaitable[None]], int]] = [
            (self._bad, 50), (self._mutated, 40), (self._reset, 6), (self._silent, 1), (self._slow, 1), (self._deaf, 1),
        ]  # fmt: skip

    async def all_once(self) -> None:
        """Everything that is known, so that what it costs the first time has been paid."""
        for begin in range(0, len(self._small), AT_ONCE):
            await asyncio.gather(*map(self._send, self._small[begin : begin + AT_ONCE]))
        for bad in self._big:
            await self._send(bad)

    def begin(self) -> None:
        """One more, in a way by chance; none if too many are under way."""
        if self._room.locked():
            self.words["left out"] += 1
            return
        [way] = self._random.choices([way for way, _ in self._ways], [weight for _, weight in self._ways])
        task = asyncio.get_running_loop().create_task(self._go(way))
        self._going.add(task)
        task.add_done_callback(self._going.discard)

    async def end(self) -> None:
        if self._going:
            await asyncio.wait(self._going)

    async def _go(self, way: Callable[[], Awaitable[None]]) -> None:
        async with self._room:
            try:
                async with asyncio.timeout(SECONDS):
                    await way()
            except TimeoutError:
                self._unmeant(f"{way.__name__}: not answered, and not closed, within {SECONDS:g} s")
            except OSError:
                self.words["reset"] += 1
            except Exception as exc:  # whatever it is, it is told
                self._unmeant(f"{way.__name__}: {exc!r}"[:300])

    def _unmeant(self, what: str) -> None:
        self.words["unmeant"] += 1
        self.unmeant.append(what)

    # ---- Ways --------------------------------------------------------------------------------------------------------

    async def _bad(self) -> None:
        big = self._random.random() < BIG_SHARE
        await self._send(self._random.choice(self._big if big else self._small))

    async def _send(self, bad: Bad) -> None:
        statuses = read_statuses(await self._exchange(bad.data))
        if not statuses and (len(bad.data) > MAY_GO_UNHEARD or self.excused()):
            self.words["unheard"] += 1
        elif not statuses or statuses[0] not in bad.statuses | BUSY:
            self._unmeant(f"{bad.name}: {statuses[:3]}, expected {sorted(bad.statuses)}")
        else:
            self.words[str(statuses[0])] += 1

    async def _mutated(self) -> None:
        data = mutate(self._random, self._random.choice(self._seeds), others=self._seeds, tokens=Requests.tokens)
        statuses = read_statuses(await self._exchange(data, end=True))
        self.words[str(statuses[0]) if statuses else "closed"] += 1

    async def _exchange(self, data: bytes, *, end: bool = False) -> bytes:
        """All that comes back until the server closes; `end`: it is told that no more is sent."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        came = bytearray()
        try:
            with suppress(ConnectionError):
                writer.write(data)
                await writer.drain()
                if end:
                    writer.write_eof()
            with suppress(ConnectionError):
                while more := await reader.read(1 << 16):
                    came += more
        finally:
            writer.transport.abort()
        return bytes(came)

    async def _reset(self) -> None:
        """Goes in the middle of a request, or as soon as it was sent."""
        data = self._random.choice(self._seeds)
        _, writer = await asyncio.open_connection("127.0.0.1", self._port)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        writer.write(data[: self._random.randint(1, len(data))])
        await asyncio.sleep(self._random.random() * 0.01)
        writer.transport.abort()
        self.words["went"] += 1

    async def _silent(self) -> None:
        """Says nothing, or stops in the middle."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        data = self._random.choice([b"", b"P", post(body=kinds.BODY)[:-1]])
        await self._until_closed(reader, writer, data, step=len(data) or 1, pause=SECONDS)

    async def _slow(self) -> None:
        """A byte at a time."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        data = kinds.raw("Host: x", ": ".join(kinds.JSON), "Content-Length: 100000") + b" " * 1000
        await self._until_closed(reader, writer, data, step=1, pause=0.1)

    async def _deaf(self) -> None:
        """Asks for much, and takes nothing."""
        _, writer = await asyncio.open_connection("127.0.0.1", self._port, limit=1024)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        with suppress(ConnectionError):
            writer.write(get("/openapi.json") * 20)
            await asyncio.sleep(2 * self._patience)
        writer.transport.abort()
        self.words["deaf"] += 1

    async def _until_closed(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes, *, step: int, pause: float
    ) -> None:
        closed = asyncio.ensure_future(reader.read())
        try:
            for at in range(0, max(len(data), 1), step):
                writer.write(data[at : at + step])
                done, _ = await asyncio.wait([closed], timeout=pause)
                if done:
                    break
            with suppress(ConnectionError):
                statuses = read_statuses(await closed)
                self.words[str(statuses[0]) if statuses else "closed"] += 1
        finally:
            closed.cancel()
            writer.transport.abort()
