"""A server as a process: started, awaited until it answers rightly, and ended, with all that it has started."""

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.peers.bodies import Request
from bench.peers.contenders import Contender
from bench.peers.environments import python
from bench.peers.machine import RUN_ID, pids_of
from bench.peers.workloads import ROOT, WORK

ANSWER_SECONDS = 20
STOP_SECONDS = {signal.SIGTERM: 8, signal.SIGKILL: 3}
SLOW_KERNELS = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
"""Variables of some machines that a server would not have: they are kept from it."""


class ServerFailed(Exception):
    pass


@dataclass(frozen=True, slots=True)
class Running:
    port: int
    run_id: str
    start_seconds: float

    @property
    def pids(self) -> list[int]:
        return pids_of(self.run_id)


@contextlib.contextmanager
def running(contender: Contender, workload: Path, first: Request, work: Path = WORK) -> Iterator[Running]:
    """Start it, wait until it answers `first` with 200, and end it with all its processes. Raises ServerFailed."""
    run_id, log = uuid.uuid4().hex, work / "logs" / f"{contender.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    port, second = free_ports(2)
    said = {
        "port": port, "second_port": second, "repository": workload / "repository", "name": workload.name
    }  # fmt: skip
    command = [str(python(contender.environment)), *(argument.format(**said) for argument in contender.arguments)]
    environment = {key: value for key, value in os.environ.items() if key not in SLOW_KERNELS}
    environment |= {
        RUN_ID: run_id,
        "PORT": str(port),
        "SECOND_PORT": str(second),
        "MEMBERS": str(workload / "members"),
        "SCRATCH": str(work / "scratch" / contender.name),
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        **contender.variables,
    }
    began = time.perf_counter()
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
        )
    try:
        _await(process, port, first, contender.start_seconds, log)
        yield Running(port, run_id, time.perf_counter() - began)
    finally:
        stop(run_id)
        process.wait(timeout=STOP_SECONDS[signal.SIGKILL])


def ask(port: int, request: Request) -> tuple[int, dict[str, str], bytes]:
    """Status, headers with small names, and body. Raises OSError or HTTPException."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_SECONDS)
    try:
        connection.request("POST", request.path, request.body, dict(request.headers))
        response = connection.getresponse()
        return response.status, {key.lower(): value for key, value in response.getheaders()}, response.read()
    finally:
        connection.close()


def stop(run_id: str) -> None:
    """End the processes that carry the id, by their numbers."""
    for sign, seconds in STOP_SECONDS.items():
        for pid in pids_of(run_id):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, sign)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if not pids_of(run_id):
                return
            time.sleep(0.05)


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _await(process: subprocess.Popen[bytes], port: int, request: Request, seconds: int, log: Path) -> None:
    end, last = time.monotonic() + seconds, "no answer"
    while time.monotonic() < end:
        if process.poll() is not None:
            raise ServerFailed(f"ended with {process.returncode} at its start; {log} says why")
        try:
            status, _, body = ask(port, request)
            if status == http.client.OK:
                return
            last = f"{status} {body[:200]!r}"
        except (OSError, http.client.HTTPException) as exc:
            last = repr(exc)
        time.sleep(0.02)
    raise ServerFailed(f"not ready after {seconds} s: {last}; see {log}")
