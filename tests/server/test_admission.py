import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server import admission as module
from server.admission import (
    LITTLE_FACTOR,
    LITTLE_SECONDS,
    OVERLOAD_SECONDS,
    SHORT_REQUESTS,
    SHORT_SECONDS,
    SPARE,
    STANDING_SECONDS,
    TELLING_SECONDS,
    Admission,
    Ticket,
)
from server.errors import Overloaded

SECONDS = st.floats(0, 10)
REQUESTS = st.tuples(
    SECONDS, st.integers(0, 100), st.floats(0, 20), st.floats(0.001, 10), st.integers(0, 5), st.booleans()
)
"""Seconds of members' time, rows, seconds left, seconds of a turn; who leaves after it, and whether it is answered."""


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "monotonic", clock)
    return clock


def make(*, max_wait: float = 5.0, max_rows: int = 1000) -> Admission:
    return Admission(max_wait=max_wait, max_rows=max_rows)


def enter(
    admission: Admission, seconds: float, rows: int = 1, *, left: float | None = 100.0, turn: float | None = None
) -> Ticket:
    return admission.enter(seconds, rows, left=left, turn=seconds if turn is None else turn)


@given(st.lists(REQUESTS, max_size=40), st.floats(0, 5), st.integers(1, 200))
def test_whoever_enters_and_leaves_its_numbers_return_to_nothing(
    requests: list[tuple[float, int, float, float, int, bool]], max_wait: float, max_rows: int
) -> None:
    inside: list[Ticket] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "monotonic", Clock())  # nothing stands here: no time goes by
        admission = make(max_wait=max_wait, max_rows=max_rows)
        for seconds, rows, left, turn, leaves, answered in requests:
            there = sum(ticket.rows for ticket in inside)
            wait = admission.wait(seconds)
            fits = wait <= min(left, max_wait) and there + rows <= max_rows
            if fits or not inside:
                inside.append(admission.enter(seconds, rows, left=left, turn=turn))
            else:
                with pytest.raises(Overloaded) as refusal:
                    admission.enter(seconds, rows, left=left, turn=turn)
                assert refusal.value.retry_after == max(1, math.ceil(wait))
            if leaves < len(inside):
                admission.leave(inside.pop(leaves), answered=answered)
        for ticket in inside:
            admission.leave(ticket, answered=True)
    assert admission.wait() == pytest.approx(0, abs=1e-9)
    assert admission.wait(10) == pytest.approx(0, abs=1e-9)
    ticket = enter(admission, 1e6, max_rows + 1, left=0.0)  # with nothing before it everyone is let in
    assert ticket.ahead == 1e6


def test_with_nothing_before_it_nothing_is_refused(clock: Clock) -> None:
    for seconds, rows, left in ((1e9, 1, 1.0), (0.1, 10**9, 1.0), (0.1, 1, -5.0)):
        admission = make()
        clock.now += 100
        admission.leave(enter(admission, seconds, rows, left=left), answered=False)


def test_what_one_has_to_do_besides_is_never_refused(clock: Clock) -> None:
    admission = make(max_wait=0.0, max_rows=1)
    enter(admission, 50.0)
    with pytest.raises(Overloaded):
        enter(admission, 50.0)
    enter(admission, 50.0, 1000, left=None)
    assert admission.wait() == 100.0


def test_those_without_rows_count_too(clock: Clock) -> None:
    admission = make()
    empty = enter(admission, 1.0, 0)
    other = enter(admission, 2.0)
    assert other.ahead == 3.0
    admission.leave(empty, answered=False)
    assert admission.wait() == 2.0
    admission.leave(other, answered=False)
    assert admission.wait() == 0.0


@pytest.mark.parametrize(
    ("before", "asks", "why"),
    [
        ([(3.0, 1)], (0.1, 1, 2.9), "others take 3.000 s, and the request's deadline is in 2.900 s"),
        ([(3.0, 1)], (0.1, 1, -1.0), "others take 3.000 s, and the request's deadline is in 0.000 s"),
        ([(3.0, 1), (2.5, 1)], (0.1, 1, 100.0), "others take 5.500 s, of at most 5 s"),
        ([(0.1, 999)], (0.1, 2, 100.0), "999 rows wait, of at most 1000"),
    ],
)
def test_who_is_refused_is_told_why(
    clock: Clock, before: list[tuple[float, int]], asks: tuple[float, int, float], why: str
) -> None:
    admission = make()
    for seconds, rows in before:
        enter(admission, seconds, rows)
    wait = admission.wait()
    with pytest.raises(Overloaded) as caught:
        enter(admission, asks[0], asks[1], left=asks[2])
    assert str(caught.value) == f"the server is busy: {why}"
    assert caught.value.retry_after == max(1, math.ceil(wait))
    assert admission.wait() == wait  # who is refused leaves nothing behind


