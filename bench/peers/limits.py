"""The limit that no server passes: ONNX Runtime on the packed graph, in process, without HTTP.

`python -m bench.peers.limits GRAPH BATCH SECONDS` runs one process and prints its rows a second.
"""

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.peers.bodies import rows
from bench.peers.machine import Shares, clock, shares
from bench.peers.process import SLOW_KERNELS
from bench.peers.workloads import ROOT, open_graph

BATCHES = (1, 8, 64)
PROCESSES = (1, 2)
FEEDS = 16


@dataclass(frozen=True, slots=True)
class Limit:
    processes: int
    batch: int

    @property
    def name(self) -> str:
        return f"raw-{self.processes}p-{self.batch}"


def limits() -> list[Limit]:
    return [Limit(processes, batch) for processes in PROCESSES for batch in BATCHES]


def measure(packed: Path, limit: Limit, seconds: float) -> tuple[float, Shares]:
    """Rows a second of so many processes at once, one thread each, and who used the machine."""
    command = [sys.executable, "-m", "bench.peers.limits", str(packed), str(limit.batch), str(seconds)]
    environment = {key: value for key, value in os.environ.items() if key not in SLOW_KERNELS}
    before = clock(())
    workers = [
        subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(limit.processes)
    ]
    try:
        found = [float(worker.communicate(timeout=seconds + 60)[0]) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    return sum(found), shares(before, clock(()))


def run(packed: Path, batch: int, seconds: float) -> float:
    """Rows a second of this process."""
    average = open_graph(packed)
    feeds = np.split(rows(FEEDS * batch), FEEDS)
    for feed in feeds:
        average(feed)
    done, began = 0, time.perf_counter()
    while (took := time.perf_counter() - began) < seconds:
        for feed in feeds:
            average(feed)
        done += FEEDS * batch
    return done / took


if __name__ == "__main__":
    sys.stdout.write(f"{run(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))}\n")
