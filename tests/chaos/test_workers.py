"""Workers and their supervisor die, stop and stand while clients ask.

One that loads is none of them, and one that cannot be made ends nothing: `tests/server/test_supervisor.py`.
"""

import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from tests import tiny
from tests.chaos.report import Line, only_long, times
from tests.server.processes import SECONDS, Server, children, running, until, until_said
from tests.server.test_supervisor import BLOCKABLE, READY, ready, replaced
from tests.server.test_workers import shared_folder
from tests.server.traffic import Traffic, after

CLIENTS = 16


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny.write_ensemble(tmp_path / "models")
    return tmp_path


def test_SIGTERM_with_64_connections_busy(folder: Path, line: Line) -> None:  # noqa: N802
    """Nothing that was sent is lost, nothing refused; then nobody listens."""
    line.note = "seconds until the end"
    for _ in times(2, 100, "SIGTERM"):
        with running(folder, "--workers", "2") as server, Traffic(server.port, clients=64, pause=0.002) as count:
            after(256, count)
            began = time.monotonic()
            assert server.stop() == 0
            line.seconds.append(time.monotonic() - began)
        line.times += 1
        line.add(count)
        assert (count.lost, count.wrong, count.refused) == ([], [], {})
        assert not [entry for entry in server.entries() if entry["level"] != "info"]


def strike(server: Server, line: Line, fault: signal.Signals) -> None:
    """A worker; returns when another serves in its place."""
    victim, began = min(children(server)), time.monotonic()
    born = ready(server)
    os.kill(victim, fault)
    until(lambda: ready(server) > born and victim not in children(server))
    line.seconds.append(time.monotonic() - began)
    line.times += 1


def until_gone(pids: set[int]) -> None:
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))


@pytest.mark.parametrize(
    "fault", [signal.SIGKILL, pytest.param(signal.SIGSEGV, marks=only_long)], ids=lambda fault: fault.name
)
def test_a_worker_gets(folder: Path, line: Line, fault: signal.Signals) -> None:
    """What was in flight in it is lost, and nothing else."""
    line.note = "seconds until there are as many workers as before"
    with running(folder, "--workers", "2") as server:
        with Traffic(server.port, clients=CLIENTS) as count:
            for _ in times(*((3, 100) if fault is signal.SIGKILL else (1, 20)), fault.name):
                lost = len(count.lost)
                after(2 * CLIENTS, count)
                strike(server, line, fault)
                assert len(count.lost) - lost <= CLIENTS
        line.add(count)
        assert (count.wrong, count.refused, count.unconnected) == ([], {}, 0)
        assert len(server.said(f"^a worker was ended by {fault.name}")) == line.times
        assert server.stop() == 0


def test_a_worker_gets_SIGSTOP(folder: Path, line: Line) -> None:  # noqa: N802
    """Who connects meanwhile is answered by the others."""
    line.note = "seconds until there are as many workers as before"
    with running(folder, "--workers", "2") as server:
        for n in times(1, 10, "SIGSTOP"):
            with Traffic(server.port, clients=CLIENTS) as held:
                after(2 * CLIENTS, held)
                victim, began = min(children(server)), time.monotonic()
                os.kill(victim, signal.SIGSTOP)
                with Traffic(server.port, clients=CLIENTS) as fresh:
                    after(2 * CLIENTS, fresh)
                    assert victim in children(server)
                    until_said(server, READY, n + 3)
                    line.seconds.append(time.monotonic() - began)
                line.add(fresh)
                assert (fresh.lost, fresh.wrong) == ([], [])
            line.times += 1
            line.add(held)
            assert len(held.lost) <= CLIENTS
            assert held.wrong == []
        assert replaced(server) == {"silent": line.times}
        assert not any("where" in told for told in server.said("^a worker's event loop has stood"))  # it could not say
        assert server.stop() == 0


@only_long
def test_an_event_loop_is_blocked_for_12_seconds(folder: Path, line: Line) -> None:
    line.note = "seconds until there are as many workers as before"
    program = ("-c", BLOCKABLE.replace("60", "12"), "sleep")
    with running(folder, "--workers", "2", program=program) as server:
        for _ in times(1, 5, "blocked"):
            with Traffic(server.port, clients=CLIENTS) as count:
                after(2 * CLIENTS, count)
                strike(server, line, signal.SIGUSR1)
            line.add(count)
            assert len(count.lost) <= CLIENTS
            assert (count.wrong, count.unconnected) == ([], 0)
        assert server.stop() == 0


def test_the_supervisor_gets_SIGKILL(folder: Path, line: Line) -> None:  # noqa: N802
    """Its workers answer what they have, and end."""
    line.note = "seconds until no process is left"
    for _ in times(1, 10, "supervisor"):
        with running(folder, "--workers", "2") as server, Traffic(server.port, clients=CLIENTS) as count:
            after(2 * CLIENTS, count)
            workers, shared = children(server), shared_folder(server)
            began = time.monotonic()
            server.process.kill()
            server.process.wait(SECONDS)
            until_gone(workers)
            line.seconds.append(time.monotonic() - began)
        shutil.rmtree(shared)  # kill -9 leaves nobody to do it
        line.times += 1
        line.add(count)
        assert (count.lost, count.wrong) == ([], [])
