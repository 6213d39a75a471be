"""A server of this checkout as people start it, for a while. Linux only: it reads /proc."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.peers.process import free_ports

START_SECONDS = 60
STOP_SECONDS = 40


class NotServing(Exception):
    pass


@dataclass(frozen=True, slots=True)
class Serving:
    process: "subprocess.Popen[bytes]"
    port: int
    rpc_port: int
    log: Path

    def workers(self) -> set[int]:
        """Their process ids; one that only tries a repository counts too, while it does."""
        return set(map(int, Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()))

    def ready(self) -> set[int]:
        """The process ids of all workers that have ever begun to serve."""
        return {entry["pid"] for entry in self.entries() if entry["message"] == "ready to serve"}

    def entries(self) -> list[dict[str, Any]]:
        """What it has logged."""
        lines = self.log.read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]


@contextmanager
def serving(log: Path, *options: str, workers: int = 2) -> Iterator[Serving]:
    """With all its workers ready; stopped with the block. Raises NotServing if it does not start."""
    port, rpc_port = free_ports(2)
    command = [sys.executable, "-m", "server", "--port", str(port), "--grpc-port", str(rpc_port)]
    with log.open("wb") as stderr:
        process = subprocess.Popen([*command, "--workers", str(workers), *options], stderr=stderr)
    found = Serving(process, port, rpc_port, log)
    try:
        end = time.monotonic() + START_SECONDS
        while len(found.ready()) < workers:
            if process.poll() is not None or time.monotonic() > end:
                raise NotServing(f"the server does not start: {log.read_text()[-500:]}")
            time.sleep(0.05)
        yield found
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
