"""A repository is tried in a fork of this process first: a stranger's graph may hang, crash, or take all memory."""

import math
import multiprocessing
import resource
import signal
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

from server.errors import InvalidRepository
from server.repository import GRAPH_LIMIT, Versions, find_versions, load_version

MEMORY = 2 << 30
"""Bytes that a trial may take beyond what this process has, most of which a good repository never touches."""
MEMORY_A_BYTE = 8
"""And for each of the repository's own: it is read, parsed, optimised and packed."""

FILE_BYTES = 1 << 20
"""The most that it may write to a file."""
END_SECONDS = 5.0
"""How long it may take to end once it has said what it found."""


def find_fault(root: Path, versions: Versions, *, seconds: float) -> str | None:
    """What keeps these versions from being served; None if nothing does. The process must have no other threads."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    arguments = root, versions, theirs, math.ceil(seconds)
    trial = context.Process(target=_try, args=arguments, name="committee-trial", daemon=True)
    trial.start()
    theirs.close()
    try:
        if not ours.poll(seconds):
            return f"{root}: expected its graphs to load and to answer within {seconds:g} seconds; they did not"
        fault: str | None = ours.recv()
        trial.join(END_SECONDS)
        return fault
    except EOFError:
        trial.join()
        return f"{root}: loading its graphs ended the process that tried it, by {_cause(trial.exitcode)}"
    finally:
        trial.kill()
        trial.join()
        ours.close()


def _try(root: Path, versions: Versions, pipe: Connection, seconds: int) -> None:
    """In the fork: say what is wrong, or None."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for whoever waits
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    confine(MEMORY + MEMORY_A_BYTE * _size_of(root), seconds)
    fault: str | None = None
    try:
        for folder in find_versions(root, versions):
            load_version(folder)
    except InvalidRepository as exc:
        fault = str(exc)
    except MemoryError:
        fault = f"{root}: expected its graphs to load in {MEMORY >> 20} MiB and {MEMORY_A_BYTE} times their size"
    pipe.send(fault)
    pipe.close()


def confine(memory: int, seconds: int) -> None:
    # Should nobody be left to end it, it ends by the processor time that it takes.
    limits = [(resource.RLIMIT_CPU, seconds), (resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, FILE_BYTES)]
    with suppress(OSError, ValueError):  # Linux alone tells what there is already
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limits.append((resource.RLIMIT_AS, pages * resource.getpagesize() + memory))
    for which, limit in limits:
        with suppress(OSError, ValueError):  # a limit that is lower already
            resource.setrlimit(which, (limit, limit))


def _size_of(root: Path) -> int:
    """Bytes of the versions' files; what cannot be looked at will be refused anyhow."""
    size = 0
    for path in root.glob("*/*/*"):
        with suppress(OSError):
            size += min(path.lstat().st_size, GRAPH_LIMIT)
    return size


def _cause(exit_code: int | None) -> str:
    return f"signal {-exit_code}" if exit_code is not None and exit_code < 0 else f"exit code {exit_code}"
