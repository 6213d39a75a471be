"""The machine fails: its clock, its descriptors, its memory for files, its disk.

No process for a worker: `tests/server/test_supervisor.py`. A provider that is not there, graph by graph:
`test_session.py`. A port in use: `test_workers.py`.
"""

import os
import resource
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests import tiny
from tests.chaos.report import Line, only_long, times
from tests.server.processes import BODY, SECONDS, children, roll, running, start, until, until_said
from tests.server.served_http import Reader, get
from tests.server.test_supervisor import READY, ready
from tests.server.test_workers import connect, is_listening
from tests.server.traffic import Traffic, after

JUMPING = """
import random, sys, time
real = time.time
time.time = lambda: real() + random.choice((-7200, 0, 7200))
from server import cli
sys.exit(cli.run(sys.argv[1:]))
"""
"""A server to which it is now one time, now two hours earlier or later, each time that it looks."""
APART = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def mount(*args):
    if libc.mount(*args):
        raise OSError(ctypes.get_errno(), "no mount")
if libc.unshare(0x20000):
    raise OSError(ctypes.get_errno(), "no namespace")
mount(b"none", b"/", None, 0x44000, None)
what, where = sys.argv[1], os.fsencode(sys.argv[2])
if what == "small":
    mount(b"none", where, b"tmpfs", 0, b"size=" + os.fsencode(sys.argv[3]))
else:
    mount(where, where, None, 0x1000, None)
    mount(b"none", where, None, 0x1021, None)
del sys.argv[1:4]
if sys.argv[1:]:
    from server import cli
    sys.exit(cli.run(sys.argv[1:]))
"""
"""A server that sees a folder as a small file system in memory, or as one that cannot be written to."""
SPEECHLESS = """
import os, sys
os.dup2(os.open("/dev/full", os.O_WRONLY), 2)
from server import cli
sys.exit(cli.run(sys.argv[1:]))
"""
"""A server whose log goes to a disk that is full."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny.write_ensemble(tmp_path / "models")
    return tmp_path


@pytest.fixture
def namespaces(tmp_path: Path) -> None:
    made = subprocess.run([sys.executable, "-c", APART, "ro", str(tmp_path), "-"], capture_output=True, check=False)
    if made.returncode:
        pytest.skip("file systems can be mounted by root alone")


def limit_files(pid: int, most: int) -> tuple[int, int]:
    """Let a process open no file beyond so many, though it has them; returns what it could before."""
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (most, before[1]))
    return before


def fill_up(path: Path) -> None:
    """All that its file system has."""
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)):
            pass


def test_the_clock_jumps(folder: Path, line: Line) -> None:
    """By hours, forward and back: deadlines, heartbeats and stops go by another."""
    with running(folder, "--workers", "2", program=("-c", JUMPING)) as server:
        with Traffic(server.port) as count:
            for _ in times(1, 10, "clock"):
                after(100, count)
                roll(server)
                line.times += 1
        line.add(count)
        assert (count.lost, count.wrong, count.refused, count.unconnected) == ([], [], {}, 0)
        assert server.stop() == 0
    assert not [entry for entry in server.entries() if entry["level"] != "info"]


def test_nothing_in_the_server_waits_by_the_clock_on_the_wall() -> None:
    """Who asks it, publishes it."""
    askers = {path.name for path in Path("server").rglob("*.py") if "time.time(" in path.read_text()}
    assert askers == {"telemetry.py"}


def test_no_file_can_be_opened(folder: Path, line: Line) -> None:
    """Who is connected is served, who connects waits."""
    with running(folder, "--workers", "1") as server:
        with Traffic(server.port) as count:
            after(16, count)
            for _ in times(1, 10, "files"):
                [worker] = children(server)
                before = limit_files(worker, len(list(Path(f"/proc/{worker}/fd").iterdir())) + 4)
                with ExitStack() as held:
                    crowd = [held.enter_context(connect(server.port)) for _ in range(16)]
                    until(lambda: server.said("^no connection can be accepted: .* Too many open files"))
                    after(16, count)
                    resource.prlimit(worker, resource.RLIMIT_NOFILE, before)
                    for client in crowd:
                        client.sendall(get("/v2/health/live"))
                        assert Reader(client).answer().status == 200
                line.times += 1
        line.add(count)
        assert (count.lost, count.wrong, count.refused, count.unconnected) == ([], [], {}, 0)
        assert server.stop() == 0


