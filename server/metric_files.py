"""The files in memory by which the processes share their metrics: prometheus_client maps them, and lets them grow.

There is room in them before it is needed (`server.mapped` says why).
What a process has counted is added to an heir's when it is gone: its own files would stay, and each scrape read them.

prometheus_client asks when it is imported where the files are, so it may not be imported here at the top.
"""

import fcntl
import operator
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from server.mapped import allocate

SIZES = {
    "counter": 1 << 16,
    "histogram": 1 << 18,
    "gauge_max": 1 << 14,
    "gauge_livesum": 1 << 14,
    "gauge_livemax": 1 << 14,
    "gauge_livemin": 1 << 14,
    "gauge_livemostrecent": 1 << 14,
}
"""By kind, the bytes of a process's file at first."""
HEIR = 0
"""In place of a process id: of all that are gone."""
_ADDED: dict[str, Callable[[float, float], float]] = {
    "counter": operator.add,
    "histogram": operator.add,
    "gauge_max": max,
}
"""How values of one that is gone are added to its heir's. What other gauges say goes with the process."""


def reserve(folder: Path) -> None:
    """Make room for this process, before it counts. Raises OSError if there is none."""
    for kind, size in SIZES.items():
        path = _path(folder, kind, os.getpid())
        part = path.with_suffix(".part")
        try:
            _allocate(part, size)
            part.replace(path)  # whoever reads it meanwhile finds all of it
        finally:
            part.unlink(missing_ok=True)


def make_room(folder: Path) -> None:
    """For twice as much as this process has counted, every now and then. Raises OSError if there is none."""
    for kind in SIZES:
        path = _path(folder, kind, os.getpid())
        with suppress(FileNotFoundError):
            size = path.stat().st_size
            if 2 * _used(path) > size:
                _allocate(path, 2 * size)


@contextmanager
def reading(folder: Path) -> Iterator[None]:
    """No heir comes into anything meanwhile: nothing would be read twice, or not at all."""
    with _lock(folder, fcntl.LOCK_SH):
        yield


def inherit(folder: Path, pid: int) -> bool:
    """Add what a process that is gone has counted to its heir's. Returns whether it could: else it stays as it is."""
    from prometheus_client.multiprocess import mark_process_dead

    mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]
    try:
        with _lock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB):
            for kind in _ADDED:
                if _path(folder, kind, pid).exists():
                    _add(folder, kind, pid)
    except OSError:  # somebody reads, or there is no room
        return False
    return True


def _add(folder: Path, kind: str, pid: int) -> None:
    from prometheus_client.mmap_dict import MmapedDict

    gone, heir = _path(folder, kind, pid), _path(folder, kind, HEIR)
    sources = [path for path in (heir, gone) if path.exists()]
    values: dict[str, tuple[float, float]] = {}
    for source in sources:
        for key, value, timestamp, _ in MmapedDict.read_all_values_from_file(source):  # type: ignore[no-untyped-call]
            if key in values:
                value, timestamp = _ADDED[kind](values[key][0], value), max(values[key][1], timestamp)
            values[key] = value, timestamp
    part = heir.with_suffix(".part")
    try:
        _allocate(part, max(SIZES[kind], sum(map(_used, sources))))
        written = MmapedDict(str(part))  # type: ignore[no-untyped-call]
        for key, (value, timestamp) in values.items():
            written.write_value(key, value, timestamp)  # type: ignore[no-untyped-call]
        written.close()  # type: ignore[no-untyped-call]
        part.replace(heir)
    finally:
        part.unlink(missing_ok=True)
    gone.unlink()


def _path(folder: Path, kind: str, pid: int) -> Path:
    return folder / f"{kind}_{pid}.db"


def _used(path: Path) -> int:
    """Bytes of a file that hold something."""
    with path.open("rb") as file:
        return int(struct.unpack("i", file.read(4))[0])


def _allocate(path: Path, size: int) -> None:
    """So many bytes at least. Raises OSError."""
    with path.open("ab") as file:
        allocate(file.fileno(), size)


@contextmanager
def _lock(folder: Path, how: int) -> Iterator[None]:
    with (folder / "metrics.lock").open("ab") as file:
        fcntl.flock(file, how)
        yield
