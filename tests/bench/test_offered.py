import asyncio
import math
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from bench.offered import Answer, Load, offer, saturate

ASK = b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n"
REQUESTS = [ASK % k for k in range(3)]
Say = Callable[[bytes], bytes | None]


@asynccontextmanager
async def answering(
    say: Say, *, after: float = 0.0, on_request: Callable[[int], object] = lambda port: None
) -> AsyncIterator[int]:
    """A server, by its port: what it says to the path of a request; None: it closes.

    `on_request` is told the client's port.
    """

    going: set[asyncio.Task[None] | None] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        going.add(asyncio.current_task())
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                on_request(writer.get_extra_info("peername")[1])
                said = say(head.split(b" ")[1])
                if said is None:
                    break
                await asyncio.sleep(after)
                writer.write(said[:5])  # in two pieces
                await writer.drain()
                writer.write(said[5:])
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            going.discard(asyncio.current_task())

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]
        while going:  # their clients have gone
            await asyncio.sleep(0.001)


def fine(path: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(path), path)


def load(say: Say, *, rate: float = 200, seconds: float = 0.5, connections: int = 50, after: float = 0.0) -> Load:
    async def go() -> Load:
        async with answering(say, after=after) as port:
            return await offer(port, REQUESTS, rate=rate, seconds=seconds, connections=connections)

    return asyncio.run(go())


def test_each_request_is_sent_when_it_is_due_and_its_answer_read_whole() -> None:
    found = load(fine)
    assert 60 < len(found.answers) < 140
    assert found.unanswered == 0
    for answer in found.answers:
        assert (answer.status, answer.body) == (200, b"/%d" % answer.request)
        assert 0 <= answer.due <= 0.5
        assert answer.seconds > 0
    assert not found.answers[0].says_when


def test_connections_that_are_there_take_turns() -> None:
    asked: list[int] = []

    async def go() -> Load:
        async with answering(fine, on_request=asked.append) as port:
            return await offer(port, REQUESTS, rate=100, seconds=0.4, connections=8, ready=8)

    found = asyncio.run(go())
    counts = Counter(asked)
    assert len(found.of(200)) == len(asked) > 16
    assert len(counts) == 8


def test_waiting_for_a_connection_counts() -> None:
    found = load(fine, connections=1, rate=100, after=0.03)
    last = max(found.answers, key=lambda answer: answer.due)
    assert found.unanswered == 0
    assert last.seconds > 0.3  # a third of them can be answered as they come


def test_refusals_and_connections_that_end() -> None:
    said = {
        b"/0": b"HTTP/1.1 503 Busy\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 2\r\n\r\nno",
        b"/1": None,
        b"/2": fine(b"/2"),
    }
    found = load(said.__getitem__)
    by_request = {answer.request: answer for answer in found.answers}
    assert [by_request[k].status for k in range(3)] == [503, 0, 200]
    assert [by_request[k].says_when for k in range(3)] == [True, False, False]
    assert len(found.of(503, 0, 200)) == len(found.answers)


def test_nobody_listens() -> None:
    async def go() -> Load:
        async with answering(fine) as port:
            pass
        return await offer(port, REQUESTS, rate=50, seconds=0.2, connections=5)

    assert {answer.status for answer in asyncio.run(go()).answers} == {0}


def test_busy_connections_ask_again_at_once() -> None:
    async def go() -> Load:
        async with answering(fine, after=0.02) as port:
            return await saturate(port, REQUESTS, connections=4, seconds=0.4)

    found = asyncio.run(go())
    assert 4 < len(found.of(200)) <= 4 * 21
    assert min(answer.seconds for answer in found.answers) >= 0.02


def test_percentiles_of_none() -> None:
    assert math.isnan(Load(1.0, [], 0).p99(200))
    assert Load(1.0, [Answer(0, 0.0, 0.5, 200, b"", b"")], 0).p99(200) == 0.5
