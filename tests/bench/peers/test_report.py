"""Tables and the page."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from bench.peers import report
from bench.peers.contenders import Section
from bench.peers.runs import Start
from tests.bench.peers.test_runs import run


def found(**changes: Any) -> dict[str, Any]:
    """Results of two contenders and the limit."""
    naive = [
        replace(run(rate), contender="naive-2w", cell=cell) for rate, cell in ((1400, "json1@1"), (2800, "json1@64"))
    ]
    many = replace(run(800, cell="json32@8"), rows_s=25600)
    limit = replace(run(400, cell="batch64"), section="limits", contender="raw-2p-64", rows_s=29000)
    section = Section("beside", "Five cheap members", "fashion", ("ours-2w", "naive-2w"), "json1@1 json1@64 json32@8")
    return {
        "when": "2026-01-02T03:04:05+0000",
        "commit": "abc",
        "machine": {"cores": 2, "cpu": "some", "python": "3.11", "onnxruntime": "1.2"},
        "way": {"rounds": 3, "seconds": 4, "noise": 0.2},
        "versions": {"ours-2w": "committee 0.1", "naive-2w": "uvicorn 0.5"},
        "failures": {},
        "sections": [asdict(section)],
        "starts": [asdict(Start("beside", "ours-2w", n, 0.5 + n, 200 + n, 0.0)) for n in range(3)],
        "runs": [asdict(one) for one in (run(3600, cell="json1@1"), run(17000), many, *naive, limit)],
        **changes,
    }  # fmt: skip


def test_a_line_a_contender_and_a_column_a_cell() -> None:
    lines = report.text(found()).splitlines()
    assert "| | 1 row, json, 1 conn.: req/s (p50 ms) | 1 row, json, 64 conn.: req/s (p99 ms) | 32 rows" in "\n".join(
        lines
    )
    assert "| **Committee, 2 workers** | 3,600 (4.00) | 17,000 (8) | 25,600 | 106 | 201 | 1.5 |" in lines
    assert "| FastAPI by hand, 2 workers | 1,400 (4.00) | 2,800 (8) | – | 643 | – | – |" in lines
    assert "| 2 processes | – | – | 29,000 |" in lines
    assert not any("busy" in line for line in lines)


def test_a_busy_machine_is_said_beside_the_figures() -> None:
    busy = found(runs=[asdict(run(9000, 1.0)), asdict(run(8000, 1.2))])
    said = report.text(busy)
    assert "**The machine was busy**" in said
    assert "of 2 runs 2 were disturbed" in said
    assert "| 9,000 (8)* |" in said


def test_failures_and_errors_are_said() -> None:
    said = report.text(found(failures={"ray": "not ready"}, runs=[asdict(run(9000, errors=4))]))
    assert "- `ray` failed: not ready" in said
    assert "9,000 (8), 4 errors" in said


def test_the_page_gets_the_tables_and_the_plots(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# Title\n\n{report.BEGIN}\nold\n{report.END}\n\nMore.\n")
    rows = [replace(run(1000 / n, cell=f"binary{n}@8"), section="rows", rows_s=1000) for n in (1, 8)]
    members = [replace(run(1000 / n), section=f"members-{n:02d}") for n in (1, 5)]
    sections = [
        *found()["sections"],
        *(asdict(Section(f"members-{n:02d}", "m", f"members-{n}", ("ours-2w",), "json1@64")) for n in (1, 5)),
    ]
    report.write(found(runs=[*found()["runs"], *map(asdict, (*rows, *members))], sections=sections), page)
    written = page.read_text()
    assert "old" not in written
    assert "| 1 | 1,000 (8) | 1800 |\n| 5 | 200 (8) | 9000 |" in written
    assert written.startswith("# Title\n")
    assert written.endswith(f"{report.END}\n\nMore.\n")
    for name in ("performance-peers.svg", "performance-scaling.svg"):
        assert f"({name})" in written
        assert (tmp_path / name).read_text().startswith("<?xml")


def test_a_page_without_marks_is_left_alone() -> None:
    with pytest.raises(ValueError, match="expected the marks"):
        report.replaced("# Title\n", "new")
