"""What the machine says: who has used how much CPU and memory. Linux only: it reads /proc."""

import importlib.metadata
import os
import platform
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
TICKS = os.sysconf("SC_CLK_TCK")
RUN_ID = "COMMITTEE_BENCH_RUN"
"""The variable that a server's processes carry, and by which they are found."""


@dataclass(frozen=True, slots=True)
class Clock:
    """Seconds of CPU until now: of the whole machine, of some processes, of this one and the children it waited for."""

    at: float
    machine: float
    steal: float
    processes: float
    own: float
    children: float


@dataclass(frozen=True, slots=True)
class Shares:
    """Cores in use between two clocks: by the server, by the load (the children), and by everybody else."""

    server: float
    load: float
    foreign: float
    steal: float


def clock(pids: Iterable[int]) -> Clock:
    machine, steal = machine_seconds((PROC / "stat").read_text())
    own = os.times()
    return Clock(
        time.perf_counter(), machine, steal, cpu_seconds(pids), own.user + own.system,
        own.children_user + own.children_system,
    )  # fmt: skip


def shares(before: Clock, after: Clock) -> Shares:
    took = after.at - before.at
    server, load = after.processes - before.processes, after.children - before.children
    foreign = after.machine - before.machine - server - load - (after.own - before.own)
    return Shares(server / took, load / took, max(foreign, 0.0) / took, (after.steal - before.steal) / took)


def machine_seconds(stat: str) -> tuple[float, float]:
    """Of /proc/stat: seconds in which a core was in use since the start, and those of them that were stolen."""
    user, nice, system, _idle, _wait, irq, soft, steal = (int(field) for field in stat.split("\n", 1)[0].split()[1:9])
    return (user + nice + system + irq + soft + steal) / TICKS, steal / TICKS


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time of the processes that still are."""
    total = 0
    for pid in pids:
        try:
            fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


def memory_mb(pids: Iterable[int]) -> float:
    """Proportional set size: memory that processes share counts once."""
    total = 0
    for pid in pids:
        try:
            match = re.search(r"^Pss:\s+(\d+)", (PROC / str(pid) / "smaps_rollup").read_text(), re.MULTILINE)
        except OSError:
            continue
        total += int(match[1]) if match else 0
    return total / 1024


def pids_of(run_id: str) -> list[int]:
    """The processes that carry this run's id in their environment, whoever their parent is by now."""
    mark = f"{RUN_ID}={run_id}".encode()
    found = []
    for entry in PROC.iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def describe() -> dict[str, object]:
    """For the record."""
    cpu = re.search(r"^model name\s*: (.+)", (PROC / "cpuinfo").read_text(), re.MULTILINE)
    memory = re.search(r"^MemTotal:\s+(\d+)", (PROC / "meminfo").read_text(), re.MULTILINE)
    return {
        "cpu": cpu[1] if cpu else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(int(memory[1]) / 2**20, 1) if memory else None,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "onnxruntime": importlib.metadata.version("onnxruntime"),
        "numpy": importlib.metadata.version("numpy"),
    }