@only_long
def test_the_supervisor_can_open_no_file(folder: Path, line: Line) -> None:
    """A worker that dies is replaced once it can; meanwhile the others serve."""
    with running(folder, "--workers", "2") as server:
        with Traffic(server.port) as count:
            after(16, count)
            for n in times(1, 10, "files"):
                before, born = limit_files(server.process.pid, 3), ready(server)
                os.kill(min(children(server)), signal.SIGKILL)
                until_said(server, "^no worker can be made, .* Too many open files", n + 1)
                after(16, count)
                resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, before)
                until_said(server, READY, born + 1)
                line.times += 1
        line.add(count)
        assert len(count.lost) <= 8 * line.times
        assert (count.wrong, count.refused, count.unconnected) == ([], {}, 0)
        assert server.stop() == 0


@pytest.mark.usefixtures("namespaces")
def test_the_memory_for_shared_files_is_full(folder: Path, line: Line) -> None:
    """Workers serve and count on; one that dies is replaced once there is room."""
    program = ("-c", APART, "small", "/dev/shm", "4m")
    with running(folder, "--workers", "2", program=program) as server:
        fill = Path(f"/proc/{server.process.pid}/root/dev/shm/fill")
        for _ in times(1, 5, "memory"):
            with Traffic(server.port) as count:
                after(16, count)
                fill_up(fill)
                after(64, count)
                assert server.request("GET", "/metrics")[0] == 200
                assert server.request("POST", "/predict?strategy=median", BODY)[0] == 200  # another label
            line.add(count)
            assert (count.lost, count.wrong, count.refused, count.unconnected) == ([], [], {}, 0)
            refused = len(server.said("^a worker could not be replaced, .*No space"))
            born = ready(server)
            os.kill(min(children(server)), signal.SIGKILL)
            until_said(server, "^a worker could not be replaced, .*No space", refused + 1)
            assert server.request("POST", "/predict", BODY)[0] == 200
            fill.unlink()
            server.process.send_signal(signal.SIGHUP)  # at once, and not in ten seconds
            until_said(server, READY, born + 2)
            until(lambda: len(children(server)) == 2)
            line.times += 1
        assert server.stop() == 0


@pytest.mark.usefixtures("namespaces")
def test_a_start_without_memory_for_shared_files(folder: Path) -> None:
    server = start(folder, "--port", "0", program=("-c", APART, "small", "/dev/shm", "16k"))
    assert server.process.wait(SECONDS) == 1
    assert server.log.read_text() == (
        "committee-server: no folder for temporary files: [Errno 28] No space left on device\n"
    )


@only_long
@pytest.mark.usefixtures("namespaces")
def test_the_repository_is_read_only(folder: Path, line: Line) -> None:
    """Nothing is written to it."""
    program = ("-c", APART, "ro", str(folder / "models"), "-")
    with running(folder, "--workers", "2", program=program) as server:
        inside = Path(f"/proc/{server.process.pid}/root{folder}/models/x")
        with pytest.raises(OSError, match="Read-only"):
            inside.touch()
        with Traffic(server.port) as count:
            after(16, count)
            roll(server)
        line.times += 1
        line.add(count)
        assert (count.lost, count.wrong, count.refused, count.unconnected) == ([], [], {}, 0)
        assert server.stop() == 0


def test_the_disk_of_the_log_is_full(folder: Path, line: Line) -> None:
    """What cannot be told is not, and all else goes on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    server = start(folder, "--workers", "2", "--port", str(port), program=("-c", SPEECHLESS))
    server.port = port
    try:
        until(lambda: is_listening(port) and len(children(server)) == 2)
        with Traffic(port) as count:
            after(16, count)
            victim = min(children(server))
            os.kill(victim, signal.SIGKILL)
            until(lambda: victim not in children(server) and len(children(server)) == 2)
            after(16, count)
        line.times += 1
        line.add(count)
        assert len(count.lost) <= 8
        assert count.wrong == []
    finally:
        assert server.stop() == 0


@only_long
def test_a_provider_is_not_there(folder: Path, line: Line) -> None:
    """Graphs do not run by another instead: the server does not start."""
    server = start(folder, "--port", "0", "--providers", "cuda")
    assert server.process.wait(SECONDS) not in (0, None)
    last = server.entries()[-1]
    assert "expected provider 'cuda'; this onnxruntime has cpu" in last["message"]
    line.times, line.note = 1, "refused in one line"
