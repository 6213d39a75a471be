"""The soak itself: load, bad requests, trouble and looks at the server, side by side, for as long as is asked."""

import asyncio
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import uvloop
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from bench.offered import Answer, Pool, saturate
from bench.peers import machine
from bench.serving import Serving, serving
from tests.soak.asks import DEFAULT, Ask, make, write_repository
from tests.soak.hostile import Hostile
from tests.soak.plot import draw
from tests.soak.rpc import Calls
from tests.soak.samples import Record, Sample, look_at, percentiles
from tests.soak.trouble import Trouble
from tests.soak.verdict import Check, judge

OPTIONS = ("--model-control", "explicit")
TIMEOUTS = ("--header-timeout", "--body-timeout", "--write-timeout")
CONNECTIONS, BUSY = 256, 32
HOSTILE_PART = 0.05
"""Hostile clients for each good request."""
CALLS_PART = 0.02
"""Calls over gRPC for each good request over HTTP."""


@dataclass(frozen=True, slots=True)
class Way:
    seconds: float
    part: float = 0.7
    """Of what can be answered."""
    seed: int = 0
    find: float = 4.0
    """Seconds of full load, to find out what can be."""

    @property
    def patience(self) -> float:
        """Seconds that the server waits for clients."""
        return 3.0 if self.seconds >= 60 else 1.0

    @property
    def look(self) -> float:
        """Seconds between two looks."""
        return min(max(self.seconds / 400, 0.5), 10.0)

    @property
    def warm(self) -> float:
        """Seconds of a worker's life that its memory is not judged by."""
        return min(self.seconds / 6, 180.0)

    @property
    def change(self) -> float:
        """Seconds between two loads or unloads."""
        return min(max(self.seconds / 60, 1.5), 20.0)

    @property
    def disturb(self) -> float:
        """Seconds between two kills or reloads, of which the last is in the middle."""
        return self.seconds / 2 / 9 if self.seconds >= 120 else self.seconds / 2 / 2.5


@dataclass(frozen=True, slots=True)
class Found:
    checks: list[Check]
    told: list[str]

    @property
    def held(self) -> bool:
        return all(check.held for check in self.checks)


@dataclass
class Load:
    """Good requests: what became of them."""

    asks: Sequence[Ask]
    killed: Callable[[], bool] = lambda: False
    counts: Counter[str] = field(
        default_factory=lambda: Counter(asked=0, right=0, wrong=0, degraded=0, refused=0, unloaded=0, cut=0, lost=0)
    )
    seconds: list[float] = field(default_factory=list)
    """Of those since the last look."""
    faults: list[str] = field(default_factory=list)

    def judge(self, answer: Answer) -> None:
        ask = self.asks[answer.request]
        self.counts["asked"] += 1
        word = self._word(ask, answer)
        self.counts[word] += 1
        if word == "right":
            self.seconds.append(answer.seconds)
        elif word in ("wrong", "lost", "degraded"):
            self.faults.append(f"{word}: {ask.path}: {answer.status} {answer.body[:300]!r}")

    def _word(self, ask: Ask, answer: Answer) -> str:
        if answer.status == 0:
            return "cut" if self.killed() else "lost"
        if answer.status == 503 and answer.says_when:
            return "refused"
        if answer.status == 404 and ask.may_be_gone:
            return "unloaded"
        if answer.status == 503 and b'"code":"quorum_missed"' in answer.body:
            return "degraded"
        if answer.status != 200:
            return "wrong"
        if ask.is_right(answer.head, answer.body):
            return "right"
        return "degraded" if b'"degraded":true' in answer.body or b"degraded: true" in answer.head else "wrong"


