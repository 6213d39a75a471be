"""How the server is now and then: what its processes hold, and how fast it has answered since the last look."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TextIO

import numpy as np

PERCENTILES = (50, 99, 99.9)


@dataclass(frozen=True, slots=True)
class Process:
    """Memory in MiB: proportional, which counts what processes share once, and what is this one's alone."""

    pss: float
    private: float
    fds: int
    threads: int


@dataclass(frozen=True, slots=True)
class Sample:
    at: float
    """Seconds since the load began; less: before it."""
    workers: Mapping[str, Process]
    """By process id."""
    supervisor: Process | None
    milliseconds: Mapping[str, float] = field(default_factory=dict)
    """Percentiles of the good requests' time since the last sample."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """Of good requests since the beginning."""
    hostile: Mapping[str, int] = field(default_factory=dict)
    cores: Mapping[str, float] = field(default_factory=dict)
    """In use since the last sample: by the server, by this process, by everybody else."""
    events: Iterable[str] = ()
    """Since the last sample."""


def look_at(pid: int) -> Process | None:
    """None if it has gone."""
    proc = Path(f"/proc/{pid}")
    try:
        memory, status = (proc / "smaps_rollup").read_text(), (proc / "status").read_text()
        return Process(
            _number("Pss", memory) / 1024,
            (_number("Private_Clean", memory) + _number("Private_Dirty", memory)) / 1024,
            sum(1 for _ in (proc / "fd").iterdir()),
            _number("Threads", status),
        )
    except OSError:
        return None


def _number(name: str, text: str) -> int:
    match = re.search(rf"^{name}:\s+(\d+)", text, re.MULTILINE)
    if match is None:
        raise ProcessLookupError(name)
    return int(match[1])


def percentiles(seconds: list[float]) -> dict[str, float]:
    """In milliseconds."""
    if not seconds:
        return {}
    found = np.percentile(seconds, PERCENTILES) * 1e3
    return {f"p{which:g}": round(float(value), 2) for which, value in zip(PERCENTILES, found, strict=True)}


class Record:
    """Samples, each also a line of JSON in a file."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self.samples: list[Sample] = []

    def add(self, sample: Sample) -> None:
        self.samples.append(sample)
        self._file.write(json.dumps(_rounded(asdict(sample))) + "\n")
        self._file.flush()


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    return round(value, 2) if isinstance(value, float) else value


def read(lines: Iterable[str]) -> list[Sample]:
    """Of what `Record` has written."""
    found = []
    for said in map(json.loads, lines):
        workers = {pid: Process(**process) for pid, process in said.pop("workers").items()}
        supervisor = said.pop("supervisor")
        found.append(Sample(**said, workers=workers, supervisor=Process(**supervisor) if supervisor else None))
    return found