def test_a_burst_may_queue_up_to_the_longest_wait(clock: Clock) -> None:
    admission = make()
    for _ in range(41):  # the last of them for 5 seconds
        enter(admission, 1 / 8)
    with pytest.raises(Overloaded, match="of at most 5 s"):
        enter(admission, 1 / 8)


def test_in_a_queue_that_stands_only_few_may_wait(clock: Clock) -> None:
    admission = make()
    tickets = [enter(admission, 1 / 64) for _ in range(64)]
    clock.now += STANDING_SECONDS + 0.1
    with pytest.raises(Overloaded, match=r"others take 1\.000 s, and have for a while"):
        enter(admission, 1 / 64)
    admission.leave(enter(admission, 1.0 / LITTLE_FACTOR), answered=False)  # beside which that is little
    while admission.wait() > LITTLE_SECONDS:
        with pytest.raises(Overloaded):
            enter(admission, 1 / 64)
        admission.leave(tickets.pop(), answered=False)
    enter(admission, 1 / 64)


def refuse_for_a_while(admission: Admission, clock: Clock) -> list[Ticket]:
    """More come than can be answered; returns those that were let in before, of 1/64 seconds each."""
    tickets = [enter(admission, 1 / 64) for _ in range(64)]
    clock.now += STANDING_SECONDS
    for _ in range(3):
        clock.now += OVERLOAD_SECONDS * 0.6
        with pytest.raises(Overloaded, match="and have for a while"):
            enter(admission, 1 / 64)
    return tickets


def test_where_others_were_refused_for_a_while_the_queue_is_kept_short(clock: Clock) -> None:
    admission = make()
    tickets = refuse_for_a_while(admission, clock)
    while admission.wait() > SHORT_SECONDS and len(tickets) >= SHORT_REQUESTS:
        with pytest.raises(Overloaded):
            enter(admission, 1 / 64)
        with pytest.raises(Overloaded):  # who costs more does not push in before the others
            enter(admission, 1.0)
        admission.leave(tickets.pop(), answered=False)
    enter(admission, 1 / 64)


def test_during_an_overload_requests_are_refused_unread(clock: Clock) -> None:
    admission = make()
    tickets = [enter(admission, 1 / 64) for _ in range(64)]
    admission.check()  # one that costs much would be let in
    for ticket in tickets:
        admission.leave(ticket, answered=False)
    tickets = refuse_for_a_while(admission, clock)
    while tickets and admission.wait() > SHORT_SECONDS and len(tickets) >= SHORT_REQUESTS:
        with pytest.raises(Overloaded, match="and have for a while") as refusal:
            admission.check()
        assert refusal.value.retry_after == 1
        admission.leave(tickets.pop(), answered=False)
    admission.check()
    enter(admission, 1 / 64)


def test_who_is_refused_unread_keeps_an_overload_going(clock: Clock) -> None:
    admission = make()
    refuse_for_a_while(admission, clock)
    for _ in range(4):
        clock.now += OVERLOAD_SECONDS * 0.9
        with pytest.raises(Overloaded):
            admission.check()
    clock.now += OVERLOAD_SECONDS * 1.1
    admission.check()


def test_an_overload_of_dear_requests_leaves_enough_to_do(clock: Clock) -> None:
    admission = make(max_wait=100.0)
    for ticket in refuse_for_a_while(admission, clock):
        admission.leave(ticket, answered=False)
    for _ in range(SHORT_REQUESTS):
        enter(admission, 10 * SHORT_SECONDS)
    with pytest.raises(Overloaded):
        enter(admission, 10 * SHORT_SECONDS)


def test_an_overload_goes_on_though_the_queue_was_empty_once(clock: Clock) -> None:
    admission = make()
    for ticket in refuse_for_a_while(admission, clock):
        admission.leave(ticket, answered=False)
    for _ in range(SHORT_REQUESTS):
        enter(admission, SHORT_SECONDS)
    with pytest.raises(Overloaded):
        enter(admission, 0.001)


def test_an_overload_is_over_once_nobody_was_refused_for_a_while(clock: Clock) -> None:
    admission = make()
    for ticket in refuse_for_a_while(admission, clock):
        admission.leave(ticket, answered=False)
    clock.now += OVERLOAD_SECONDS + 0.01
    for _ in range(2 * SHORT_REQUESTS):  # a burst
        enter(admission, SHORT_SECONDS)
    clock.now += STANDING_SECONDS + 0.01
    enter(admission, 0.001)  # a queue that stands, and is no longer than a little
    assert SHORT_SECONDS < admission.wait() < LITTLE_SECONDS