def soak(way: Way, out: Path, console: Console) -> Found:
    """Writes samples, picture and the server's log into the folder."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        write_repository(root / "models")
        asks = make(root / "models")
        key = _new_key(root / "keys")
        timeouts = [word for name in TIMEOUTS for word in (name, f"{way.patience:g}")]
        options = (
            *OPTIONS,
            *timeouts,
            "--models",
            str(root / "models"),
            "--default",
            DEFAULT,
            "--keys-file",
            str(root / "keys"),
        )
        with (
            (out / "samples.jsonl").open("w") as file,
            serving(out / "server.log", *options) as server,
            _progress(console) as progress,
        ):
            return uvloop.run(Soak(way, server, asks, key, Record(file), progress).run(out))


def _new_key(path: Path) -> str:
    new = [sys.executable, "-m", "server", "keys", "new", "--name", "soak", "--scopes", "admin"]
    made = subprocess.run(new, capture_output=True, text=True, check=True)
    path.write_text("* predict\n" + made.stdout)
    return made.stderr.split()[-1]


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True)


class Soak:
    def __init__(
        self, way: Way, server: Serving, asks: Sequence[Ask], key: str, record: Record, progress: Progress
    ) -> None:
        self._way, self._server, self._record, self._progress = way, server, record, progress
        self._random = Random(way.seed)
        self._requests = [ask.raw for ask in asks]
        self._events: list[str] = []
        self._trouble = Trouble(server, key, self._random)
        self._trouble.tell = self._events.append
        self._load = Load(asks, lambda: self._trouble.has_killed)
        self._hostile = Hostile(server.port, self._random, patience=way.patience)
        self._hostile.excused = lambda: self._trouble.has_killed
        self._began = time.monotonic()
        self._clock = machine.clock(())

    async def run(self, out: Path) -> Found:
        calls = Calls(self._server.rpc_port, self._load.counts, lambda: self._trouble.has_killed)
        await self._hostile.all_once()
        rate = self._way.part * await self._find(calls)
        await asyncio.sleep(1)
        rest = self._look()
        self._began = time.monotonic()
        half = self._way.seconds / 2
        task = self._progress.add_task("", total=self._way.seconds)
        await asyncio.gather(
            self._ask(rate),
            *self._others(calls, rate, self._way.seconds),
            self._every(self._way.change, self._way.seconds, self._trouble.change),
            self._every(self._way.disturb, half, self._trouble.disturb),
            self._every(self._way.look, self._way.seconds, lambda: self._look_and_tell(task)),
        )
        await self._hostile.end()
        await calls.close()
        await asyncio.sleep(2 * self._way.patience)  # until the server is at rest
        samples = self._record.samples[1:]
        checks = judge(
            samples,
            (rest, self._look()),
            warm=self._way.warm,
            counts=self._load.counts,
            faults={
                "hostile requests answered as not meant": self._hostile.unmeant,
                "changes and replacements that failed": self._trouble.failures,
                "errors in the server's log": self._logged(),
            },
        )
        self._load.faults += calls.faults
        draw(samples, out / "soak.svg")
        return Found(checks, self._told(rate))

    async def _find(self, calls: Calls) -> float:
        """How many good requests a second can be answered beside the others that there will be."""

        async def find() -> float:
            found = await saturate(self._server.port, self._requests, connections=BUSY, seconds=self._way.find)
            return len(found.of(200)) / self._way.find

        alone = await find()
        beside = asyncio.gather(*self._others(calls, self._way.part * alone, self._way.find))
        found = await find()
        await beside
        return found

    def _others(self, calls: Calls, rate: float, seconds: float) -> Sequence[Coroutine[None, None, None]]:
        """What comes beside so many good requests a second over HTTP."""
        until = time.monotonic() - self._began + seconds
        return (
            calls.go_on(CALLS_PART * rate, seconds),
            self._every(1 / (HOSTILE_PART * rate), until, self._throw),
        )

    async def _ask(self, rate: float) -> None:
        """Good requests, at random times, until the end."""
        pool = Pool(self._server.port, self._requests, limit=CONNECTIONS, on_answer=self._load.judge)
        due, sent = 0.0, 0
        while (due := due + self._random.expovariate(rate)) < self._way.seconds:
            while (wait := due - pool.now) > 0:
                await asyncio.sleep(max(wait, 0.001))
            pool.send(self._random.randrange(len(self._requests)), due)
            sent += 1
            if sent % 64 == 0:
                await asyncio.sleep(0)
        unanswered = await pool.close()
        self._load.counts["lost"] += unanswered
        self._load.counts["asked"] += unanswered

    async def _throw(self) -> None:
        self._hostile.begin()

    async def _every(self, pause: float, until: float, do: Callable[[], Awaitable[None]]) -> None:
        while (left := self._began + until - time.monotonic()) > pause:
            await asyncio.sleep(min(pause, left))
            await do()

    async def _look_and_tell(self, task: object) -> None:
        self._look()
        counts = self._load.counts
        said = f"{counts['asked']:,} asked, {counts['wrong']} wrong, {counts['lost']} lost, {counts['cut']} cut"
        said += f"; {self._hostile.words.total():,} hostile, {len(self._hostile.unmeant)} unmeant"
        self._progress.update(task, completed=time.monotonic() - self._began, description=said)  # type: ignore[arg-type]

    def _look(self) -> Sample:
        pids = self._server.workers() & self._server.ready()
        seen = {str(pid): look_at(pid) for pid in sorted(pids)}
        sample = Sample(
            time.monotonic() - self._began,
            {pid: process for pid, process in seen.items() if process is not None},
            look_at(self._server.process.pid),
            percentiles(self._load.seconds),
            dict(self._load.counts),
            dict(self._hostile.words),
            self._cores(pids),
            list(self._events),
        )
        self._load.seconds.clear()
        self._events.clear()
        self._record.add(sample)
        return sample

    def _cores(self, pids: Iterable[int]) -> dict[str, float]:
        before, self._clock = self._clock, machine.clock([*pids, self._server.process.pid])
        took = self._clock.at - before.at
        own, server = self._clock.own - before.own, max(self._clock.processes - before.processes, 0.0)
        everybody = self._clock.machine - before.machine
        return {"server": server / took, "load": own / took, "others": max(everybody - server - own, 0.0) / took}

    def _logged(self) -> list[str]:
        """Errors, but for what the supervisor says of workers that were killed."""
        return [
            entry["message"]
            for entry in self._server.entries()
            if entry["level"] in ("error", "critical") and entry.get("worker") not in self._trouble.killed
        ]

    def _load_told(self, rate: float) -> str:
        part, minutes = self._way.part, self._way.seconds / 60
        return f"{minutes:g} minutes at {rate:.0f} good requests a second, {part:.0%} of what can be beside the others."

    def _told(self, rate: float) -> list[str]:
        counts = self._load.counts
        words = ", ".join(f"{name} {count:,}" for name, count in counts.items() if name != "asked")
        hostile = ", ".join(f"{name} {count:,}" for name, count in self._hostile.words.most_common())
        done = ", ".join(f"{name} {count:,}" for name, count in self._trouble.words.items())
        faults = [*self._load.faults[:10], *self._hostile.unmeant[:10], *self._trouble.failures[:10]]
        return [
            self._load_told(rate),
            f"Good requests: {words}.",
            f"Hostile clients: {hostile}.",
            f"Done to it: {done}.",
            *faults,
            *self._logged()[:10],
        ]
