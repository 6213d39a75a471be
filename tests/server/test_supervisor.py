"""Workers that die, stand or never begin, under a real supervisor; while clients ask: `tests/chaos`."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

from server.supervisor import _Watched
from tests.server.processes import (
    BODY,
    SECONDS,
    Server,
    children,
    endless_member,
    running,
    until,
    until_said,
    write_graph,
)
from tests.tiny import write_ensemble

READY = "^ready to serve"
BLOCKABLE = """
import sys, time
from server import cli, worker
how = {"sleep": lambda: time.sleep(60), "c": lambda: sum(range(10**13))}[sys.argv.pop(1)]
worker.Worker.handle_usr1 = lambda *_: how()
sys.exit(cli.run(sys.argv[1:]))
"""
"""A server whose workers, on SIGUSR1, stand: asleep, or in a call in C that gives nobody else a turn."""
SLOW = """
import os, sys, time
from pathlib import Path
from server import cli, supervisor, worker
supervisor.SILENCE_SECONDS, supervisor.LOAD_SECONDS = float(sys.argv[1]), 2.0
load = worker.Worker.load_wsgi
fault = Path(sys.argv[2])
def slowly(self):
    time.sleep(float(fault.read_text()) if fault.exists() else 0)
    load(self)
worker.Worker.load_wsgi = slowly
sys.exit(cli.run(sys.argv[3:]))
"""
"""A server that bears so much silence of its workers, which take as many seconds to load as a file says."""
FORGETFUL = """
import sys
from pathlib import Path
from server import cli
from gunicorn.workers.base import Worker
load = Worker.load_wsgi
def fail(self):
    if Path(sys.argv[1]).exists():
        raise MemoryError
    load(self)
Worker.load_wsgi = fail
sys.exit(cli.run(sys.argv[2:]))
"""
"""A server whose workers have no memory to load by while a file is there."""
UNLUCKY = """
import os, sys
from pathlib import Path
from server import cli
fork = os.fork
def unlucky():
    if Path(sys.argv[1]).exists():
        raise BlockingIOError(11, "Resource temporarily unavailable")
    return fork()
