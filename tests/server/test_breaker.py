import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.breaker import Breaker, State


class Clocked:
    """A breaker and its clock; `states` are those that it has told of."""

    def __init__(self, failures: int = 3, cooldown: float = 10.0) -> None:
        self.states: list[State] = []
        self.breaker = Breaker(failures=failures, cooldown=cooldown, changed=self.states.append)
        self.now = 0.0

    def fail(self, times: int = 1) -> None:
        for _ in range(times):
            self.breaker.failed(self.now)

    def allows(self) -> bool:
        return self.breaker.allows(self.now)

    def state(self) -> State:
        return self.breaker.state(self.now)


def test_it_opens_after_so_many_failures_in_a_row() -> None:
    member = Clocked(failures=3)
    member.fail(2)
    assert member.allows()
    member.breaker.answered()
    member.fail(2)
    assert member.allows()
    member.fail()
    assert not member.allows()
    assert member.state() == "open"
    assert member.states == ["open"]


def test_after_a_while_one_at_a_time_may_try() -> None:
    member = Clocked(failures=1, cooldown=10)
    member.fail()
    member.now = 9.9
    assert not member.allows()
    member.now = 10.0
    assert member.state() == "half_open"
    assert member.allows()
    assert not member.allows()  # the first one is trying


def test_a_trial_that_is_never_heard_of_again_is_followed_by_another() -> None:
    member = Clocked(failures=1, cooldown=10)
    member.fail()
    member.now = 10
    assert member.allows()
    member.now = 20
    assert member.allows()


def test_a_trial_that_succeeds_closes_it() -> None:
    member = Clocked(failures=1, cooldown=10)
    member.fail()
    member.now = 10
    assert member.allows()
    member.breaker.answered()
    assert member.state() == "closed"
    assert member.allows()
    assert member.allows()
    assert member.states == ["open", "closed"]


def test_a_trial_that_fails_opens_it_again_at_once() -> None:
    member = Clocked(failures=3, cooldown=10)
    member.fail(3)
    member.now = 10
    assert member.allows()
    member.fail()
    member.now = 19.9
    assert not member.allows()
    member.now = 20
    assert member.allows()
    assert member.states == ["open"]  # it has been open all the time


def test_with_no_number_of_failures_it_never_opens() -> None:
    member = Clocked(failures=0)
    member.fail(1000)
    assert member.allows()
    assert member.state() == "closed"
    assert member.states == []


def test_whoever_fails_or_is_late_is_suspect_until_it_answers() -> None:
    breaker = Breaker(failures=3, cooldown=10)
    seen = [breaker.suspect]
    for happens in (breaker.was_late, breaker.answered, lambda: breaker.failed(0.0), breaker.answered):
        happens()
        seen.append(breaker.suspect)
    assert seen == [False, True, False, True, False]


def test_lateness_alone_never_opens_it() -> None:
    member = Clocked(failures=1)
    for _ in range(100):
        member.breaker.was_late()
    assert member.state() == "closed"


@given(
    failures=st.integers(1, 4),
    steps=st.lists(st.sampled_from(["ask", "answer", "fail", "wait"]), max_size=60),
)
def test_it_is_open_only_after_enough_failures_and_never_for_ever(failures: int, steps: list[str]) -> None:
    member = Clocked(failures=failures, cooldown=10)
    in_a_row = 0
    for step in steps:
        match step:
            case "ask":
                assert member.allows() or in_a_row >= failures
            case "answer":
                member.breaker.answered()
                in_a_row = 0
                assert member.state() == "closed"
            case "fail":
                member.fail()
                in_a_row += 1
                assert (member.state() == "open") == (in_a_row >= failures)
            case "wait":
                member.now += 10
                assert member.state() != "open"
    assert member.states == [("open", "closed")[k % 2] for k in range(len(member.states))]


@pytest.mark.parametrize("state", ["closed", "open"])
def test_asking_for_the_state_changes_nothing(state: State) -> None:
    member = Clocked(failures=1, cooldown=10)
    if state == "open":
        member.fail()
    for _ in range(3):
        assert member.state() == state
    member.now = 10
    assert member.state() == ("half_open" if state == "open" else "closed")
    assert member.allows()
