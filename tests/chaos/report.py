"""What was done to a server, and what became of the requests meanwhile: a line for each fault."""

import json
import os
import platform
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import pytest
from rich.console import Console
from rich.progress import track
from rich.table import Table

from tests.server.traffic import Count

LONG = os.environ.get("CHAOS") == "long"
"""Whether faults are made as often as the documentation says, and not just often enough for a test."""
only_long = pytest.mark.skipif(not LONG, reason="other tests have it, at less length")
COLUMNS = (
    "fault",
    "times",
    "sent",
    "right",
    "refused",
    "wrong",
    "lost",
    "unconnected",
    "median s",
    "longest s",
    "note",
)


def times(short: int, long: int, what: str) -> Iterator[int]:
    """So many, with a bar that shows how far it is in the long form."""
    rounds: Iterable[int] = range(long if LONG else short)
    if LONG:
        rounds = track(rounds, what, console=Console(stderr=True, file=sys.__stderr__))
    yield from rounds


@dataclass
class Line:
    """Of one fault."""

    fault: str
    times: int = 0
    figures: dict[str, int] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    """Of each time: what they are of, the note says."""
    note: str = ""

    def add(self, count: Count) -> None:
        for name, number in count.figures().items():
            self.figures[name] = self.figures.get(name, 0) + number

    def entry(self) -> dict[str, object]:
        entry: dict[str, object] = {"fault": self.fault, "times": self.times, **self.figures}
        if self.seconds:
            entry |= {"median s": round(median(self.seconds), 2), "longest s": round(max(self.seconds), 2)}
        return {**entry, "note": self.note} if self.note else entry


def show(lines: Iterable[Line]) -> None:
    table = Table(*COLUMNS, title="Faults")
    for line in lines:
        entry = line.entry()
        table.add_row(*(str(entry.get(column, "")) for column in COLUMNS))
    Console(width=160).print(table)


def write(lines: Iterable[Line], path: Path) -> None:
    machine = {"cores": os.cpu_count(), "python": platform.python_version(), "kernel": platform.release()}
    path.write_text(json.dumps({"machine": machine, "faults": [line.entry() for line in lines]}, indent=1) + "\n")
