import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from server.batcher import Batcher, Item
from server.rows import Rows

MAX_ROWS = 8


class Batch:
    """A batch that ends when it is told to."""

    def __init__(self, key: str, items: Sequence["Item[Batch]"], rows: Rows, release: Callable[[], None]) -> None:
        self.key, self.items, self.rows, self.release = key, items, rows, release
        self.left = 0

    def leave(self) -> None:
        self.left += 1

    def end(self) -> None:
        for item in self.items:
            item.wake()
        self.release()


class Bench:
    """A batcher whose batches are looked at."""

    def __init__(self, max_rows: int = MAX_ROWS) -> None:
        self.batches: list[Batch] = []
        self.batcher: Batcher[str, Batch] = Batcher(self._begin, max_rows=lambda key: max_rows)
        self._values = 0

    def _begin(self, key: str, items: Sequence[Item[Batch]], rows: Rows, release: Callable[[], None]) -> Batch:
        if key == "broken":
            raise ValueError("cannot begin")
        batch = Batch(key, items, rows, release)
        self.batches.append(batch)
        return batch

    def submit(self, n: int = 1, key: str = "a", until: float = math.inf) -> "asyncio.Task[Item[Batch]]":
        """So many rows `(n, 1)`, no two the same."""
        rows = np.arange(self._values, self._values + n, dtype=np.float32)[:, None]
        self._values += n
        return asyncio.create_task(self.batcher.submit(key, rows, until))

    @property
    def sizes(self) -> list[int]:
        return [len(batch.rows) for batch in self.batches]


def run(test: Callable[[Bench], Awaitable[None]]) -> None:
    async def go() -> None:
        await test(Bench())

    asyncio.run(go())


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_with_nothing_in_front_of_it_a_request_starts_at_once() -> None:
    async def test(bench: Bench) -> None:
        task = bench.submit(3)
        await settle()
        assert bench.sizes == [3]
        bench.batches[0].end()
        item = await task
        assert item.run is bench.batches[0]
        assert item.at == slice(0, 3)
        assert bench.batcher.idle

    run(test)


def test_what_comes_while_a_batch_runs_makes_the_next() -> None:
    async def test(bench: Bench) -> None:
        tasks = [bench.submit(1)]
        await settle()
        tasks += [bench.submit(n) for n in (2, 3, 2)]
        await settle()
        assert bench.sizes == [1]
        bench.batches[0].end()
        await settle()
        assert bench.sizes == [1, 7]
        bench.batches[1].end()
        items = await asyncio.gather(*tasks)
        assert [item.at for item in items] == [slice(0, 1), slice(0, 2), slice(2, 5), slice(5, 7)]
        for item in items:
            assert item.run is not None
            assert_array_equal(item.run.rows[item.at], item.rows)

    run(test)


def test_what_comes_in_one_round_of_the_loop_starts_together() -> None:
    async def test(bench: Bench) -> None:
        tasks = [bench.submit(n) for n in (1, 2, 3)]
        await settle()
        assert bench.sizes == [6]
        bench.batches[0].end()
        await asyncio.gather(*tasks)

    run(test)


def test_a_batch_has_no_more_rows_than_it_may_but_for_a_request_that_has_more_alone() -> None:
    async def test(bench: Bench) -> None:
        tasks = [bench.submit(1)]
        await settle()
        tasks += [bench.submit(n) for n in (5, 4, 20, 8, 1)]
        for _ in range(5):
            bench.batches[-1].end()
            await settle()
        assert bench.sizes == [1, 5, 4, 20, 8, 1]
        bench.batches[-1].end()
        await asyncio.gather(*tasks)

    run(test)


def test_requests_of_different_keys_share_no_batch_and_take_turns() -> None:
    async def test(bench: Bench) -> None:
        tasks = [bench.submit(4, "a")]
        await settle()
        tasks += [bench.submit(4, key) for key in "aaaabab"]
        for _ in range(4):
            bench.batches[-1].end()
            await settle()
        assert [(batch.key, len(batch.rows)) for batch in bench.batches] == [
            ("a", 4),
            ("a", 8),
            ("b", 8),
            ("a", 8),
            ("a", 4),
        ]
        bench.batches[-1].end()
        await asyncio.gather(*tasks)

    run(test)


