"""Plots of the results, as SVG beside the page."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.peers.cells import parse
from bench.peers.contenders import ALL
from bench.peers.runs import Figure, Run, figures

OURS, OTHERS, LIMIT = "#0b6e4f", "#9aa5b1", "#c0392b"
PALE = 0.4
"""The bar of a figure that is of disturbed runs."""
CELLS = ("json1@64", "json32@8", "binary1@64", "binary32@8")


def draw(found: Mapping[str, Any], by_members: Mapping[int, Mapping[str, Figure]], folder: Path) -> str:
    """Write the plots that the results allow. Returns the markdown that shows them."""
    runs = [Run(**run) for run in found["runs"]]
    noise = found["way"]["noise"]
    beside = figures(runs, "beside", noise)
    shown = []
    if beside:
        limit = figures(runs, "limits", noise).get(("raw-2p-64", "batch64"))
        _beside(beside, limit.rows_s if limit else None, folder / "performance-peers.svg")
        shown.append("![Rows a second; dashed: ONNX Runtime in two processes; pale: disturbed](performance-peers.svg)")
    by_rows = figures(runs, "rows", noise)
    if by_rows and by_members:
        _scaling(by_rows, by_members, folder / "performance-scaling.svg")
        shown.append("![By rows of a request, and by members](performance-scaling.svg)")
    return "".join(f"\n{line}\n" for line in shown)


def _beside(by: Mapping[tuple[str, str], Figure], limit: float | None, path: Path) -> None:
    plt = _pyplot()
    names = [name for name in dict.fromkeys(name for name, _ in by) if not ALL[name].constant][::-1]
    cells = [cell for cell in CELLS if any(key[1] == cell for key in by)]
    figure, axes = plt.subplots(
        1, len(cells), figsize=(3 * len(cells) + 2, 0.38 * len(names) + 1.2), sharey=True, squeeze=False
    )
    for axis, cell in zip(axes[0], cells, strict=True):
        rates = [by[name, cell].rows_s if (name, cell) in by else 0 for name in names]
        colours = [OURS if name.startswith("ours") else OTHERS for name in names]
        for name, bar in zip(names, axis.barh(range(len(names)), rates, color=colours), strict=True):
            if (name, cell) in by and by[name, cell].disturbed:
                bar.set_alpha(PALE)
        if limit is not None:
            axis.axvline(limit, color=LIMIT, linewidth=1, linestyle="--")
        axis.set_title(parse(cell).title, fontsize=9)
        axis.set_xlabel("rows/s", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.locator_params(axis="x", nbins=4)
        axis.set_yticks(range(len(names)), [ALL[name].title.strip("*") for name in names])
    _save(figure, path)


def _scaling(rows: Mapping[tuple[str, str], Figure], members: Mapping[int, Mapping[str, Figure]], path: Path) -> None:
    plt = _pyplot()
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2))
    points = sorted((parse(cell).rows, one.rows_s) for (_, cell), one in rows.items())
    left.plot(*zip(*points, strict=True), marker="o", color=OURS)
    left.set(xscale="log", xlabel="rows of a request (float32)", ylabel="rows/s", ylim=(0, None))
    for cell in ("json1@64", "binary32@8"):
        counted = [
            (count, by[cell].request_us / parse(cell).rows) for count, by in sorted(members.items()) if cell in by
        ]
        if not counted:
            continue
        right.plot(*zip(*counted, strict=True), marker="o", label=parse(cell).title)
    right.set(xlabel="members", ylabel="CPU a row, µs", xlim=(0, None), ylim=(0, None))
    right.legend(fontsize=8)
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    _pyplot().close(figure)


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "committee"
    import matplotlib.pyplot as plt

    return plt
