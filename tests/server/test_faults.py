import pytest

from server import errors
from server.errors import CommitteeError
from server.faults import INTERNAL, MESSAGE_LIMIT, message_of, message_of_unforeseen, shortened


@pytest.mark.parametrize("cls", [errors.TooLarge, errors.NotReady, errors.QuorumMissed, errors.DeadlineExceeded])
def test_what_callers_may_know_is_told(cls: type[CommitteeError], caplog: pytest.LogCaptureFixture) -> None:
    assert message_of(cls("what came")) == "what came"
    assert not caplog.records


@pytest.mark.parametrize(
    ("cls", "said"),
    [
        (errors.InternalError, INTERNAL),
        (errors.InvalidRepository, INTERNAL),
        (CommitteeError, INTERNAL),
        (errors.MemberFailed, "a member of the ensemble could not answer; the server's log says more"),
    ],
)
def test_faults_of_ours_are_logged(cls: type[CommitteeError], said: str, caplog: pytest.LogCaptureFixture) -> None:
    assert message_of(cls("/etc/secret")) == said
    [record] = caplog.records
    assert record.getMessage() == "/etc/secret"
    assert record.exc_info


def test_what_nobody_foresaw(caplog: pytest.LogCaptureFixture) -> None:
    assert message_of_unforeseen(ZeroDivisionError("/etc/secret")) == INTERNAL
    assert [record.getMessage() for record in caplog.records] == ["unexpected ZeroDivisionError"]


def test_messages_are_bounded() -> None:
    assert shortened("\ud800" + "x" * MESSAGE_LIMIT) == "?" + "x" * (MESSAGE_LIMIT - 1) + "…"