def test_whoever_gives_up_in_the_queue_never_runs() -> None:
    async def test(bench: Bench) -> None:
        tasks = [bench.submit()]
        await settle()
        tasks += [bench.submit() for _ in range(3)]
        await settle()
        tasks[1].cancel()
        tasks[3].cancel()
        await settle()
        bench.batches[0].end()
        await settle()
        assert bench.sizes == [1, 1]
        bench.batches[1].end()
        assert (await tasks[2]).run is bench.batches[1]
        await settle()
        assert bench.batcher.idle

    run(test)


def test_if_all_give_up_the_queue_is_empty_again() -> None:
    async def test(bench: Bench) -> None:
        tasks = [bench.submit()]
        await settle()
        tasks += [bench.submit(key=key) for key in "bc"]
        await settle()
        for task in tasks[1:]:
            task.cancel()
        await settle()
        bench.batches[0].end()
        await tasks[0]
        assert bench.sizes == [1]
        assert bench.batcher.idle

    run(test)


def test_whose_time_is_over_in_the_queue_is_in_no_batch() -> None:
    async def test(bench: Bench) -> None:
        first = bench.submit()
        await settle()
        late = bench.submit(until=asyncio.get_running_loop().time() + 0.01)
        assert (await late).run is None
        bench.batches[0].end()
        await first
        await settle()
        assert bench.sizes == [1]

    run(test)


def test_whose_time_is_over_in_a_batch_leaves_it() -> None:
    async def test(bench: Bench) -> None:
        item = await bench.submit(until=asyncio.get_running_loop().time() + 0.01)
        assert item.run is bench.batches[0]
        assert bench.batches[0].left == 1

    run(test)


def test_everyone_leaves_a_batch_once_answered_or_not() -> None:
    async def test(bench: Bench) -> None:
        tasks = [bench.submit()]
        await settle()
        tasks += [bench.submit() for _ in range(3)]
        await settle()
        bench.batches[0].end()
        await settle()
        tasks[2].cancel()
        await settle()
        assert bench.batches[1].left == 1
        bench.batches[1].end()
        await settle()
        assert bench.batches[1].left == 3

    run(test)


def test_a_batch_that_cannot_begin_fails_its_requests_and_no_others() -> None:
    async def test(bench: Bench) -> None:
        first = bench.submit()
        await settle()
        broken, good = bench.submit(key="broken"), bench.submit(key="b")
        await settle()
        bench.batches[0].end()
        with pytest.raises(ValueError, match="cannot begin"):
            await broken
        await settle()
        bench.batches[1].end()
        assert (await good).run is bench.batches[1]
        await first

    run(test)


@settings(deadline=None)
@given(
    requests=st.lists(
        st.tuples(st.integers(1, 2 * MAX_ROWS), st.sampled_from("abc"), st.sampled_from(["stay", "cancel"])),
        min_size=1,
        max_size=30,
    ),
    ends=st.lists(st.integers(0, 3), max_size=30),
)
def test_every_request_that_stays_is_answered_once_with_its_own_rows(
    requests: list[tuple[int, str, str]], ends: list[int]
) -> None:
    async def go() -> None:
        bench = Bench()
        ended = 0
        tasks = []
        for n, (rows, key, _) in enumerate(requests):
            tasks.append(bench.submit(rows, key))
            await asyncio.sleep(0)
            if n < len(ends) and ends[n] == 0 and ended < len(bench.batches):
                bench.batches[ended].end()
                ended += 1
        for task, (_, _, fate) in zip(tasks, requests, strict=True):
            if fate == "cancel":
                task.cancel()
        await settle()
        while ended < len(bench.batches):
            bench.batches[ended].end()
            ended += 1
            await settle()
        assert bench.batcher.idle
        in_batches = [item for batch in bench.batches for item in batch.items]
        assert len(in_batches) == len({id(item) for item in in_batches})
        for batch in bench.batches:
            assert len(batch.rows) <= MAX_ROWS or len(batch.items) == 1
            assert_array_equal(batch.rows, np.concatenate([item.rows for item in batch.items]))
        for task, (rows, key, fate) in zip(tasks, requests, strict=True):
            if fate == "cancel":
                continue
            item = await task
            assert item.run is not None
            assert item.run.key == key
            assert len(item.rows) == rows
            assert_array_equal(item.run.rows[item.at], item.rows)

    asyncio.run(go())
