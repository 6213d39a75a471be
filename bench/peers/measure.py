"""The order of the measurements: every contender is started anew in every round, in turn, and asked all its cells."""

import http.client
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.peers import bodies, limits
from bench.peers.bodies import Request, WrongAnswer
from bench.peers.cells import Cell, cells
from bench.peers.contenders import ALL, Contender, Section
from bench.peers.load import Load, LoadFailed, load
from bench.peers.machine import Shares, clock, memory_mb, shares
from bench.peers.process import Running, ServerFailed, ask, running
from bench.peers.runs import NOISE, Run, Start
from bench.peers.workloads import WORK, open_graph, prepare

CHECKED = (0, 5)
"""Which of a cell's requests are asked before the load, and their answers looked at."""
WARM_SECONDS = 1


@dataclass(frozen=True, slots=True)
class Way:
    """How long, how often, and what counts as undisturbed."""

    rounds: int = 3
    seconds: int = 4
    """Of a run; 0: only the answers are looked at."""
    noise: float = NOISE
    tries: int = 3
    """Of a run that is disturbed, the first included."""
    patience: float = 0.5
    """Runs that may be repeated altogether, as a share of those that are planned: a busy machine is not waited for."""

    def patience_of(self, cells: int) -> int:
        """How many runs may be repeated, of so many cells that are measured in each round."""
        return int(self.rounds * cells * self.patience)


@dataclass(slots=True)
class Record:
    """All that was measured."""

    runs: list[Run] = field(default_factory=list)
    starts: list[Start] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    repeats: int = 0
    """How many more runs may be repeated."""


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A cell, ready to be sent to servers of one form."""

    cell: Cell
    requests: Sequence[Request]
    right: Sequence[NDArray[np.float32]]
    file: Path


def measure(
    sections: Sequence[Section], way: Way, record: Record, say: Callable[[str], None], work: Path = WORK
) -> None:
    """All sections. A contender that fails is said to, and left out from then on."""
    record.repeats += way.patience_of(sum(len(section.contenders) * len(cells(section.cells)) for section in sections))
    for section in sections:
        folder = prepare(section.workload, work)
        ready: dict[str, list[_Prepared]] = {}
        for number in range(way.rounds):
            for name in section.contenders:
                contender = ALL[name]
                if name in record.failures:
                    continue
                prepared = ready.get(contender.form)
                if prepared is None:
                    prepared = ready[contender.form] = list(prepare_cells(contender.form, section, folder))
                try:
                    _round(contender, section, prepared, folder, number, way, record, say)
                except (ServerFailed, LoadFailed, WrongAnswer, OSError, http.client.HTTPException) as exc:
                    record.failures[name] = str(exc)
                    say(f"{name} failed, and is left out: {exc}")


def prepare_cells(form: str, section: Section, folder: Path) -> Iterator[_Prepared]:
    """The bodies of the section's cells, and what is right for those that are looked at."""
    average = open_graph(folder / "packed.onnx")
    for cell in cells(section.cells):
        batches = bodies.batches(cell)
        requests = [bodies.request(form, cell, batch, turn) for turn, batch in enumerate(batches)]
        right = [average(batches[k]) for k in CHECKED]
        place = folder / "bodies" / form / f"{cell.kind}{cell.rows}"
        yield _Prepared(cell, requests, right, bodies.write(requests, place))


def check_answers(port: int, contender: Contender, prepared: Sequence[_Prepared]) -> float:
    """The largest difference of the answers to all cells that it takes. Raises WrongAnswer."""
    worst = 0.0
    for one in _taken(contender, prepared):
        for k, right in zip(CHECKED, one.right, strict=True):
            where = f"{contender.name}, {one.cell}"
            status, headers, body = ask(port, one.requests[k])
            if status != http.client.OK:
                raise WrongAnswer(f"{where}: status {status}: {body[:200]!r}")
            if not contender.constant and one.cell.kind != "mixed":
                worst = max(worst, bodies.check(bodies.answer(headers, body), right, where))
    return worst