def test_an_overload_is_over_once_there_was_nothing_to_do_now_and_then(clock: Clock) -> None:
    """Though the queue is longer than a short one at times, and then some are refused."""
    admission = make()
    for ticket in refuse_for_a_while(admission, clock):
        admission.leave(ticket, answered=False)
    rests = 0
    while True:
        tickets = [enter(admission, SHORT_SECONDS) for _ in range(SHORT_REQUESTS)]
        try:
            tickets.append(enter(admission, 0.001))
        except Overloaded:
            rests += 1
        for ticket in tickets:
            admission.leave(ticket, answered=False)
        if len(tickets) > SHORT_REQUESTS:
            break
        clock.now += SPARE * OVERLOAD_SECONDS / 5
    assert rests == 6  # the last of them is only seen to be the one too many when the next has come


def test_few_that_are_refused_now_and_then_are_no_overload(clock: Clock) -> None:
    admission = make()
    tickets = [enter(admission, 1 / 64) for _ in range(40)]
    for _ in range(5):
        clock.now += OVERLOAD_SECONDS + 0.01
        with pytest.raises(Overloaded):
            enter(admission, 1 / 64)
    while admission.wait() > LITTLE_SECONDS:
        admission.leave(tickets.pop(), answered=False)
    enter(admission, 1 / 64)


def test_a_queue_that_was_empty_once_is_a_burst_again(clock: Clock) -> None:
    admission = make()
    first = enter(admission, 1.0)
    clock.now += 10
    with pytest.raises(Overloaded):
        enter(admission, 0.01)
    admission.leave(first, answered=False)
    enter(admission, 1.0)
    enter(admission, 0.01)


def test_a_request_in_turns_keeps_those_that_come_later_waiting_for_a_turn_only(clock: Clock) -> None:
    admission = make()
    big = enter(admission, 20.0, turn=0.006)
    assert big.ahead == 20.0
    clock.now += STANDING_SECONDS + 1
    small = enter(admission, 0.001, left=0.01)
    assert small.ahead == pytest.approx(0.007)
    with pytest.raises(Overloaded, match=r"others take 20\.001 s, of at most 5 s"):
        enter(admission, 30.0, turn=0.006)
    again = enter(admission, 4.0, turn=0.006)  # it shares with the first: four seconds of that, and all of the small
    assert again.ahead == pytest.approx(8.001)
    admission.leave(big, answered=False)
    assert admission.wait(30.0) == pytest.approx(4.001)
    admission.leave(again, answered=False)
    admission.leave(small, answered=False)
    assert admission.wait(30.0) == 0


@given(SECONDS, SECONDS, st.lists(st.tuples(SECONDS, SECONDS), max_size=5))
def test_who_takes_longer_waits_no_less(one: float, more: float, others: list[tuple[float, float]]) -> None:
    admission = make()
    for seconds, turn in others:
        enter(admission, seconds, left=None, turn=turn)
    total = sum(seconds for seconds, _ in others)
    assert admission.wait(one) <= admission.wait(one + more) <= total + 1e-9


def test_how_much_longer_all_takes_than_members_alone_is_learned(clock: Clock) -> None:
    admission = make()
    for _ in range(200):
        ticket = enter(admission, 1.0)
        clock.now += 3.0
        admission.leave(ticket, answered=True)
    enter(admission, 1.0)
    assert admission.wait() == pytest.approx(3.0, rel=0.01)


def test_the_pace_is_never_faster_than_members_and_one_request_changes_little(clock: Clock) -> None:
    admission = make()
    for seconds, answered in ((0.0, True), (1000.0, False)):  # sooner than thought; not waited for
        ticket = enter(admission, 1.0)
        clock.now += seconds
        admission.leave(ticket, answered=answered)
    ticket = enter(admission, 1.0)
    assert admission.wait() == 1.0
    clock.now += 1e9
    admission.leave(ticket, answered=True)
    enter(admission, 1.0)
    assert 1.0 < admission.wait() < 6.0


@pytest.mark.parametrize("seconds", [0.0, TELLING_SECONDS])
def test_what_costs_next_to_nothing_teaches_nothing(clock: Clock, seconds: float) -> None:
    admission = make()
    ticket = enter(admission, seconds)
    clock.now += 5
    admission.leave(ticket, answered=True)
    enter(admission, 1.0)
    assert admission.wait() == 1.0
