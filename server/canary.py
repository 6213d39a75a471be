"""Strangers' graphs are loaded in a process of its own first: one may hang, crash, or take all memory there is.

`committee-server verify` is what runs in it, and confines itself first.
"""

import math
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from time import monotonic

GOOD, BAD = "ok", "FAULT"
"""How its lines begin, one for each version."""
CONFINED = "--confined"
"""The option, of seconds of processor, by which it is told to confine itself."""

SPARE_SECONDS = 5
"""Of processor time, beyond those that the clock on the wall allows."""


def start_apart(paths: Iterable[Path], versions: str = "all", *, seconds: float) -> "subprocess.Popen[str]":
    """Begin to check a repository, or some versions' folders, in a process that is to be done in so many seconds."""
    limit = str(math.ceil(seconds) + SPARE_SECONDS)
    return subprocess.Popen(
        [sys.executable, "-m", "server", "verify", "--versions", versions, CONFINED, limit, *map(str, paths)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_fault(
    process: "subprocess.Popen[str]",
    *,
    seconds: float,
    meanwhile: Callable[[], object] = str,
    every: float = math.inf,
) -> str | None:
    """What the process of `start_apart` has found wrong, or what became of it; None if all is good.

    `meanwhile` is called every so many seconds.
    """
    until = monotonic() + seconds
    try:
        while True:
            try:
                out, err = process.communicate(timeout=max(0.0, min(every, until - monotonic())))
                break
            except subprocess.TimeoutExpired:
                if monotonic() >= until:
                    return f"it took more than {seconds:g} seconds to verify"
                meanwhile()
    finally:
        if process.returncode is None:
            process.kill()
            process.communicate()
    faults = [line.removeprefix(f"{BAD} ") for line in out.splitlines() if not line.startswith(f"{GOOD} ")]
    if faults:
        return faults[0]
    if process.returncode or not out:
        last = (err.strip().splitlines() or ["it said nothing"])[-1]
        return f"verifying ended with exit code {process.returncode}: {last}"
    return None
