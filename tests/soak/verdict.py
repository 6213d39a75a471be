"""Whether all held: nothing lost, nothing wrong, no memory and no file descriptors that grow."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tests.soak.samples import Process, Sample

GROWTH = 0.05
"""Of a worker's memory, after its warm-up, until its end."""
DEGRADED = 0.001
"""Of good requests. Where the machine stands still for a quarter of a second, a member looks as if it hung."""
FDS, THREADS = 4, 32
"""So many more at rest after the load than before it are none that leak: a pool of threads fills as it is needed."""
LEAST = 8
"""Samples of a worker after its warm-up, that its growth is told of."""
END = 5
"""The first and the last n-th of them are compared."""


@dataclass(frozen=True, slots=True)
class Life:
    """Of a worker, after its warm-up."""

    pid: str
    seconds: float
    first_mb: float
    last_mb: float

    @property
    def growth(self) -> float:
        return self.last_mb / self.first_mb - 1


@dataclass(frozen=True, slots=True)
class Check:
    name: str
    found: str
    meant: str
    held: bool


def lives(samples: Sequence[Sample], warm: float) -> list[Life]:
    """Of each worker that has lived for long enough, the median memory at both ends of its life."""
    by_pid: dict[str, list[tuple[float, float]]] = {}
    for sample in samples:
        for pid, process in sample.workers.items():
            by_pid.setdefault(pid, []).append((sample.at, process.pss))
    found = []
    for pid, seen in by_pid.items():
        later = [(at, pss) for at, pss in seen if at >= seen[0][0] + warm]
        if len(later) >= LEAST:
            n = max(len(later) // END, 2)
            first, last = (float(np.median([pss for _, pss in part])) for part in (later[:n], later[-n:]))
            found.append(Life(pid, later[-1][0] - later[0][0], first, last))
    return found


def at_rest(before: Sample, after: Sample) -> tuple[int, int]:
    """How many more file descriptors, and threads, a worker has after the load than any had before it."""

    def most(of: Mapping[str, Process], what: str) -> int:
        return max((getattr(process, what) for process in of.values()), default=0)

    return (
        most(after.workers, "fds") - most(before.workers, "fds"),
        most(after.workers, "threads") - most(before.workers, "threads"),
    )


def judge(
    samples: Sequence[Sample],
    rest: tuple[Sample, Sample],
    *,
    warm: float,
    counts: Mapping[str, int],
    faults: Mapping[str, Sequence[str]],
) -> list[Check]:
    """`counts` of the good requests, at the end; `faults`, by kind, what should not have been."""
    found = [
        Check("good requests lost", f"{counts['lost']:,} of {counts['asked']:,}", "0", not counts["lost"]),
        Check("answered wrongly", f"{counts['wrong']:,}", "0", not counts["wrong"]),
        Check(
            "answered without a member, or not for lack of them",
            f"{counts['degraded']:,}",
            f"≤ {DEGRADED:.1%}",
            counts["degraded"] <= DEGRADED * counts["asked"],
        ),
    ]
    for name, faults_of in faults.items():
        found.append(Check(name, f"{len(faults_of):,}", "0", not faults_of))
    long_lives = lives(samples, warm)
    most = max(long_lives, key=lambda life: life.growth, default=None)
    told = "no worker lived for long enough"
    if most is not None:
        told = f"{most.growth:+.1%} in {most.seconds / 60:.1f} min, {most.first_mb:.0f} MiB; {len(long_lives)} lives"
    found.append(
        Check("memory, the worker that grew most", told, f"< +{GROWTH:.0%}", most is not None and most.growth < GROWTH)
    )
    fds, threads = at_rest(*rest)
    found.append(Check("file descriptors at rest, after − before", f"{fds:+d}", f"≤ +{FDS}", fds <= FDS))
    found.append(Check("threads at rest, after − before", f"{threads:+d}", f"≤ +{THREADS}", threads <= THREADS))
    return found
