import asyncio

from server.bounds import WRITE_BYTES
from server.budget import FREE, Budget, Share
from server.slow_reader import SlowReader

SECONDS = 0.02
LONG = 5 * WRITE_BYTES


class Pipe(asyncio.Transport):
    """Has `left` bytes to send."""

    def __init__(self, left: int) -> None:
        super().__init__()
        self.left = left
        self.closing = False
        self.aborted = asyncio.Event()

    def get_write_buffer_size(self) -> int:
        return self.left

    def is_closing(self) -> bool:
        return self.closing

    def abort(self) -> None:
        self.aborted.set()


def watched(pipe: Pipe, budget: Budget) -> SlowReader:
    reader = SlowReader(pipe, asyncio.get_running_loop(), seconds=SECONDS, share=Share(budget))
    reader.watch()
    return reader


def test_who_takes_nothing_is_cut_off() -> None:
    async def run() -> None:
        pipe, budget = Pipe(LONG), Budget(10 * LONG)
        reader = watched(pipe, budget)
        assert budget.taken == LONG - FREE
        await asyncio.wait_for(pipe.aborted.wait(), 10)
        reader.end()
        assert budget.taken == 0

    asyncio.run(run())


def test_who_takes_enough_is_waited_for() -> None:
    async def run() -> None:
        pipe, budget = Pipe(LONG), Budget(10 * LONG)
        reader = watched(pipe, budget)
        while pipe.left:
            held = budget.taken
            pipe.left -= WRITE_BYTES
            while pipe.left and budget.taken == held:  # until it has looked again
                await asyncio.sleep(SECONDS / 10)
            if pipe.left <= FREE:
                break
        assert not pipe.aborted.is_set()
        pipe.left = 0
        await asyncio.sleep(2 * SECONDS)
        assert not pipe.aborted.is_set()
        reader.end()
        assert budget.taken == 0

    asyncio.run(run())


def test_a_connection_that_closes_is_not_waited_for_long() -> None:
    """Not even for the last few bytes."""

    async def run() -> None:
        pipe = Pipe(1)
        pipe.closing = True
        watched(pipe, Budget(LONG))
        await asyncio.wait_for(pipe.aborted.wait(), 10)

    asyncio.run(run())


def test_an_end_is_an_end() -> None:
    async def run() -> None:
        pipe = Pipe(LONG)
        reader = watched(pipe, Budget(LONG))
        reader.end()
        reader.end()
        await asyncio.sleep(3 * SECONDS)
        assert not pipe.aborted.is_set()

    asyncio.run(run())
