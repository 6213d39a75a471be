"""Continuous batching: what has come while one batch runs makes the next. Knows neither ONNX nor HTTP.

Nothing waits on a timer for company: with nothing in front of it a request starts as soon as the loop has gone round.
Requests of one key share a batch; the key that has waited longest goes next.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Sequence
from time import perf_counter
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from server.deadlines import Deadlines
from server.rows import Rows

K = TypeVar("K", bound=Hashable)


class Work(Protocol):
    """A batch that has begun."""

    def leave(self) -> None:
        """One of its items has what it wants, or wants it no more."""


R = TypeVar("R", bound=Work)


class Item(Generic[R]):
    """Rows of one request."""

    __slots__ = ("at", "done", "hurried", "order", "rows", "run", "since", "until")

    def __init__(self, rows: Rows, until: float, *, hurried: bool, order: Any) -> None:
        self.rows = rows
        self.order = order
        """What is wanted, for whoever carries it out."""
        self.until = until
        """Of the loop's clock: when it no longer waits."""
        self.hurried = hurried
        """Whether it says so itself, or all must end some time."""
        self.since = perf_counter()
        """When it came."""
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.run: R | None = None
        """The batch that it is in; None if it never came to be in one."""
        self.at = slice(0, 0)
        """Its rows in the batch."""

    def wake(self) -> None:
        if not self.done.done():
            self.done.set_result(None)


class Batcher(Generic[K, R]):
    """Starts batches by `begin`, of at most `max_rows` rows or of one request; the next one when it is told to."""

    def __init__(
        self, begin: Callable[[K, Sequence[Item[R]], Rows, Callable[[], None]], R], *, max_rows: Callable[[K], int]
    ) -> None:
        self._begin = begin
        self._max_rows = max_rows
        self._deadlines = Deadlines()
        self._queues: OrderedDict[K, deque[Item[R]]] = OrderedDict()
        self._busy = False
        self._scheduled = False

    async def submit(self, key: K, rows: Rows, until: float, *, hurried: bool = False, order: Any = None) -> Item[R]:
        """Returns once the batch that they are in wakes the item, or its time is over."""
        item: Item[R] = Item(rows, until, hurried=hurried, order=order)
        self._queues.setdefault(key, deque()).append(item)
        if not self._busy:
            self._schedule()
        self._deadlines.add(item)
        try:
            await item.done
        finally:
            self._deadlines.remove(item)
            if item.run is not None:
                item.run.leave()
        return item

    @property
    def idle(self) -> bool:
        return not self._busy and not self._queues

    def _schedule(self) -> None:
        """Once the loop has gone round: what else has come by then goes along."""
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        self._scheduled = False
        while self._queues and not self._busy:
            key, items = self._take()
            if items:
                self._start(key, items)

    def _take(self) -> tuple[K, list[Item[R]]]:
        """Of the key that has waited longest, those that fit and that somebody still waits for."""
        key, queue = self._queues.popitem(last=False)
        items: list[Item[R]] = []
        n_rows, most = 0, self._max_rows(key)
        while queue and (not items or n_rows + len(queue[0].rows) <= most):
            item = queue.popleft()
            if not item.done.done():
                items.append(item)
                n_rows += len(item.rows)
        if queue:
            self._queues[key] = queue  # behind the other keys
        return key, items

    def _start(self, key: K, items: Sequence[Item[R]]) -> None:
        try:
            rows = items[0].rows if len(items) == 1 else np.concatenate([item.rows for item in items])
            begin = 0
            for item in items:
                item.at = slice(begin, begin := begin + len(item.rows))
            self._busy = True
            run = self._begin(key, items, rows, self._release)
        except Exception as exc:  # whatever it is, those who wait must hear of it
            self._busy = False
            for item in items:
                item.done.set_exception(exc)
            return
        for item in items:
            item.run = run

    def _release(self) -> None:
        self._busy = False
        if self._queues:
            self._schedule()
