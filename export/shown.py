"""A published version on a terminal: its members and strategies, and what there is to know about it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from export.card import NOTHING_MEASURED
from server.manifest import REPORT_FILE


def show(folder: Path, console: Console) -> None:
    """Tables of accuracy and log-loss on the test rows, from the report; one line if nothing was measured."""
    path = folder / REPORT_FILE
    if not path.is_file():
        console.print(NOTHING_MEASURED, markup=False)
        return
    report = json.loads(path.read_bytes())
    console.print(_table("member", report["members"], None))
    console.print(_table("strategy", report["strategies"], report["default_strategy"]))
    for note in report["notes"]:
        console.print(f"note: {note}", style="yellow", markup=False, highlight=False, soft_wrap=True)


def _table(what: str, scored: Mapping[str, Any], default: str | None) -> Table:
    table = Table(what, "accuracy", "log-loss")
    for name, entry in scored.items():
        shown = f"{name} (default)" if name == default else name
        figures = (f"{entry['test'][metric]['value']:.4f}" for metric in ("accuracy", "log_loss"))
        table.add_row(shown, *figures)
    return table
