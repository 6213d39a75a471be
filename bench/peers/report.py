"""What is made of the results: tables in markdown, and the page that holds them."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.peers import plots
from bench.peers.cells import Cell, parse
from bench.peers.contenders import ALL, MEMBERS
from bench.peers.limits import BATCHES, PROCESSES, Limit
from bench.peers.runs import Figure, Run, figures

BEGIN, END = "<!-- begin: written by bench/peers -->", "<!-- end -->"
LATENCY = ("json1@1", "json1@64")
"""Cells whose times are told too: the median of one client, and the slowest hundredth of many."""


def write(found: Mapping[str, Any], page: Path) -> None:
    """The tables between the marks of the page, and the plots beside it."""
    runs = [Run(**run) for run in found["runs"]]
    page.write_text(replaced(page.read_text(), text(found) + plots.draw(found, by_members(found, runs), page.parent)))


def replaced(page: str, new: str) -> str:
    """The page with what is between the marks put anew. Raises ValueError."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"expected the marks {BEGIN} and {END} in the page")
    return f"{before}{BEGIN}\n\n{new.strip()}\n\n{END}{after}"


def text(found: Mapping[str, Any]) -> str:
    """All tables."""
    runs = [Run(**run) for run in found["runs"]]
    noise = found["way"]["noise"]
    parts = [_circumstances(found, runs)]
    for section in found["sections"]:
        by = figures(runs, section["name"], noise)
        if by and not section["name"].startswith(MEMBERS):
            parts.append(f"**{section['title']}.**\n\n{table(by, _starts(found, section['name']))}")
    if members := by_members(found, runs):
        parts.append(f"**By members**, Committee, 2 workers.\n\n{members_table(members)}")
    limits = figures(runs, "limits", noise)
    if limits:
        parts.append(f"**The limit**, ONNX Runtime on the packed graph in process, rows/s.\n\n{limit_table(limits)}")
    if found["failures"]:
        parts.append("\n".join(f"- `{name}` failed: {why}" for name, why in found["failures"].items()))
    return "\n\n".join(parts) + "\n"


def table(by: Mapping[tuple[str, str], Figure], starts: Mapping[str, tuple[str, str]]) -> str:
    """A line a contender, a column a cell: rows a second where requests have many rows, else requests a second."""
    names = list(dict.fromkeys(name for name, _ in by))
    shown = list(dict.fromkeys(parse(cell) for _, cell in by))
    lines = [
        "| | " + " | ".join(_head(cell) for cell in shown) + " | CPU, µs/req | memory, MB | start, s |",
        "|---|" + "---:|" * (len(shown) + 3),
    ]
    for name in names:
        memory, seconds = starts.get(name, ("–", "–"))
        filled = [_figure(by.get((name, str(cell))), cell) for cell in shown]
        lines.append(
            f"| {ALL[name].title} | {' | '.join(filled)} | {_cpu(by.get((name, LATENCY[1])))} | {memory} | {seconds} |"
        )
    return "\n".join(lines)


def by_members(found: Mapping[str, Any], runs: Sequence[Run]) -> dict[int, dict[str, Figure]]:
    """The figures of the cells by the number of members."""
    names = sorted({run.section for run in runs if run.section.startswith(MEMBERS)})
    noise = found["way"]["noise"]
    return {
        int(name.removeprefix(MEMBERS)): {cell: one for (_, cell), one in figures(runs, name, noise).items()}
        for name in names
    }


def members_table(members: Mapping[int, Mapping[str, Figure]]) -> str:
    """A line a number of members."""
    shown = list(dict.fromkeys(cell for by in members.values() for cell in by))
    heads = [f"{_head(parse(cell))} | CPU, µs/row" for cell in shown]
    lines = ["| members | " + " | ".join(heads) + " |", "|---:|" + "---:|" * (2 * len(shown))]
    for count, by in members.items():
        filled = [f"{_figure(by.get(cell), parse(cell))} | {_cpu(by.get(cell), parse(cell).rows)}" for cell in shown]
        lines.append(f"| {count} | {' | '.join(filled)} |")
    return "\n".join(lines)


def limit_table(by: Mapping[tuple[str, str], Figure]) -> str:
    lines = ["| | " + " | ".join(f"batch {batch}" for batch in BATCHES) + " |", "|---|" + "---:|" * len(BATCHES)]
    for processes in PROCESSES:
        row = [by.get((Limit(processes, batch).name, f"batch{batch}")) for batch in BATCHES]
        filled = [f"{one.rows_s:,.0f}{'*' if one.disturbed else ''}" if one else "–" for one in row]
        lines.append(f"| {processes} process{'es' if processes > 1 else ''} | {' | '.join(filled)} |")
    return "\n".join(lines)


def _head(cell: Cell) -> str:
    unit = "rows/s" if cell.rows > 1 else "req/s"
    more = {"json1@1": " (p50 ms)", "json1@64": " (p99 ms)"}.get(str(cell), "")
    return f"{cell.title}: {unit}{more}"


def _figure(one: Figure | None, cell: Cell) -> str:
    if one is None:
        return "–"
    rate = f"{one.rows_s if cell.rows > 1 else one.requests_s:,.0f}"
    if str(cell) == LATENCY[0]:
        rate += f" ({one.p50_ms:.2f})"
    if str(cell) == LATENCY[1]:
        rate += f" ({one.p99_ms:.0f})"
    return rate + ("*" if one.disturbed else "") + (f", {one.errors} errors" if one.errors else "")


def _cpu(one: Figure | None, rows: int = 1) -> str:
    """Of the server, for a row: of what is measured, it hangs least on who else uses the machine."""
    return f"{one.request_us / rows:.0f}" if one else "–"


def _starts(found: Mapping[str, Any], section: str) -> dict[str, tuple[str, str]]:
    """Medians of memory and of the seconds that a start takes, by contender."""
    grouped: dict[str, list[Mapping[str, Any]]] = {}
    for start in found["starts"]:
        if start["section"] == section:
            grouped.setdefault(start["contender"], []).append(start)
    return {
        name: (f"{_median(group, 'memory_mb'):.0f}", f"{_median(group, 'seconds'):.1f}")
        for name, group in grouped.items()
    }


def _median(group: Sequence[Mapping[str, Any]], key: str) -> float:
    return float(statistics.median(one[key] for one in group))


def _circumstances(found: Mapping[str, Any], runs: Sequence[Run]) -> str:
    machine, way = found["machine"], found["way"]
    bad = sum(run.is_bad(way["noise"]) for run in runs)
    versions = ", ".join(sorted(set(found["versions"].values())))
    said = (
        f"{found['when'][:16].replace('T', ' ')}, commit {found['commit']}: {machine['cores']} cores of "
        f"{machine['cpu']}, Python {machine['python']}, ONNX Runtime {machine['onnxruntime']}; {versions}. Medians of "
        f"{way['rounds']} rounds of {way['seconds']} s a cell; of {len(runs)} runs {bad} were disturbed: others used "
        f"more than {way['noise']:g} cores."
    )
    names = {run.section for run in runs}
    if any(one.disturbed for name in names for one in figures(runs, name, way["noise"]).values()):
        said += (
            " **The machine was busy**: where there is a *, no run was undisturbed, and the figure is of the half that "
            "was disturbed least. Such figures say little, and only beside each other."
        )
    return said
