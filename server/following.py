"""A worker's part in changes of what is served: it watches the board, gets ready what is proposed, and takes it up."""

import asyncio
import gc
import logging
import os
import weakref
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from server import telemetry
from server.engine import Engine, Prepared
from server.ensemble import Ensemble
from server.errors import InvalidRepository, MemberFailed
from server.generations import Board, Serving, State, Word, versions_of
from server.repository import Repository, load_version
from server.session import CPU

LOOK_SECONDS = 0.05
"""How often it looks whether the board has changed."""
COLLECT_SECONDS = 1.0
"""How long after a change it looks whether what was served before has gone, and then after twice as long each time."""

logger = logging.getLogger(__name__)


class Follower:
    """Keeps an engine at the generation of the board, from `start` to `close`; it begins at `number`."""

    def __init__(
        self, engine: Engine, board: Board, root: Path, *, number: int, threads: int = 1, providers: Sequence[str] = CPU
    ) -> None:
        self._engine, self._board, self._root = engine, board, root
        self._threads, self._providers = threads, providers
        self._number = number
        self._ready: tuple[int, Prepared] | None = None
        """A proposal's number, and what it would serve."""
        self._failed = (0, "")
        self._task: asyncio.Task[None] | None = None
        self._going: list[weakref.ref[Ensemble]] = []
        """Those that are served no more, and may have requests that have not ended."""
        self._collect = (0.0, 0.0)
        """When to look for them, and how long to wait then."""
        self.lost = False
        """Whether it cannot serve what all others serve: the process should be replaced."""

    async def start(self) -> None:
        """Returns when the engine serves the generation of the board, as a worker that is counted with the others."""
        self._say()
        while (state := self._board.state()).number != self._number:
            await self._take_up(state)
        self._task = asyncio.create_task(self._follow())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        self._board.leave(os.getpid())

    async def _follow(self) -> None:
        while not self.lost:
            try:
                await self._keep_up()
                self._let_go()
            except Exception:
                logger.critical(
                    "this worker cannot follow the others, so it ends and another takes its place", exc_info=True
                )
                self.lost = True
            await asyncio.sleep(LOOK_SECONDS)

    async def _keep_up(self) -> None:
        state = self._board.state()
        proposal = state.proposal
        if state.number != self._number:
            await self._take_up(state)
        elif proposal is None:
            if self._ready is not None:
                self._ready = None
                self._say()
        elif proposal.number not in (self._ready and self._ready[0], self._failed[0]):
            self._ready = None
            try:
                self._ready = proposal.number, await self._prepare(proposal.serving)
            except (InvalidRepository, MemberFailed) as exc:
                self._failed = proposal.number, exc.message
            self._say()

    async def _take_up(self, state: State) -> None:
        """Raises InvalidRepository, MemberFailed."""
        if self._ready is None or self._ready[0] != state.number:
            self._ready = state.number, await self._prepare(state.serving)
        before = self._engine.repository.ensembles()
        self._engine.serve(self._ready[1])
        self._number, self._ready = state.number, None
        self._say()
        now = set(self._engine.repository.ensembles())
        self._going += [weakref.ref(ensemble) for ensemble in before if ensemble not in now]
        self._collect = asyncio.get_running_loop().time() + COLLECT_SECONDS, COLLECT_SECONDS

    def _let_go(self) -> None:
        """What has ended of a request may be in a cycle that nobody looks for, and hold all of an ensemble's memory."""
        at, wait = self._collect
        if not self._going or asyncio.get_running_loop().time() < at:
            return
        self._going = [going for going in self._going if going() is not None]
        if self._going:
            gc.collect()
            self._collect = at + 2 * wait, 2 * wait

    async def _prepare(self, serving: Serving) -> Prepared:
        return await asyncio.to_thread(self._load, serving)

    def _load(self, serving: Serving) -> Prepared:
        """What is served already is not loaded anew."""
        return self._engine.prepare(Repository(self._load_version(*place) for place in sorted(versions_of(serving))))

    def _load_version(self, name: str, version: int) -> Ensemble:
        served = self._engine.repository.find(name, version)
        folder = self._root / name / str(version)
        return served or load_version(folder, threads=self._threads, providers=self._providers)

    def _say(self) -> None:
        number, fault = self._failed
        self._board.say(
            Word(serves=self._number, ready=self._ready[0] if self._ready else 0, failed=number, fault=fault)
        )
        telemetry.mark_generation(self._number)
