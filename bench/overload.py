"""Ten times as much as the server can answer: `make overload`, written to bench/results/overload.json. On Linux.

What is served costs about 6 ms a row, and then 28 ms: ten times its capacity can be sent from here too. Measured are
the capacity (busy connections), the 99th percentile at 80 % of it, what becomes of ten times as much, how long refusals
take, whether health and metrics are answered meanwhile, and how long after it all is as before.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import uvloop
from rich.console import Console
from rich.table import Table

from bench.offered import Answer, Load, offer, percentile, saturate
from bench.peers import bodies, machine
from bench.peers.cells import parse
from bench.peers.workloads import ROOT, prepare, workload
from bench.serving import Serving, serving
from export.commands import count, positive

RESULTS = ROOT / "bench" / "results" / "overload.json"
WORKLOADS = ("heavy", "heavy-200")
BUSY = 8
"""Connections that find the capacity: enough for work to wait always, few enough for none to be refused."""
READY, CONNECTIONS = 64, 4000
PART, TIMES = 0.8, 10
WINDOW, STEP = 1.0, 0.25
"""Seconds of answers that are judged together, and between two such."""
NORMAL = 2.0
"""How many times the 99th percentile at 80 % is normal yet."""
PROBE_SECONDS = 1.0
PROBED = ("/v2/health/live", "/v2/health/ready", "/metrics")
GOODPUT, ACCEPTED, REFUSED_SECONDS, RECOVERED_SECONDS = 0.95, 2.0, 0.020, 5.0
"""What is meant to be reached."""


@dataclass(frozen=True, slots=True)
class Probes:
    """Of health and metrics during the overload."""

    asked: int
    failed: int
    p99_ms: float
    max_ms: float


@dataclass(frozen=True, slots=True)
class Found:
    capacity: float
    """Answers a second."""
    p99_ms: float
    """At 80 % of it."""
    offered: float
    """A second, at ten times the capacity."""
    goodput: float
    """Answers a second meanwhile."""
    settled_seconds: float
    """Until the first burst was worked off: from then on the 99th percentile of what was let in is as it stays."""
    accepted_p99_ms: float
    """From then on."""
    accepted_p99_ms_of_all: float
    refused_p50_ms: float
    refused_p99_ms: float
    statuses: dict[str, int]
    without_retry_after: int
    probes: Probes
    recovered_seconds: float
    """After the overload, at 80 % again, until the 99th percentile is normal, and stays so."""
    load_cores: float
    """That this process took during the overload, from the server's."""
    left: float
    """The part of the cores that this leaves."""
    foreign_cores: float

    def verdicts(self) -> dict[str, bool]:
        return {
            "goodput": self.goodput >= GOODPUT * self.left * self.capacity,
            "accepted": self.accepted_p99_ms <= ACCEPTED * self.p99_ms,
            "refusals": self.refused_p99_ms <= REFUSED_SECONDS * 1000 and not self.without_retry_after,
            "health": not self.probes.failed,
            "recovery": self.recovered_seconds < RECOVERED_SECONDS,
        }


def main(arguments: Sequence[str] | None = None) -> int:
    """1 if something was missed."""
    parser = argparse.ArgumentParser("python -m bench.overload", description=__doc__)
    parser.add_argument("--seconds", type=positive, default=20.0, help="of the overload (default: %(default)s)")
    parser.add_argument("--before", type=positive, default=10.0, help="of each other part (default: %(default)s)")
    parser.add_argument("--workloads", nargs="+", type=workload, default=WORKLOADS, help="(default: heavy heavy-200)")
    parser.add_argument("--workers", type=count, default=2)
    parser.add_argument("--options", default="", help="more options of the server, with spaces between them")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    console = Console(highlight=False)
    found = {name: _overload(name, options, console) for name in options.workloads}
    results = {"machine": machine.describe(), **{name: asdict(one) for name, one in found.items()}}
    options.out.write_text(json.dumps(results, indent=1) + "\n")
    console.print(str(options.out))
    return int(not all(all(one.verdicts().values()) for one in found.values()))


def _overload(name: str, options: argparse.Namespace, console: Console) -> Found:
    console.print(f"{name}:")
    folder = prepare(name)
    with tempfile.TemporaryDirectory() as scratch:
        said = ("--models", str(folder / "repository"), "--default", name, *options.options.split())
        with serving(Path(scratch) / "log", *said, workers=options.workers) as server:
            found = uvloop.run(_measure(server, options.before, options.seconds, console))
    console.print(table(found))
    return found


async def _measure(server: Serving, before: float, seconds: float, console: Console) -> Found:
    cell = parse("json1@64")
    requests = [_raw(bodies.request("committee", cell, batch)) for batch in bodies.batches(cell)]
    await saturate(server.port, requests, connections=BUSY, seconds=1.0)  # warm
    console.print("capacity …")
    busy = await saturate(server.port, requests, connections=BUSY, seconds=before)
    capacity = len(busy.of(200)) / before
    console.print(f"{PART:.0%} of {capacity:.0f}/s …")
    usual = await offer(
        server.port, requests, rate=PART * capacity, seconds=before, connections=CONNECTIONS, ready=READY
    )
    console.print(f"{TIMES} times {capacity:.0f}/s …")
    clock, own = machine.clock(server.workers()), time.process_time()
    probing = asyncio.create_task(_probe(server.port, seconds))
    over = await offer(
        server.port, requests, rate=TIMES * capacity, seconds=seconds, connections=CONNECTIONS, ready=READY, seed=1
    )
    took = machine.clock(server.workers())
    console.print(f"{PART:.0%} again …")
    after = await offer(
        server.port, requests, rate=PART * capacity, seconds=before, connections=CONNECTIONS, ready=READY, seed=2
    )
    probes = await probing
    shares = machine.shares(clock, took)
    return judge(
        capacity,
        usual,
        over,
        after,
        probes,
        load=(time.process_time() - own) / (took.at - clock.at),
        foreign=shares.foreign,
        cores=len(os.sched_getaffinity(0)),
    )


