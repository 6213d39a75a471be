"""Runs, and what is made of them: bad ones are told from good ones, and medians taken of the good."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

NOISE = 0.2
"""Cores that others may use during a run; also stolen ones."""


@dataclass(frozen=True, slots=True)
class Run:
    """One cell of one contender, once."""

    section: str
    contender: str
    cell: str
    round: int
    requests_s: float
    rows_s: float
    p50_ms: float
    p99_ms: float
    errors: int
    cpu_server: float
    cpu_load: float
    cpu_foreign: float
    steal: float
    request_us: float
    """CPU of the server's processes a request."""

    def is_bad(self, noise: float) -> bool:
        """Whether somebody else had so much of the machine that the run says nothing."""
        return max(self.cpu_foreign, self.steal) > noise


@dataclass(frozen=True, slots=True)
class Start:
    """One start of a contender."""

    section: str
    contender: str
    round: int
    seconds: float
    memory_mb: float
    """After the load, of all its processes: their proportional set sizes."""
    largest_difference: float
    """Of its answers from the right ones."""


@dataclass(frozen=True, slots=True)
class Figure:
    """Of one cell of one contender."""

    requests_s: float
    rows_s: float
    p50_ms: float
    p99_ms: float
    request_us: float
    errors: int
    spread: float
    """Between the fastest and the slowest run, as a share of the median."""
    runs: int
    disturbed: bool
    """Whether no run was good, so that these are the medians of bad ones."""
    cpu_foreign: float


def good(runs: Sequence[Run], noise: float) -> list[Run]:
    return [run for run in runs if not run.is_bad(noise)]


def figure(runs: Sequence[Run], noise: float = NOISE) -> Figure:
    """The medians of the good runs; if there is none, of that half which was disturbed least, and it says so."""
    chosen = good(runs, noise)
    disturbed = not chosen
    if disturbed:
        least = sorted(runs, key=lambda run: run.cpu_foreign + run.steal)
        chosen = least[: (len(least) + 1) // 2]

    def median(name: str) -> float:
        return float(statistics.median(getattr(run, name) for run in chosen))

    rates = [run.requests_s for run in chosen]
    return Figure(
        median("requests_s"),
        median("rows_s"),
        median("p50_ms"),
        median("p99_ms"),
        median("request_us"),
        errors=sum(run.errors for run in chosen),
        spread=(max(rates) - min(rates)) / statistics.median(rates),
        runs=len(chosen),
        disturbed=disturbed,
        cpu_foreign=max(run.cpu_foreign for run in chosen),
    )


def figures(runs: Iterable[Run], section: str, noise: float = NOISE) -> dict[tuple[str, str], Figure]:
    """Of a section, by contender and cell."""
    grouped: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        if run.section == section:
            grouped.setdefault((run.contender, run.cell), []).append(run)
    return {key: figure(group, noise) for key, group in grouped.items()}
