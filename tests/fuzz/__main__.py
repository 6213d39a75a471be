"""`make fuzz MINUTES=5`: every target for its share of the time; what fails is kept in the corpus, for the tests."""

import argparse
import asyncio
import hashlib
import logging
import sys
import time
import traceback
from collections import Counter
from functools import partial
from random import Random

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from export.commands import count, positive
from tests.fuzz.graphs import Graphs
from tests.fuzz.requests import Requests
from tests.fuzz.sockets import Storm, memory_of, serving
from tests.fuzz.targets import CORPUS, Bodies, Manifests, Queries, Target

TARGETS: dict[str, type[Target]] = {target.name: target for target in (Requests, Bodies, Queries, Manifests, Graphs)}
SERVER = "server"
"""The one that is no target: it takes many inputs at once."""
SHOWN = 16
console = Console(stderr=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument(
        "targets", nargs="*", metavar="TARGET", help=f"some of {', '.join((*TARGETS, SERVER))} (default: all)"
    )
    parser.add_argument("--minutes", type=positive, default=5.0, help="for all of them together (default: 5)")
    parser.add_argument("--inputs", type=count, default=None, help="of each target, in place of minutes")
    parser.add_argument("--seed", type=int, default=None, help="of the random numbers (default: the time)")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    names = options.targets or [*TARGETS, SERVER]
    if unknown := [name for name in names if name not in (*TARGETS, SERVER)]:
        parser.error(f"expected some of {', '.join((*TARGETS, SERVER))}; got {unknown[0]!r}")
    seed = time.time_ns() if options.seed is None else options.seed
    seconds = options.minutes * 60 / len(names)
    run = partial(_run, seed=seed, seconds=seconds, inputs=options.inputs)
    return max(run(name) for name in names)


def _run(name: str, *, seed: int, seconds: float, inputs: int | None) -> int:
    if name == SERVER:
        return fuzz_server(seed, seconds=seconds, inputs=inputs)
    return fuzz(TARGETS[name](), seed, seconds=seconds, inputs=inputs)


COLUMNS = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[said]}"), TimeRemainingColumn())


def fuzz(target: Target, seed: int, *, seconds: float, inputs: int | None) -> int:
    """1 if an input did what none may do, which ends it; else 0."""
    random, words = Random(seed), Counter[str]()
    began = time.monotonic()
    with target, Progress(*COLUMNS, console=console, transient=True) as progress:
        seeds = target.seeds()
        task = progress.add_task(target.name, total=inputs or seconds, said="")
        while (words.total() < inputs) if inputs else (time.monotonic() - began < seconds):
            data = target.damage(random, seeds)
            try:
                words[target.run(data)] += 1
            except Exception:
                return _report(target.name, data, seed)
            if words.total() % 50 == 0:
                passed = time.monotonic() - began
                said = f"{words.total():,} inputs, {words.total() / passed:,.0f}/s"
                progress.update(task, completed=words.total() if inputs else passed, said=said)
    _summarise(target.name, words, time.monotonic() - began, seed)
    return 0


def fuzz_server(seed: int, *, seconds: float, inputs: int | None) -> int:
    """The same, of a server in processes of its own."""
    began = time.monotonic()
    with serving() as server, Progress(*COLUMNS, console=console, transient=True) as progress:
        task = progress.add_task(SERVER, total=inputs or seconds, said="")

        def tell(done: int) -> bool:
            passed = time.monotonic() - began
            progress.update(task, completed=done if inputs else passed, said=f"{done:,} inputs, {done / passed:,.0f}/s")
            return done < inputs if inputs else passed < seconds

        storm = Storm(server, Random(seed), goes_on=tell)
        try:
            asyncio.run(storm.rage())
        except Exception:
            return _report(SERVER, storm.failed, seed)
        memory = memory_of(server)
    _summarise(SERVER, storm.words, time.monotonic() - began, seed)
    console.print(f"{SERVER}: {storm.n_raw:,} damaged as bytes; {storm.n_good:,} good requests between")
    console.print(f"{SERVER}: MiB of the workers, and at most: {memory}")
    return 0


def _summarise(name: str, words: Counter[str], seconds: float, seed: int) -> None:
    common = ", ".join(f"{word} {count:,}" for word, count in words.most_common(SHOWN))
    console.print(f"{name}: {words.total():,} inputs, {words.total() / seconds:,.0f}/s, seed {seed}: {common}")


def _report(name: str, data: bytes, seed: int) -> int:
    path = CORPUS / name / f"{hashlib.sha256(data).hexdigest()[:16]}.bin"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    traceback.print_exc()
    console.print(f"{name}: seed {seed}: this did what no input may do: {path}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
