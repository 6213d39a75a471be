import threading
from collections.abc import Iterator
from time import monotonic, sleep
from unittest.mock import Mock

import pytest

from server import watchdog as module
from server.watchdog import Watchdog


@pytest.fixture
def stops(monkeypatch: pytest.MonkeyPatch) -> list[Mock]:
    """Those that are made, in order."""
    made: list[Mock] = []

    def make() -> Mock:
        made.append(Mock())
        return made[-1]

    monkeypatch.setattr(module, "Stop", make)
    monkeypatch.setattr(module, "SECONDS", 0.001)
    return made


@pytest.fixture
def watchdog() -> Iterator[Watchdog]:
    watchdog = Watchdog()
    yield watchdog
    watchdog.close()


def until_called(stop: Mock) -> None:
    given_up = monotonic() + 30
    while not stop.called:
        assert monotonic() < given_up, "it was not stopped"
        sleep(0.001)


def test_what_takes_too_long_is_stopped(watchdog: Watchdog, stops: list[Mock]) -> None:
    with watchdog.guarding(0.01):
        until_called(stops[0])


def test_what_ends_in_time_is_not_stopped(watchdog: Watchdog, stops: list[Mock]) -> None:
    for _ in range(5):
        with watchdog.guarding(60):
            sleep(0.005)
    sleep(0.02)
    assert not any(stop.called for stop in stops)


def test_every_call_has_its_own_time(watchdog: Watchdog, stops: list[Mock]) -> None:
    with watchdog.guarding(0.001):
        until_called(stops[0])
    with watchdog.guarding(60):
        sleep(0.02)
    assert [stop.called for stop in stops] == [True, False]


def test_a_block_that_raises_is_guarded_no_more(watchdog: Watchdog, stops: list[Mock]) -> None:
    with pytest.raises(ZeroDivisionError), watchdog.guarding(0.02):
        raise ZeroDivisionError
    sleep(0.05)
    assert not stops[0].called


def test_it_has_no_thread_before_it_is_used_nor_after_it_is_closed(stops: list[Mock]) -> None:
    before = set(threading.enumerate())
    watchdog = Watchdog()
    assert set(threading.enumerate()) == before
    with watchdog.guarding(60):
        assert len(set(threading.enumerate()) - before) == 1
    watchdog.close()
    assert set(threading.enumerate()) == before
