"""The process above the workers: gunicorn's arbiter, which here knows workers that load from those that serve.

It goes by the monotonic clock alone, and by what it has seen itself: time in which it did not run, because the machine
stood still, is no worker's silence. `server.telemetry` may not be imported here at the top: see `server.workers`.
"""

import logging
import os
import signal
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from types import FrameType
from typing import Any, Literal

from gunicorn import sock
from gunicorn.arbiter import Arbiter
from gunicorn.errors import HaltServer

from server import canary, metric_files
from server.accepting import waiting
from server.errors import InvalidKeys, InvalidRepository
from server.generations import Board
from server.ports import SHUT_SECONDS, shut
from server.reloading import check
from server.settings import Settings
from server.shares import Shares
from server.worker import RETRY_SECONDS, SHOW_WHERE, Worker, on_stop, shares_file

LOOK_SECONDS = 0.25
"""How often it looks after the workers. One that has died wakes it at once."""
SILENCE_SECONDS = 3.5
"""A worker that serves and whose event loop stands for so long is killed and replaced."""
LOAD_SECONDS = 60
"""How long a worker may load at least; as long as its repository may be tried, if that is more."""
GRACE_SECONDS = 30
"""How long requests in flight may take to end once the stop has begun."""
LET_IN_SECONDS = 1.0
"""How long the workers may take to accept those that have."""
HASTE_SECONDS = 2
"""The same once it has been asked for twice; and how long a worker may take that has nothing in flight yet."""
AGAIN_SECONDS = 1.0
"""How long it takes until the next tries, after a worker that has died before it served, or could not be made."""
DEPTH = 12
"""Calls of a worker's stack that are told."""

Cause = Literal["silent", "slow_load", "died"]
"""Why a worker is replaced: its event loop stood, it did not end loading, or it has ended by itself or by a signal."""

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Watched:
    """What is known of a worker."""

    place: int
    beat: float = 0.0
    """The last that was seen; 0: it does not serve yet."""
    silent: float = 0.0
    """Seconds since then."""
    retired: bool = False
    """Whether it accepts no more."""
    until: float | None = None
    """When it has to have ended, if it has been told to or has said that it will."""
    asked: bool = False
    """Where it stands, whether or not it could say."""
    told: bool = False
    killed: Cause | None = None

    def see(self, beat: float, seconds: float) -> None:
        """What it said last, so many seconds after the last look."""
        self.silent = self.silent + seconds if beat == self.beat else 0.0
        self.asked = self.asked and beat == self.beat
        self.beat = beat


