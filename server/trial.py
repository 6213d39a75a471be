"""A repository is tried in a fork of this process first: a stranger's graph may hang, crash, or take all memory."""

import math
import multiprocessing
import signal
from multiprocessing.connection import Connection
from pathlib import Path

from server.confine import confine, memory_for
from server.errors import InvalidRepository
from server.repository import Versions, find_versions, load_version

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
    memory = memory_for([root])
    confine(memory, seconds)
    fault: str | None = None
    try:
        for folder in find_versions(root, versions):
            load_version(folder)
    except InvalidRepository as exc:
        fault = str(exc)
    except MemoryError:
        fault = f"{root}: expected its graphs to load in {memory >> 20} MiB"
    pipe.send(fault)
    pipe.close()


def _cause(exit_code: int | None) -> str:
    return f"signal {-exit_code}" if exit_code is not None and exit_code < 0 else f"exit code {exit_code}"
