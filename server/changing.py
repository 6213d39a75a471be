"""Changes of what is served: a load, an unload, or what polling finds, made by one worker for all of them."""

import asyncio
import hashlib
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from server import canary, telemetry
from server.errors import CommitteeError, Conflict, InvalidInput, InvalidRepository, NotFound, NotReady
from server.generations import Board, Proposal, Refusal, State, Word
from server.manifest import NAME_PATTERN
from server.repository import Versions, find_ensembles, list_versions, pick, read_version

WAIT_SECONDS = 0.02
"""How often it looks what the workers say."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Entry:
    """Of the index: a version that is served, or that lies in the repository."""

    name: str
    version: int | None
    """None if it is the ensemble's folder that is wrong."""
    state: Literal["READY", "LOADING", "UNAVAILABLE"]
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """Of an ensemble, in the repository."""

    versions: list[int]
    fault: str = ""
    """Why nothing of it can be loaded, if that is so."""


class Changer:
    """Changes what stands on the board: for all workers at once, or for none.

    A version is checked in a process of its own before any worker loads it. That, and the workers' loading, may each
    take `seconds`.
    """

    def __init__(self, board: Board, root: Path, *, versions: Versions, seconds: float) -> None:
        self._board, self._root, self._versions, self._seconds = board, root, versions, seconds
        self._told: dict[str, str] = {}
        """What polling has found wrong, by where, so that it is told once."""

    async def index(self) -> list[Entry]:
        """Every version that is served or lies in the repository."""
        try:
            found = await asyncio.to_thread(_survey, self._root)
        except InvalidRepository:
            found = {}
        return _entries(self._board.state(), found)

    async def load(self, name: str, versions: Versions | None = None) -> State:
        """Serve these versions of an ensemble, by default those that a start would choose, and no others of it.

        Returns when all workers do. Raises NotFound, Conflict, and InvalidInput with the reason if a version cannot be
        served: then all is as it was. NotReady if a worker does not say so in time.
        """
        with self._counting("load"), self._board.changing():
            found = (await self._look()).get(name)
            if found is None or not (found.versions or found.fault):
                raise NotFound(f"no version of an ensemble {name!r} in the repository")
            if found.fault:
                raise InvalidInput(found.fault)
            chosen = pick(found.versions, self._versions if versions is None else versions)
            if not chosen:
                there = ", ".join(map(str, found.versions))
                raise NotFound(f"none of these versions of ensemble {name!r}; there are: {there}")
            return await self._serve(name, tuple(chosen))

    async def unload(self, name: str) -> State:
        """Serve no version of an ensemble any more. Returns when no worker does.

        Raises NotFound, Conflict, and NotReady if a worker does not say so in time.
        """
        with self._counting("unload"), self._board.changing():
            serving = self._board.state().serving
            if name not in serving and name not in await self._look():
                raise NotFound(f"no ensemble {name!r}; there are: {', '.join(sorted(serving)) or 'none'}")
            return await self._serve(name, ())

    async def poll(self) -> None:
        """Serve what a start would choose now, but for versions that cannot be served."""
        try:
            with self._board.changing():
                found = await self._look()
                self._told.pop("", None)
                for name in sorted(found.keys() | self._board.state().serving.keys()):
                    await self._poll_one(name, found.get(name, Found([])))
        except Conflict:
            return  # another worker is at it
        except (InvalidRepository, NotReady) as exc:
            self._tell("", self._shown(exc.message))

    async def _poll_one(self, name: str, found: Found) -> None:
        if found.fault:
            self._tell(name, found.fault)
            return
        self._told.pop(name, None)
        for _ in range(len(found.versions) + 1):
            state = self._board.state()
            good = [version for version in found.versions if not self._is_refused(state, name, version)]
            chosen = tuple(pick(good, self._versions))
            if chosen == state.serving.get(name, ()):
                return
            try:
                with self._counting("poll"):
                    await self._serve(name, chosen)
            except InvalidInput as exc:  # then what was chosen before it
                logger.error("a version is refused: %s", exc.message)

    async def _serve(self, name: str, versions: tuple[int, ...]) -> State:
        """These versions and no others of an ensemble."""
        state = self._board.state()
        served = state.serving.get(name, ())
        if versions == served:
            return state
        new = {version: _likeness(self._root / name / str(version)) for version in versions if version not in served}
        for version, seen in new.items():
            if fault := await self._try(self._root / name / str(version)):
                self._refuse(name, {version: seen}, fault)
        serving = {**state.serving, name: versions} if versions else {**state.serving}
        if not versions:
            del serving[name]
        number = self._board.state().last + 1
        if fault := await self._propose(Proposal(number=number, serving=serving, pid=os.getpid())):
            self._refuse(name, new, fault)
        state = self._board.state()
        logger.info("what is served has changed", extra={"generation": number, "serving": dict(state.serving)})
        return state

    async def _try(self, folder: Path) -> str | None:
        """What keeps a version from being served. What needs no graph is checked here, the rest elsewhere."""
        try:
            await asyncio.to_thread(read_version, folder)
        except InvalidRepository as exc:
            return self._shown(exc.message)
        process = canary.start_apart([folder], seconds=self._seconds)
        waiting = asyncio.ensure_future(asyncio.to_thread(canary.wait_for_fault, process, seconds=self._seconds))
        try:
            fault = await asyncio.shield(waiting)
        except asyncio.CancelledError:
            process.kill()
            await waiting  # for its end
            raise
        place = f"{folder.parent.name}/{folder.name}"
        if fault is None:
            return None
        shown = self._shown(fault)
        return shown if shown.startswith(place) else f"{place}: {shown}"

    def _refuse(self, name: str, versions: Mapping[int, str], reason: str) -> None:
        """Write down that these versions cannot be served, by what they looked like. Raises InvalidInput."""
        state = self._board.state()
        refused = {f"{name}/{version}": Refusal(reason=reason, seen=seen) for version, seen in versions.items()}
        self._board.write(state.model_copy(update={"refused": {**state.refused, **refused}}))
        raise InvalidInput(reason)

    def _is_refused(self, state: State, name: str, version: int) -> bool:
        refusal = state.refused.get(f"{name}/{version}")
        return refusal is not None and refusal.seen == _likeness(self._root / name / str(version))

    async def _propose(self, proposal: Proposal) -> str | None:
        """Have all workers serve this, or none. Returns what keeps one of them from it. Raises NotReady."""
        number = proposal.number
        state = self._board.state().model_copy(update={"last": number, "proposal": proposal})
        self._board.write(state)
        try:
            words = await self._wait(lambda word: number in (word.ready, word.failed))
            fault = next((word.fault for word in words if word.failed == number), None)
            if fault is None:
                served = {f"{name}/{version}" for name, versions in proposal.serving.items() for version in versions}
                refused = {place: refusal for place, refusal in state.refused.items() if place not in served}
                state = State(number=number, serving=proposal.serving, last=number, refused=refused)
        finally:  # taken up, or taken back
            self._board.write(state.model_copy(update={"proposal": None}))
        await self._wait(lambda word: word.serves == number if fault is None else word.ready != number)
        return None if fault is None else self._shown(fault)

    async def _wait(self, done: Callable[[Word], bool]) -> list[Word]:
        """Until all workers that live have said so. Raises NotReady."""
        until = asyncio.get_running_loop().time() + self._seconds
        while not all(map(done, (words := self._board.words()).values())):
            if asyncio.get_running_loop().time() > until:
                late = ", ".join(str(pid) for pid, word in words.items() if not done(word))
                raise NotReady(f"expected all workers to follow within {self._seconds:g} seconds; {late} did not")
            await asyncio.sleep(WAIT_SECONDS)
        return list(words.values())

    async def _look(self) -> dict[str, Found]:
        return await asyncio.to_thread(_survey, self._root)

    def _shown(self, message: str) -> str:
        """Without the repository's place on this machine."""
        return message.replace(f"{self._root}/", "").replace(str(self._root), "the repository")

    def _tell(self, where: str, fault: str) -> None:
        if self._told.get(where) != fault:
            self._told[where] = fault
            logger.error("what is served stays as it was: %s", fault)

    @contextmanager
    def _counting(self, action: str) -> Iterator[None]:
        before = self._board.state().number
        outcome = "failed"
        try:
            yield
            outcome = "unchanged" if self._board.state().number == before else "done"
        except CommitteeError as exc:
            outcome = {Conflict: "conflict", InvalidInput: "refused", NotFound: "refused"}.get(type(exc), "failed")
            raise
        finally:
            telemetry.count_change(action, outcome)


