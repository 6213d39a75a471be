"""`make soak MINUTES=60`: a server of two workers under everything at once, and whether it held. On Linux.

Good requests in every form come at 70 % of what the server can answer here, each with an answer that is known; beside
them bad ones and hostile clients. Versions are loaded and unloaded all the time. In the first half workers are killed
and rolled too; in the second they live, so that it is seen whether they grow.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from export.commands import positive
from tests.soak.run import Found, Way, soak

ROOT = Path(__file__).parents[2]
WORK = ROOT / "bench" / ".work" / "soak"
DOCS = ROOT / "docs"
BEGIN, END = "<!-- soak: begin -->\n", "<!-- soak: end -->\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """1 if something did not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=positive, default=60.0, help="of the load (default: %(default)s)")
    parser.add_argument("--part", type=positive, default=0.7, help="of what can be answered (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=None, help="of the random numbers (default: the time)")
    parser.add_argument("--out", type=Path, default=WORK, help="folder of samples.jsonl, soak.svg and the server's log")
    parser.add_argument("--docs", action="store_true", help="write the picture and the table into docs/ too")
    options = parser.parse_args(arguments)
    console = Console(stderr=True, highlight=False)
    seed = time.time_ns() % 2**32 if options.seed is None else options.seed
    found = soak(Way(options.minutes * 60, part=options.part, seed=seed), options.out, console)
    table = Table("", "found", "meant", "")
    for check in found.checks:
        table.add_row(check.name, check.found, check.meant, "yes" if check.held else "[red]no[/red]")
    console.print(table)
    for line in found.told:
        console.print(line, markup=False)
    console.print(f"seed {seed}; {options.out}")
    if options.docs:
        write_docs(found, options.out, DOCS)
    return int(not found.held)


def write_docs(found: Found, out: Path, docs: Path) -> None:
    """The picture, and the table between its marks in reliability.md."""
    (docs / "soak.svg").write_bytes((out / "soak.svg").read_bytes())
    page = docs / "reliability.md"
    before, _, rest = page.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    rows = [f"| {check.name} | {check.found} | {check.meant} |" for check in found.checks]
    lines = ["| | found | meant |", "|---|---|---|", *rows, "", *found.told]
    page.write_text(before + BEGIN + "\n".join(lines) + "\n" + END + after)


if __name__ == "__main__":
    sys.exit(main())