def judge(
    capacity: float,
    usual: Load,
    over: Load,
    after: Load,
    probes: Probes,
    *,
    load: float,
    foreign: float,
    cores: int,
) -> Found:
    normal = NORMAL * usual.p99(200)
    settled = settles(over.of(200), over.seconds, normal)
    within = [answer for answer in over.of(200) if answer.due + answer.seconds <= over.seconds]
    refusals = [answer.seconds for answer in over.of(503)]
    return Found(
        capacity=capacity,
        p99_ms=usual.p99(200) * 1e3,
        offered=len(over.answers) / over.seconds,
        goodput=len(within) / over.seconds,
        settled_seconds=settled,
        accepted_p99_ms=percentile([answer.seconds for answer in over.of(200) if answer.due >= settled], 99) * 1e3,
        accepted_p99_ms_of_all=over.p99(200) * 1e3,
        refused_p50_ms=percentile(refusals, 50) * 1e3,
        refused_p99_ms=percentile(refusals, 99) * 1e3,
        statuses={str(status): count for status, count in sorted(Counter(a.status for a in over.answers).items())},
        without_retry_after=sum(not answer.says_when for answer in over.of(503)),
        probes=probes,
        recovered_seconds=settles(after.answers, after.seconds, normal),
        load_cores=load,
        left=1 - load / cores,
        foreign_cores=foreign,
    )


def settles(answers: Sequence[Answer], seconds: float, normal: float) -> float:
    """When the last window begins after one that is not normal: from then on all are. 0 if all are."""
    settled = 0.0
    for k in range(int((seconds - WINDOW) / STEP) + 1):
        begin = k * STEP
        window = [answer for answer in answers if begin <= answer.due < begin + WINDOW]
        refused = any(answer.status != 200 for answer in window)
        if refused or not percentile([answer.seconds for answer in window], 99) <= normal:
            settled = begin + STEP
    return settled


async def _probe(port: int, seconds: float) -> Probes:
    loop = asyncio.get_running_loop()
    end, taken, failed = loop.time() + seconds, [], 0
    while loop.time() < end:
        for path in PROBED:
            began = loop.time()
            failed += not await _get(port, path)
            taken.append(loop.time() - began)
        await asyncio.sleep(PROBE_SECONDS)
    return Probes(len(taken), failed, percentile(taken, 99) * 1e3, max(taken) * 1e3)


async def _get(port: int, path: str) -> bool:
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        return (await reader.read()).startswith(b"HTTP/1.1 200 ")
    except OSError:
        return False
    finally:
        writer.close()


def _raw(request: bodies.Request) -> bytes:
    lines = [f"POST {request.path} HTTP/1.1", "Host: x", f"Content-Length: {len(request.body)}"]
    lines += [f"{name}: {value}" for name, value in request.headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + request.body


def table(found: Found) -> Table:
    verdicts = found.verdicts()
    rows = [
        ("capacity, answers a second", f"{found.capacity:.0f}", "", None),
        ("99th percentile at 80 %", f"{found.p99_ms:.0f} ms", "", None),
        ("offered then", f"{found.offered:.0f}/s", "", None),
        ("answered, of the capacity", f"{found.goodput / found.capacity:.1%}", "", None),
        (
            "… of what the load leaves of it",
            f"{found.goodput / found.left / found.capacity:.1%}",
            f"≥ {GOODPUT:.0%}",
            "goodput",
        ),
        (
            "99th percentile of what is let in, of that at 80 %",
            f"{found.accepted_p99_ms / found.p99_ms:.2f} ({found.accepted_p99_ms:.0f} ms)",
            f"≤ {ACCEPTED:g}",
            "accepted",
        ),
        ("… from this moment on", f"{found.settled_seconds:.2f} s", "", None),
        ("… from the beginning", f"{found.accepted_p99_ms_of_all:.0f} ms", "", None),
        (
            "refusals, median and 99th percentile",
            f"{found.refused_p50_ms:.1f}, {found.refused_p99_ms:.1f} ms",
            f"≤ {REFUSED_SECONDS * 1000:g} ms",
            "refusals",
        ),
        (
            "health and metrics",
            f"{found.probes.asked - found.probes.failed} of {found.probes.asked}, p99 {found.probes.p99_ms:.0f} ms",
            "all",
            "health",
        ),
        ("as before after", f"{found.recovered_seconds:.2f} s", f"< {RECOVERED_SECONDS:g} s", "recovery"),
        ("cores: load, others", f"{found.load_cores:.2f}, {found.foreign_cores:.2f}", "", None),
    ]
    shown = Table("", "found", "meant", "")
    for name, value, meant, verdict in rows:
        shown.add_row(name, value, meant, "" if verdict is None else "yes" if verdicts[verdict] else "[red]no[/red]")
    return shown


if __name__ == "__main__":
    sys.exit(main())
