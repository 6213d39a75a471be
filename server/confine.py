"""Bounds on a process that loads strangers' graphs, set by itself before it does."""

import resource
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from server.repository import GRAPH_LIMIT

MEMORY = 2 << 30
"""Bytes that it may take beyond what it has, most of which a good repository never touches."""
MEMORY_A_BYTE = 8
"""And for each of the repository's own: it is read, parsed, optimised and packed."""
FILE_BYTES = 1 << 20
"""The most that it may write to a file."""


def confine(memory: int, seconds: int) -> None:
    """So many bytes more, and seconds of the processor: should nobody be left to end it, it ends by itself."""
    limits = [(resource.RLIMIT_CPU, seconds), (resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, FILE_BYTES)]
    with suppress(OSError, ValueError):  # Linux alone tells what there is already
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limits.append((resource.RLIMIT_AS, pages * resource.getpagesize() + memory))
    with suppress(OSError):  # the first to be killed, should memory be short
        Path("/proc/self/oom_score_adj").write_text("1000")
    for which, limit in limits:
        with suppress(OSError, ValueError):  # a limit that is lower already
            resource.setrlimit(which, (limit, limit))


def memory_for(folders: Iterable[Path]) -> int:
    """Bytes that it takes to load what lies in there; what cannot be looked at will be refused anyhow."""
    size = 0
    for folder in folders:
        for path in folder.rglob("*"):
            with suppress(OSError):
                size += min(path.lstat().st_size, GRAPH_LIMIT)
    return MEMORY + MEMORY_A_BYTE * size
