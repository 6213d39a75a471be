"""What the workers serve together: a file that says so, which all of them watch, and each one's word that it does.

Whoever changes what is served holds a lock, proposes the next generation, waits until every worker has it ready beside
the one it serves, and only then makes it the one that is served: workers have it in memory, and take it up at once. If
one of them cannot get it ready, the proposal is taken back, and nobody has ever served it.
"""

import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from server.errors import Conflict

STATE_FILE, LOCK_FILE = "generation.json", "generation.lock"
WORKER_FILES = "worker-*.json"

Serving = Mapping[str, tuple[int, ...]]
"""By ensemble, which versions, lowest first."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class Proposal(_Frozen):
    number: int
    serving: Serving
    pid: int
    """Of the process that makes it. If that is gone, the proposal is void."""

    def versions(self) -> set[tuple[str, int]]:
        return versions_of(self.serving)


class Refusal(_Frozen):
    """Of a version that cannot be served."""

    reason: str
    seen: str = ""
    """What its folder looked like: one that looks otherwise is worth another try."""


class State(_Frozen):
    number: int
    """The generation, which only grows; those in between have been proposed and taken back."""
    serving: Serving
    last: int
    """The number of the last proposal."""
    proposal: Proposal | None = None
    refused: Mapping[str, Refusal] = {}
    """By `name/version`, or by name if it is the ensemble's folder that is wrong."""

    def versions(self) -> set[tuple[str, int]]:
        return versions_of(self.serving)


class Word(_Frozen):
    """A worker's."""

    serves: int
    """A generation."""
    ready: int = 0
    """The proposal that it has in memory beside."""
    failed: int = 0
    """The proposal that it cannot load."""
    fault: str = ""


class Board:
    """The files, in a folder that the workers share and nobody else sees."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / STATE_FILE
        self._seen: object = None
        self._state: State | None = None

    def begin(self, serving: Serving) -> None:
        """Serve this, unless a generation is there: of several who begin, one does."""
        if not self.has_begun():
            self._write(self._path, State(number=1, serving=serving, last=1), once=True)

    def has_begun(self) -> bool:
        return self._path.exists()

    def state(self) -> State:
        """What is to be served now. The file is read only when it has changed."""
        status = self._path.stat()
        seen = status.st_mtime_ns, status.st_ino, status.st_size
        if self._state is None or seen != self._seen:
            self._state = State.model_validate_json(self._path.read_bytes())
            self._seen = seen
        proposal = self._state.proposal
        if proposal is not None and not _is_alive(proposal.pid):
            return self._state.model_copy(update={"proposal": None})
        return self._state

    def write(self, state: State) -> None:
        """Only for who is `changing`."""
        self._write(self._path, state)

    @contextmanager
    def changing(self) -> Iterator[None]:
        """One at a time, of all processes; a lock that ends with the process. Raises Conflict."""
        descriptor = os.open(self._folder / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as exc:
                raise Conflict("another change of what is served is under way") from exc
            yield
        finally:
            os.close(descriptor)

    def say(self, word: Word) -> None:
        """Of this process, that it is a worker that serves."""
        self._write(self._folder / WORKER_FILES.replace("*", str(os.getpid())), word)

    def leave(self, pid: int) -> None:
        """A worker that serves no more."""
        (self._folder / WORKER_FILES.replace("*", str(pid))).unlink(missing_ok=True)

    def words(self) -> dict[int, Word]:
        """Of all workers that live, by process id."""
        words = {}
        for path in self._folder.glob(WORKER_FILES):
            pid = int(path.stem.rpartition("-")[2])
            if _is_alive(pid):
                with suppress(FileNotFoundError):  # it has just left
                    words[pid] = Word.model_validate_json(path.read_bytes())
        return words

    def _write(self, path: Path, content: BaseModel, *, once: bool = False) -> None:
        """Whole or not at all; `once`: unless it is there."""
        part = path.with_name(f".{path.name}.{os.getpid()}")
        part.write_text(json.dumps(content.model_dump()))
        if not once:
            part.replace(path)
            return
        with suppress(FileExistsError):
            path.hardlink_to(part)
        part.unlink()


def serving_of(folders: Iterable[Path]) -> Serving:
    """That of versions' folders."""
    serving: dict[str, tuple[int, ...]] = {}
    for folder in folders:
        name = folder.parent.name
        serving[name] = tuple(sorted((*serving.get(name, ()), int(folder.name))))
    return serving


def versions_of(serving: Serving) -> set[tuple[str, int]]:
    return {(name, version) for name, versions in serving.items() for version in versions}


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
