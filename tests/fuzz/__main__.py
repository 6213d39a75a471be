"""`make fuzz MINUTES=5`: every target for its share of the time; what fails is kept in the corpus, for the tests."""

import argparse
import hashlib
import logging
import sys
import time
import traceback
from collections import Counter
from random import Random

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from tests.fuzz.graphs import Graphs
from tests.fuzz.mutate import mutate
from tests.fuzz.requests import Requests
from tests.fuzz.targets import CORPUS, Bodies, Manifests, Queries, Target

TARGETS: dict[str, type[Target]] = {target.name: target for target in (Requests, Bodies, Queries, Manifests, Graphs)}
SHOWN = 8
console = Console(stderr=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"some of {', '.join(TARGETS)} (default: all)")
    parser.add_argument("--minutes", type=float, default=5.0, help="for all of them together (default: 5)")
    parser.add_argument("--inputs", type=int, default=None, help="of each target, in place of minutes")
    parser.add_argument("--seed", type=int, default=None, help="of the random numbers (default: the time)")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    names = options.targets or list(TARGETS)
    if unknown := [name for name in names if name not in TARGETS]:
        parser.error(f"expected some of {', '.join(TARGETS)}; got {unknown[0]!r}")
    seed = time.time_ns() if options.seed is None else options.seed
    seconds = options.minutes * 60 / len(names)
    return max(fuzz(TARGETS[name](), seed, seconds=seconds, inputs=options.inputs) for name in names)


def fuzz(target: Target, seed: int, *, seconds: float, inputs: int | None) -> int:
    """1 if an input did what none may do, which ends it; else 0."""
    random, words = Random(seed), Counter[str]()
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[said]}"), TimeRemainingColumn())
    began = time.monotonic()
    with target, Progress(*columns, console=console, transient=True) as progress:
        seeds = target.seeds()
        task = progress.add_task(target.name, total=inputs or seconds, said="")
        while (words.total() < inputs) if inputs else (time.monotonic() - began < seconds):
            data = mutate(random, random.choice(seeds), others=seeds, tokens=target.tokens)
            try:
                words[target.run(data)] += 1
            except Exception:
                return _report(target, data, seed)
            if words.total() % 50 == 0:
                passed = time.monotonic() - began
                said = f"{words.total():,} inputs, {words.total() / passed:,.0f}/s"
                progress.update(task, completed=words.total() if inputs else passed, said=said)
    passed = time.monotonic() - began
    common = ", ".join(f"{word} {count:,}" for word, count in words.most_common(SHOWN))
    console.print(f"{target.name}: {words.total():,} inputs, {words.total() / passed:,.0f}/s, seed {seed}: {common}")
    return 0


def _report(target: Target, data: bytes, seed: int) -> int:
    path = CORPUS / target.name / f"{hashlib.sha256(data).hexdigest()[:16]}.bin"
    path.write_bytes(data)
    traceback.print_exc()
    console.print(f"{target.name}: seed {seed}: this did what no input may do: {path}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