async def poll_forever(changer: Changer, seconds: float) -> None:
    """Until it is cancelled."""
    while True:
        await asyncio.sleep(seconds)
        try:
            await changer.poll()
        except Exception:
            logger.exception("a poll of the repository has failed")


def _survey(root: Path) -> dict[str, Found]:
    """The ensembles of a repository. Raises InvalidRepository if it cannot be read, or is empty."""
    found = {}
    for folder in find_ensembles(root):
        if not re.fullmatch(NAME_PATTERN, folder.name):
            continue
        try:
            numbered, strangers = list_versions(folder)
        except InvalidRepository:  # gone since
            continue
        fault = (
            f"{folder.name}: expected only folders 1, 2, 3, …, one a version; got {strangers[0]!r}" if strangers else ""
        )
        found[folder.name] = Found(list(numbered), fault)
    return found


def _entries(state: State, found: Mapping[str, Found]) -> list[Entry]:
    served = state.versions()
    loading = state.proposal.versions() - served if state.proposal is not None else set()
    there = {(name, version) for name, one in found.items() for version in one.versions}
    entries = []
    for name, version in sorted(served | loading | there):
        if (name, version) in served:
            entries.append(Entry(name, version, "READY"))
        elif (name, version) in loading:
            entries.append(Entry(name, version, "LOADING"))
        else:
            refusal = state.refused.get(f"{name}/{version}")
            entries.append(Entry(name, version, "UNAVAILABLE", "unloaded" if refusal is None else refusal.reason))
    faults = [Entry(name, None, "UNAVAILABLE", one.fault) for name, one in sorted(found.items()) if one.fault]
    return entries + faults


def _likeness(folder: Path) -> str:
    """Of what a folder looks like, without reading its files."""
    try:
        looks = sorted((entry.name, *_looks(entry.stat(follow_symlinks=False))) for entry in os.scandir(folder))
    except OSError as exc:
        return str(exc.strerror)
    return hashlib.sha256(repr(looks).encode()).hexdigest()


def _looks(status: os.stat_result) -> tuple[int, ...]:
    return status.st_size, status.st_mtime_ns, status.st_ino