os.fork = unlucky
sys.exit(cli.run(sys.argv[2:]))
"""
"""A server that can make no process while a file is there."""


def replaced(server: Server) -> dict[str, float]:
    """Workers, by why."""
    name = "committee_workers_replaced_total"
    return {key[len(name) + 8 : -2]: value for key, value in server.metrics().items() if key.startswith(name) and value}


def ready(server: Server) -> int:
    """How many workers have begun to serve."""
    return len(server.said(READY))


@pytest.mark.parametrize("how", ["sleep", "c"])
def test_a_worker_whose_event_loop_stands_is_replaced_and_the_log_says_where_it_stood(tmp_path: Path, how: str) -> None:
    write_ensemble(tmp_path / "models")
    with running(tmp_path, "--workers", "2", program=("-c", BLOCKABLE, how)) as server:
        victim, other = sorted(children(server))
        os.kill(victim, signal.SIGUSR1)
        until(lambda: victim not in children(server))
        until(lambda: ready(server) == 3)
        assert other in children(server)
        [told] = server.said("^a worker's event loop has stood for ")
        assert told["worker"] == victim
        assert told["where"][0].startswith('File "<string>", line 4 in ')
        assert replaced(server) == {"silent": 1}
        assert server.stop() == 0


def test_a_worker_that_crashes_is_replaced(tmp_path: Path) -> None:
    write_ensemble(tmp_path / "models")
    with running(tmp_path, "--workers", "1") as server:
        for n, how in enumerate((signal.SIGSEGV, signal.SIGKILL), start=2):
            [victim] = children(server)
            os.kill(victim, how)
            until_said(server, READY, n)
            [told] = server.said(f"^a worker was ended by {how.name}, so another takes its place")
            assert told["worker"] == victim
        assert replaced(server) == {"died": 2}
        assert server.stop() == 0


def test_a_worker_that_loads_is_not_taken_for_one_that_stands(tmp_path: Path) -> None:
    write_ensemble(tmp_path / "models")
    (tmp_path / "seconds").write_text("2.5")
    with running(tmp_path, "--workers", "1", program=("-c", SLOW, "1.5", str(tmp_path / "seconds"))) as server:
        assert replaced(server) == {}
        assert server.stop() == 0
    assert not [entry for entry in server.entries() if entry["level"] != "info"]


def test_a_worker_that_does_not_end_loading_is_replaced(tmp_path: Path) -> None:
    write_ensemble(tmp_path / "models")
    fault = tmp_path / "seconds"
    program = ("-c", SLOW, "3.5", str(fault))
    with running(tmp_path, "--workers", "2", "--trial-seconds", "2", program=program) as server:
        fault.write_text("60")
        os.kill(min(children(server)), signal.SIGKILL)
        until(lambda: server.said("^a worker has not loaded in 2 seconds, so it is killed"))
        fault.unlink()
        until(lambda: ready(server) == 3)
        assert replaced(server) == {"died": 1, "slow_load": 1}
        assert server.stop() == 0


def test_what_stood_still_with_the_whole_machine_is_not_replaced(tmp_path: Path) -> None:
    """As under Ctrl-Z, or on a virtual machine that is paused: the supervisor has not seen the time go by."""
    write_ensemble(tmp_path / "models")
    with running(tmp_path, "--workers", "2", program=("-c", SLOW, "2", str(tmp_path / "seconds"))) as server:
        before = children(server)
        os.killpg(server.process.pid, signal.SIGSTOP)
        time.sleep(3)
        os.killpg(server.process.pid, signal.SIGCONT)
        for _ in range(8):
            assert server.request("POST", "/predict", BODY)[0] == 200
        assert children(server) == before
        assert server.stop() == 0


def test_where_no_process_can_be_made_the_server_goes_on_and_tries_again(tmp_path: Path) -> None:
    write_ensemble(tmp_path / "models")
    with running(tmp_path, "--workers", "2", program=("-c", UNLUCKY, str(tmp_path / "full"))) as server:
        (tmp_path / "full").touch()
        os.kill(min(children(server)), signal.SIGKILL)
        until(lambda: server.said("^no worker can be made, the next try is in 1 seconds: "))
        assert server.request("POST", "/predict", BODY)[0] == 200
        (tmp_path / "full").unlink()
        until(lambda: ready(server) == 3)
        assert len(children(server)) == 2
        assert server.stop() == 0


def test_a_worker_that_cannot_load_for_no_foreseen_reason_does_not_end_the_server(tmp_path: Path) -> None:
    write_ensemble(tmp_path / "models")
    broken = tmp_path / "broken"
    with running(tmp_path, "--workers", "2", program=("-c", FORGETFUL, str(broken))) as server:
        broken.touch()
        os.kill(min(children(server)), signal.SIGKILL)
        until(lambda: server.said("^a worker could not be replaced, the next tries in 10 seconds: MemoryError"))
        assert server.request("POST", "/predict", BODY)[0] == 200
        assert len(children(server)) >= 1
        assert server.stop() == 0


def test_a_reload_keeps_as_many_serving_as_there_should_be(tmp_path: Path) -> None:
    """Those that go are told to when those that come serve, however long these load."""
    write_ensemble(tmp_path / "models")
    (tmp_path / "seconds").write_text("1")
    with running(tmp_path, "--workers", "1", program=("-c", SLOW, "3.5", str(tmp_path / "seconds"))) as server:
        [old] = children(server)
        write_ensemble(tmp_path / "models", version=2)
        server.process.send_signal(signal.SIGHUP)
        until(lambda: len(children(server)) == 2 and not trials(server))
        assert old in children(server)
        assert answering(server) == 1
        until(lambda: ready(server) == 2)
        until(lambda: old not in children(server))
        assert answering(server) == 2
        assert server.stop() == 0
    assert not [entry for entry in server.entries() if entry["level"] != "info"]


def test_a_reload_with_broken_keys_is_refused(tmp_path: Path) -> None:
    write_ensemble(tmp_path / "models")
    keys = tmp_path / "keys"
    keys.write_text("* predict\n")
    with running(tmp_path, "--workers", "1", "--keys-file", str(keys)) as server:
        before = children(server)
        keys.write_text("x\n")
        server.process.send_signal(signal.SIGHUP)
        until(lambda: server.said(f"^not reloaded: {keys}: line 1: "))
        assert server.request("POST", "/predict", BODY)[0] == 200
        assert children(server) == before
        assert server.stop() == 0


def test_many_reloads_at_once_are_few(tmp_path: Path) -> None:
    write_ensemble(tmp_path / "models")
    with running(tmp_path, "--workers", "1") as server:
        for _ in range(32):
            server.process.send_signal(signal.SIGHUP)
            time.sleep(0.01)
        until(lambda: ready(server) >= 2)
        until(lambda: len(children(server)) == 1)
        assert server.request("POST", "/predict", BODY)[0] == 200
        assert server.stop() == 0
        assert ready(server) <= 4


def test_a_worker_that_dies_while_a_reload_is_tried_is_replaced_meanwhile(tmp_path: Path) -> None:
    write_ensemble(tmp_path / "models")
    with running(tmp_path, "--workers", "1", "--versions", "all") as server:
        [victim] = children(server)
        write_graph(tmp_path / "models", endless_member(), version=2)
        server.process.send_signal(signal.SIGHUP)
        until(lambda: len(children(server)) == 2)
        os.kill(victim, signal.SIGKILL)
        until(lambda: victim not in children(server) and len(children(server)) == 2)
        assert server.stop() == 0


def test_a_stop_does_not_wait_for_a_worker_that_is_stopped(tmp_path: Path) -> None:
    write_ensemble(tmp_path / "models")
    program = ("-c", SLOW, "0.5", str(tmp_path / "seconds"))
    with running(tmp_path, "--workers", "2", program=program) as server:
        os.kill(min(children(server)), signal.SIGSTOP)
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < SECONDS / 2


def test_silence_counts_from_the_last_beat_that_was_seen() -> None:
    watched = _Watched(0)
    for beat, seconds, silent in ((0.0, 1.0, 1.0), (0.0, 0.5, 1.5), (7.0, 0.5, 0.0), (7.0, 0.5, 0.5), (8.0, 9.0, 0.0)):
        watched.see(beat, seconds)
        assert (watched.beat, watched.silent) == (beat, silent)


def trials(server: Server) -> list[int]:
    """Processes that try what is to be reloaded."""
    return [pid for pid in children(server) if b"verify" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def answering(server: Server) -> int:
    """The version that answers."""
    status, body = server.request("POST", "/predict", BODY)
    assert status == 200
    return int(json.loads(body)["version"])