class Supervisor(Arbiter):  # type: ignore[misc]
    """Keeps as many workers as there should be."""

    def __init__(self, app: Any) -> None:
        super().__init__(app)
        self._settings: Settings = app.settings
        self._folder = Path(self.cfg.worker_tmp_dir)
        self._shares = Shares(shares_file(self._folder))
        self._watched: dict[int, _Watched] = {}
        self._load_seconds = max(LOAD_SECONDS, self._settings.trial_seconds)
        self._looked = monotonic()
        self._next_spawn = 0.0
        """Not before then."""
        self._outdated = 0
        """Workers up to this age are to be replaced."""
        self._gone: set[int] = set()
        """Workers whose metrics have no heir yet."""
        self._trial: int | None = None
        """The process id of a trial."""

    # ---- The loop ---------------------------------------------------------------------------------------------------

    def wait_for_signals(self, timeout: float = LOOK_SECONDS) -> list[int]:
        """Each once, however often it came: many reloads at once are one."""
        return list(dict.fromkeys(super().wait_for_signals(min(timeout, LOOK_SECONDS))))

    def murder_workers(self) -> None:
        """Those that do not stir, or do not end."""
        self._gone = {pid for pid in self._gone if not metric_files.inherit(self._folder, pid)}
        now = monotonic()
        seconds, self._looked = min(now - self._looked, 2 * LOOK_SECONDS), now
        for pid, watched in self._watched.items():
            sign = self._shares.sign(watched.place, pid)
            watched.see(sign.beat if sign else 0.0, seconds)
            if sign is not None and sign.retired and not watched.retired:
                watched.retired = True
                watched.until = watched.until or now + GRACE_SECONDS
            if watched.told and not watched.retired:
                os.kill(pid, signal.SIGTERM)  # again: one that had just been forked may not have heard it
            self._judge(pid, watched, now)

    def _judge(self, pid: int, watched: _Watched, now: float) -> None:
        if watched.until is not None and now > watched.until:
            if watched.beat:
                logger.error("a worker has not ended in %g seconds: it is killed", GRACE_SECONDS, extra={"worker": pid})
            watched.until = None
            os.kill(pid, signal.SIGKILL)
        elif watched.retired or watched.killed:
            return
        elif not watched.beat:
            if watched.silent > self._load_seconds:
                self._kill(pid, watched, "slow_load", f"a worker has not loaded in {self._load_seconds:g} seconds")
        elif watched.silent > SILENCE_SECONDS:
            if watched.asked:
                self._kill(pid, watched, "silent", f"a worker's event loop has stood for {watched.silent:.1f} seconds")
            else:
                watched.asked = True
                os.ftruncate(self.WORKERS[pid].tmp.fileno(), 0)
                os.kill(pid, SHOW_WHERE)

    def _kill(self, pid: int, watched: _Watched, cause: Cause, why: str) -> None:
        stack = _read_stack(self.WORKERS[pid].tmp.fileno())
        where = {"where": stack} if stack else {}
        logger.error("%s, so it is killed", why, extra={"worker": pid, **where})
        watched.killed = cause
        os.kill(pid, signal.SIGKILL)

    def manage_workers(self) -> None:
        """A worker that is outdated goes when the one that takes its place serves."""
        alive = sorted(self.WORKERS.values(), key=lambda worker: worker.age)
        new = [worker for worker in alive if worker.age > self._outdated and not self._watched[worker.pid].retired]
        for _ in range(self.num_workers - len(new)):
            if monotonic() >= self._next_spawn:
                self.spawn_worker()
        serving = sum(bool(self._watched[worker.pid].beat) for worker in new)
        old = [worker for worker in alive if worker.age <= self._outdated]
        surplus = [*old[: max(0, len(old) + serving - self.num_workers)], *new[: max(0, len(new) - self.num_workers)]]
        self._tell(worker.pid for worker in surplus)

    def _tell(self, pids: Iterable[int]) -> None:
        """To answer what is in flight, and end."""
        for pid in pids:
            watched = self._watched[pid]
            if not watched.told:
                watched.told = True
                serves = self._shares.sign(watched.place, pid) is not None
                watched.until = monotonic() + (GRACE_SECONDS if serves else HASTE_SECONDS)
                os.kill(pid, signal.SIGTERM)

    # ---- Birth and death --------------------------------------------------------------------------------------------

    def spawn_worker(self) -> None:
        try:
            pid = super().spawn_worker()
        except OSError as exc:  # no process, file or memory is left for it
            if os.getpid() != self.pid:
                os._exit(os.EX_OSERR)
            logger.error("no worker can be made, the next try is in %g seconds: %s", AGAIN_SECONDS, exc)
            self._next_spawn = monotonic() + AGAIN_SECONDS
            return
        self._watched[pid] = _Watched(self.WORKERS[pid].place)

    def seat(self, worker: Worker) -> None:
        """At the first place that is free, before it is forked."""
        taken = {watched.place for watched in self._watched.values()}
        worker.place = next(place for place in range(len(taken) + 1) if place not in taken)

    def reap_workers(self) -> None:
        """Those of the workers that have ended: other children are waited for by whoever has made them."""
        for pid in list(self.WORKERS):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                self._bury(pid, os.waitstatus_to_exitcode(status))
        if self.pid == 1:
            self._reap_strangers()

    def _reap_strangers(self) -> None:
        """Orphans, in a container of which this is the first process."""
        with suppress(ChildProcessError):
            while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
                if ended.si_pid in self.WORKERS or ended.si_pid == self._trial:
                    return
                os.waitpid(ended.si_pid, os.WNOHANG)

    def _bury(self, pid: int, code: int) -> None:
        """`code` is what it exited with; below zero, the signal that ended it."""
        worker, watched = self.WORKERS.pop(pid), self._watched.pop(pid)
        worker.tmp.close()
        self._shares.forget(watched.place)
        self._gone.add(pid)
        Board(self._folder).leave(pid)
        if code in (self.WORKER_BOOT_ERROR, self.APP_LOAD_ERROR):
            raise HaltServer("a worker cannot load", code)
        if watched.told and not watched.killed:
            return
        _count_replaced(watched.killed or "died")
        if not watched.killed and code not in (0, os.EX_TEMPFAIL):  # it has said why
            how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"
            logger.error("a worker %s, so another takes its place", how, extra={"worker": pid})
        if not watched.beat:
            self._next_spawn = monotonic() + (RETRY_SECONDS if code == os.EX_TEMPFAIL else AGAIN_SECONDS)

    def stop(self, graceful: bool = True) -> None:
        """Close the sockets, tell the workers to end, and wait until they have."""
        self._let_in_the_last()
        sock.close_sockets(self.LISTENERS, unlink=False)
        self.LISTENERS: list[Any] = []
        self._tell(list(self.WORKERS))
        until = monotonic() + GRACE_SECONDS
        while self.WORKERS and monotonic() < until:
            if {signal.SIGINT, signal.SIGQUIT} & set(self.wait_for_signals(0.05)):
                until = min(until, monotonic() + HASTE_SECONDS)
            self.murder_workers()
            self.reap_workers()
        for pid in self.WORKERS:
            os.kill(pid, signal.SIGKILL)
        while self.WORKERS:
            sleep(0.01)
            self.reap_workers()

    def _let_in_the_last(self) -> None:
        """Who has been told by the kernel that there is a connection is answered."""
        for listener in self.LISTENERS:
            shut(listener.sock)
        until = monotonic() + LET_IN_SECONDS
        sleep(SHUT_SECONDS)
        while any(waiting(listener.sock) for listener in self.LISTENERS) and monotonic() < until:
            sleep(0.01)

    # ---- Reloads ----------------------------------------------------------------------------------------------------

    def reload(self) -> None:
        """Roll the workers, unless what they are to serve cannot be."""
        if fault := self._find_fault():
            logger.error("not reloaded: %s", fault)
        else:
            self._outdated, self._next_spawn = self.worker_age, 0.0

    def _find_fault(self) -> str | None:
        """What keeps from being served what is there."""
        try:
            paths, versions = check(self._settings, Board(self._folder))
        except (InvalidRepository, InvalidKeys, OSError) as exc:
            return str(exc)
        return self._try_apart(paths, versions) if paths else None

    def _try_apart(self, paths: Sequence[Path], versions: str) -> str | None:
        """The graphs are loaded in another process, for this one is to be forked; meanwhile it looks after the workers.

        Told to stop meanwhile, it stops.
        """
        try:
            trial = canary.start_apart(paths, versions, seconds=self._settings.trial_seconds)
        except OSError as exc:
            return f"it cannot be tried: {exc}"

        def stop(sig: int, frame: FrameType | None) -> None:
            trial.kill()
            self.signal(sig, frame)

        def look() -> None:
            self.reap_workers()
            self.murder_workers()
            self.manage_workers()

        on_stop(stop)
        self._trial = trial.pid
        try:
            return canary.wait_for_fault(
                trial, seconds=self._settings.trial_seconds, meanwhile=look, every=LOOK_SECONDS
            )
        finally:
            self._trial = None
            on_stop(self.signal)


def _read_stack(descriptor: int) -> list[str]:
    """The innermost calls of what a worker has written of where it stands; empty if it could not."""
    lines = os.pread(descriptor, 1 << 14, 0).decode(errors="replace").strip("\0\n").splitlines()
    return [line.strip() for line in lines[1 : DEPTH + 1]]


def _count_replaced(cause: Cause) -> None:
    from server import telemetry

    telemetry.count_replaced(cause)
