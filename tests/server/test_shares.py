import os
import time
from pathlib import Path

import pytest

from server import shares as module
from server.shares import PLACES, Shares

PEER = 1 << 20
"""The process id of a worker that is not there."""


def joined(path: Path, number: int, pid: int | None = None, count: int = 0) -> Shares:
    """What a worker of this number sees, of this process or, as far as the file tells, of another."""
    with pytest.MonkeyPatch.context() as patch:
        if pid is not None:
            patch.setattr(os, "getpid", lambda: pid)
        shares = Shares(path)
        shares.join(number)
        shares.tell(count)
    return shares


def test_each_worker_sees_the_numbers_of_the_others(tmp_path: Path) -> None:
    path = tmp_path / "connections"
    one = joined(path, 1)
    assert one.of_others() == []
    joined(path, 2, PEER, count=7)
    assert one.of_others() == [7]
    joined(path, 3, PEER + 1, count=3)
    assert one.of_others() == [7, 3]
    one.tell(100)
    assert one.of_others() == [7, 3]


def test_a_worker_that_is_gone_counts_no_more(tmp_path: Path) -> None:
    path = tmp_path / "connections"
    one = joined(path, 1)
    joined(path, 2, PEER)
    Shares(path).forget(2)
    assert one.of_others() == []
    assert Shares(path).sign(2, PEER) is None
    Shares(path).forget(2)  # there is nothing to forget


def test_a_worker_that_does_not_stir_counts_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "connections"
    one, peer = joined(path, 1), joined(path, 2, PEER)
    assert one.of_others() == [0]
    now = time.monotonic()
    monkeypatch.setattr(module, "monotonic", lambda: now + 2 * module.SILENT_SECONDS)
    assert one.of_others() == []
    monkeypatch.setattr(os, "getpid", lambda: PEER)
    peer.beat()
    assert one.of_others() == [0]


def test_a_worker_that_has_retired_counts_no_more_and_stirs(tmp_path: Path) -> None:
    path = tmp_path / "connections"
    one = joined(path, 1)
    peer = joined(path, 2)
    peer.retire()
    assert one.of_others() == []
    before = one.sign(2, os.getpid())
    assert before is not None
    assert before.retired
    peer.tell(3)
    peer.beat()
    after = one.sign(2, os.getpid())
    assert after is not None
    assert after.retired
    assert after.beat > before.beat


def test_the_supervisor_sees_when_a_worker_has_stirred(tmp_path: Path) -> None:
    path = tmp_path / "connections"
    supervisor = Shares(path)
    assert supervisor.sign(PLACES - 1, os.getpid()) is None
    one = joined(path, PLACES - 1)
    first = supervisor.sign(PLACES - 1, os.getpid())
    assert first is not None
    assert not first.retired
    one.beat()
    second = supervisor.sign(PLACES - 1, os.getpid())
    assert second is not None
    assert second.beat > first.beat
    assert supervisor.sign(PLACES - 1, PEER) is None


def test_who_has_not_joined_only_looks(tmp_path: Path) -> None:
    path = tmp_path / "connections"
    supervisor = Shares(path)
    supervisor.tell(9)
    one = joined(path, 1)
    assert one.of_others() == []


def test_no_room_for_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told at once, and not by a SIGBUS once a worker writes."""

    def full(*_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        Shares(tmp_path / "connections")
