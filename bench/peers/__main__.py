"""Committee beside its peers and the limits, on this machine: `make bench`, `make bench-quick`.

Each server is started in turn, checked against the right answers, loaded by wrk, and ended, in several rounds. Runs in
which others used the machine are thrown away and repeated.
"""

import argparse
import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.peers import report
from bench.peers.contenders import ALL, QUICK, SECTIONS, Section
from bench.peers.environments import NotInstalled, install, is_installed, python
from bench.peers.load import LoadFailed, find_wrk
from bench.peers.machine import describe
from bench.peers.measure import Record, Way, contenders_of, measure, measure_limits, only
from bench.peers.runs import NOISE
from bench.peers.workloads import ROOT, WORK, prepare

RESULTS = ROOT / "bench" / "results" / "peers.json"
PAGE = ROOT / "docs" / "performance-peers.md"
LIMIT = "raw"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write the results, and draw what is made of them. 1 if something that was asked for failed."""
    options = _options(arguments)
    console = Console(highlight=False, markup=False, soft_wrap=True)
    if options.list:
        console.print(_listed())
        return 0
    if options.report:
        report.write(json.loads(options.out.read_text()), options.page)
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # so that servers are ended on the way out
    sections = _sections(options)
    try:
        find_wrk()
        for environment in sorted({contender.environment for contender in contenders_of(sections).values()}):
            if not is_installed(environment):
                console.print(f"installing {environment} …")
            install(environment)
    except (LoadFailed, NotInstalled) as exc:
        console.print(f"bench: {exc}")
        return 1
    way = Way(2, 3, tries=2) if options.quick else Way(options.rounds, options.seconds)
    if options.check:
        way = Way(rounds=1, seconds=0)
    way = replace(way, noise=options.noise)
    record = Record()
    try:
        if _wanted(options, LIMIT) and way.seconds:
            measure_limits(prepare("fashion"), way, record, console.print)
        measure(sections, way, record, console.print)
    finally:  # what was measured until then is kept
        if record.runs:
            _keep(results(record, way, sections), options, console)
    return int(bool(record.failures))


def _keep(found: dict[str, Any], options: argparse.Namespace, console: Console) -> None:
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(found, indent=1) + "\n")
    console.print(report.text(found))
    console.print(str(options.out))
    if not options.quick:
        report.write(found, options.page)
        console.print(str(options.page))


def results(record: Record, way: Way, sections: Sequence[Section]) -> dict[str, Any]:
    """What is kept: every run, and under which circumstances."""
    sides = contenders_of(sections)
    return {
        "when": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "commit": _commit(),
        "machine": describe(),
        "way": asdict(way),
        "versions": {name: _version(one.environment, one.package) for name, one in sides.items()},
        "failures": record.failures,
        "sections": [asdict(section) for section in sections],
        "starts": [asdict(start) for start in record.starts],
        "runs": [asdict(run) for run in record.runs],
    }


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m bench.peers", description=__doc__)
    parser.add_argument("--list", action="store_true", help="list the contenders and the sections, and end")
    parser.add_argument("--only", type=_names, metavar="NAMES", help="these contenders, with commas between them")
    parser.add_argument("--without", type=_names, metavar="NAMES", default=[], help="leave these out")
    parser.add_argument("--sections", type=_names, metavar="NAMES", help="these sections; members stands for all such")
    parser.add_argument("--quick", action="store_true", help="a few cells of the most important ones: 3 minutes")
    parser.add_argument("--check", action="store_true", help="only start each and look at its answers: no load")
    parser.add_argument("--rounds", type=int, default=3, help="starts of each contender (default: %(default)s)")
    parser.add_argument("--seconds", type=int, default=4, help="of each run (default: %(default)s)")
    parser.add_argument("--noise", type=float, default=NOISE, help="cores that others may use (default: %(default)s)")
    parser.add_argument("--report", action="store_true", help="measure nothing: write the page from the results anew")
    parser.add_argument("--out", type=Path, help=f"default: {RESULTS.relative_to(ROOT)}")
    parser.add_argument("--page", type=Path, default=PAGE, help=f"default: {PAGE.relative_to(ROOT)}")
    options = parser.parse_args(arguments)
    known = {*ALL, LIMIT}
    if unknown := {*(options.only or []), *options.without} - known:
        parser.error(f"expected names of {', '.join(sorted(known))}; got {', '.join(sorted(unknown))}")
    options.out = options.out or (WORK / "quick.json" if options.quick else RESULTS)
    return options


def _names(value: str) -> list[str]:
    return value.split(",")


def _wanted(options: argparse.Namespace, name: str) -> bool:
    if name in options.without:
        return False
    if options.only is not None:
        return name in options.only
    return name == LIMIT or not ALL[name].asked_only


def _sections(options: argparse.Namespace) -> list[Section]:
    """What is asked for. Quickly, Triton is measured only where it is installed already."""
    asked = [QUICK] if options.quick else list(SECTIONS)
    if options.sections is not None:
        asked = [one for one in asked if one.name in options.sections or one.name.split("-")[0] in options.sections]

    def keep(name: str) -> bool:
        there = not options.quick or ALL[name].environment in ("serve", "base") or is_installed(ALL[name].environment)
        return there and _wanted(options, name)

    return only(asked, keep)


def _listed() -> str:
    lines = [
        f"{one.name:16} {one.title.strip('*')}{'  (only if named)' if one.asked_only else ''}" for one in ALL.values()
    ]
    lines.append(f"{LIMIT:16} ONNX Runtime on the packed graph, in process")
    lines += ["", *(f"{one.name:16} {one.title}: {one.cells}" for one in SECTIONS)]
    return "\n".join(lines)


def _version(environment: str, package: str) -> str:
    code = f"import importlib.metadata; print(importlib.metadata.version({package!r}))"
    done = subprocess.run([str(python(environment)), "-c", code], capture_output=True, text=True, check=False)
    return f"{package} {done.stdout.strip() or '?'}"


def _commit() -> str:
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
