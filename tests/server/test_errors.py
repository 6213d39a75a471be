from collections import defaultdict

import pytest

from server import errors
from server.errors import (
    CommitteeError,
    DeadlineExceeded,
    InternalError,
    InvalidInput,
    MemberFailed,
    Overloaded,
    QuorumMissed,
    TooLarge,
    Unavailable,
)


def tree(root: type[CommitteeError] = CommitteeError) -> list[type[CommitteeError]]:
    return [root, *(below for child in root.__subclasses__() for below in tree(child))]


def test_the_tree_holds_every_error_of_the_module() -> None:
    assert {error.__name__ for error in tree() if error.__module__ == errors.__name__} == {
        name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, CommitteeError)
    }


def test_only_the_base_and_internal_error_share_a_code() -> None:
    by_code = defaultdict(set)
    for error in tree():
        by_code[error.code].add(error)
    shared = [errors for errors in by_code.values() if len(errors) > 1]
    assert shared == [{CommitteeError, InternalError}]


@pytest.mark.parametrize("error", tree())
def test_every_error_keeps_its_message(error: type[CommitteeError]) -> None:
    raised = error("rows: expected 4 numbers, got 3")
    assert raised.message == str(raised) == "rows: expected 4 numbers, got 3"


@pytest.mark.parametrize("error", tree())
def test_every_error_is_drawn_in_the_tree_of_the_module(error: type[CommitteeError]) -> None:
    assert error.__name__ in (errors.__doc__ or "")


def test_what_is_too_large_is_an_invalid_input_and_an_overload_is_unavailability() -> None:
    assert issubclass(TooLarge, InvalidInput)
    assert issubclass(Overloaded, Unavailable)
    assert not issubclass(Unavailable, InvalidInput)


def test_a_quorum_that_is_missed_is_a_failure_of_members_and_a_deadline_is_none() -> None:
    assert issubclass(QuorumMissed, MemberFailed)
    assert (QuorumMissed.code, DeadlineExceeded.code) == ("quorum_missed", "deadline_exceeded")
    assert not issubclass(DeadlineExceeded, MemberFailed | Unavailable)


def test_unavailability_says_when_to_try_again() -> None:
    assert Overloaded("the queue is full").retry_after == 1
    assert Overloaded("the queue is full", retry_after=7).retry_after == 7