def _taken(contender: Contender, prepared: Sequence[_Prepared]) -> list[_Prepared]:
    return [one for one in prepared if contender.takes(one.cell.kind)]


def _round(
    contender: Contender,
    section: Section,
    prepared: Sequence[_Prepared],
    folder: Path,
    number: int,
    way: Way,
    record: Record,
    say: Callable[[str], None],
) -> None:
    taken = _taken(contender, prepared)
    with running(contender, folder, taken[0].requests[0]) as server:
        off = check_answers(server.port, contender, prepared)
        if way.seconds:
            load(server.port, taken[0].file, 8, WARM_SECONDS)
            for one in taken:
                record.runs += _undisturbed(partial(_run, server, contender, section, one, number, way), way, record)
                say(_line(record.runs[-1], way))
        start = Start(section.name, contender.name, number, server.start_seconds, memory_mb(server.pids), off)
    record.starts.append(start)
    say(
        f"{number + 1}  {contender.name:16} started in {start.seconds:.1f} s, "
        f"{start.memory_mb:.0f} MB, answers {off:.1e} off"
    )


def _undisturbed(run: Callable[[], Run], way: Way, record: Record) -> list[Run]:
    """Runs until one is not disturbed, or patience is at its end."""
    runs = [run()]
    while runs[-1].is_bad(way.noise) and len(runs) < way.tries and record.repeats > 0:
        record.repeats -= 1
        runs.append(run())
    return runs


def _run(server: Running, contender: Contender, section: Section, one: _Prepared, number: int, way: Way) -> Run:
    pids = server.pids
    before = clock(pids)
    done = load(server.port, one.file, one.cell.connections, way.seconds)
    return _as_run(section, contender.name, one.cell, number, done, shares(before, clock(pids)))


def _as_run(section: Section, name: str, cell: Cell, number: int, done: Load, used: Shares) -> Run:
    return Run(
        section.name, name, str(cell), number, done.rate, done.rate * cell.rows, done.p50_ms, done.p99_ms, done.errors,
        used.server, used.load, used.foreign, used.steal, 1e6 * used.server / done.rate,
    )  # fmt: skip


def measure_limits(folder: Path, way: Way, record: Record, say: Callable[[str], None]) -> None:
    """ONNX Runtime in process, in turn; the cell says the batch."""
    record.repeats += way.patience_of(len(limits.limits()))
    for number in range(way.rounds):
        for limit in limits.limits():
            record.runs += _undisturbed(partial(_run_limit, folder, limit, number, way), way, record)
            say(_line(record.runs[-1], way))


def _run_limit(folder: Path, limit: limits.Limit, number: int, way: Way) -> Run:
    rows_s, used = limits.measure(folder / "packed.onnx", limit, way.seconds / 2)
    rate = rows_s / limit.batch
    return Run(
        "limits", limit.name, f"batch{limit.batch}", number, rate, rows_s, 0.0, 0.0, 0,
        used.load, 0.0, used.foreign, used.steal, 1e6 * limit.processes / rate,
    )  # fmt: skip


def _line(run: Run, way: Way) -> str:
    noise = f", others had {max(run.cpu_foreign, run.steal):.2f} cores" if run.is_bad(way.noise) else ""
    errors = f", {run.errors} errors" if run.errors else ""
    times = f", p50 {run.p50_ms:.2f} p99 {run.p99_ms:.2f} ms" if run.p50_ms else ""
    return f"{run.round + 1}  {run.contender:16} {run.cell:13} {run.requests_s:9,.0f} requests/s{times}{errors}{noise}"


def only(sections: Sequence[Section], keep: Callable[[str], bool]) -> list[Section]:
    """The sections with those contenders that are to be kept; without those that have none left."""
    kept = [
        Section(one.name, one.title, one.workload, tuple(filter(keep, one.contenders)), one.cells) for one in sections
    ]
    return [section for section in kept if section.contenders]


def contenders_of(sections: Sequence[Section]) -> Mapping[str, Contender]:
    return {name: ALL[name] for section in sections for name in section.contenders}
