import asyncio
import heapq
import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.deadlines import Deadlines

MOMENTS = st.integers(0, 20)


class Handle:
    def __init__(self) -> None:
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Loop:
    """A loop's clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[tuple[float, int, Handle, Callable[[], None]]] = []
        self.set = 0

    def call_at(self, when: float, callback: Callable[[], None]) -> Handle:
        self.set += 1
        handle = Handle()
        heapq.heappush(self.timers, (when, self.set, handle, callback))
        return handle

    def go_to(self, moment: float) -> None:
        while self.timers and self.timers[0][0] <= moment:
            when, _, handle, callback = heapq.heappop(self.timers)
            self.now = max(self.now, when)
            if not handle.cancelled:
                callback()
        self.now = max(self.now, moment)

    @property
    def waiting(self) -> int:
        return sum(not handle.cancelled for _, _, handle, _ in self.timers)


class Sleeper:
    def __init__(self, loop: Loop, until: float) -> None:
        self.until = until
        self.woken: list[float] = []
        self._loop = loop

    def wake(self) -> None:
        self.woken.append(self._loop.now)


@pytest.fixture(autouse=True, scope="module")
def _loop() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncio, "get_running_loop", lambda: current[0])
        yield


current: list[Loop] = []


def start() -> tuple[Loop, Deadlines]:
    current[:] = [Loop()]
    return current[0], Deadlines()


@given(st.lists(st.tuples(MOMENTS, MOMENTS, st.none() | MOMENTS), max_size=30))
def test_everyone_is_woken_once_at_its_time_unless_removed_before(
    plans: list[tuple[int, int, int | None]],
) -> None:
    """By moments: when it is added, until when it waits, when it is removed."""
    loop, deadlines = start()
    sleepers = [Sleeper(loop, float(until)) for _, until, _ in plans]
    for moment in range(22):
        loop.go_to(moment - 0.5)
        for sleeper, (added, _, removed) in zip(sleepers, plans, strict=True):
            if added == moment:
                deadlines.add(sleeper)
            if removed == moment and removed >= added:
                deadlines.remove(sleeper)
        assert loop.waiting <= 1
    loop.go_to(100)
    for sleeper, (added, until, removed) in zip(sleepers, plans, strict=True):
        # What is added when its time is over is woken at once: in the half moment before the next.
        due = max(float(until), added - 0.5)
        if removed is not None and added <= removed <= due + 0.5:
            assert sleeper.woken == []
        else:
            assert sleeper.woken == [due]


def test_who_waits_for_ever_needs_no_timer() -> None:
    loop, deadlines = start()
    sleepers = [Sleeper(loop, math.inf), Sleeper(loop, 3.0)]
    deadlines.add(sleepers[0])
    assert loop.waiting == 0
    deadlines.add(sleepers[1])
    loop.go_to(1e9)
    assert [sleeper.woken for sleeper in sleepers] == [[], [3.0]]
    assert loop.waiting == 0


def test_many_need_one_timer() -> None:
    loop, deadlines = start()
    for n in range(1000):
        deadlines.add(Sleeper(loop, 30.0 + n))
    assert loop.set == 1


def test_who_was_never_added_can_be_removed() -> None:
    loop, deadlines = start()
    deadlines.remove(Sleeper(loop, 1.0))
    loop.go_to(2)


def test_one_that_adds_another_when_woken() -> None:
    loop, deadlines = start()
    second = Sleeper(loop, 2.0)

    class Adds(Sleeper):
        def wake(self) -> None:
            super().wake()
            deadlines.add(second)

    deadlines.add(Adds(loop, 1.0))
    loop.go_to(5)
    assert second.woken == [2.0]
