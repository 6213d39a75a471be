"""What the workers and their supervisor know of each other: a file that all of them map.

Each worker has a place in it, where it says how many connections it has, and, ten times a second, that it stirs.
"""

import mmap
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from server.mapped import allocate

PLACES = 2048
"""Workers that there is room for: twice as many as there may be, for some go while others come."""
SILENT_SECONDS = 0.5
"""Nobody leaves a connection to a worker that has not stirred for so long."""
_PLACE = struct.Struct("=iid")
_RETIRED = (1 << 31) - 1
"""The number of a worker that accepts no more."""


@dataclass(frozen=True, slots=True)
class Sign:
    """What a worker has said last."""

    beat: float
    """When, by the monotonic clock, which is the same for all processes."""
    retired: bool
    """Whether it accepts no more: it answers what is in flight, and ends."""


class Shares:
    """Raises OSError if there is no room for the file."""

    def __init__(self, path: Path) -> None:
        size = PLACES * _PLACE.size
        with path.open("a+b") as file:
            if file.tell() < size:
                allocate(file.fileno(), size)
            self._memory = mmap.mmap(file.fileno(), size)
        self._own: int | None = None
        self._count = 0

    def join(self, place: int) -> None:
        """As a worker that serves, at this place, which is no other's."""
        self._own, self._count = place, 0
        self.beat()

    def tell(self, count: int) -> None:
        """That this worker has so many connections, unless it accepts no more."""
        if self._count != _RETIRED:
            self._count = count
            self.beat()

    def retire(self) -> None:
        """This worker accepts no more."""
        self.tell(_RETIRED)

    def beat(self) -> None:
        """This worker stirs."""
        if self._own is not None:
            _PLACE.pack_into(self._memory, self._own * _PLACE.size, os.getpid(), self._count, monotonic())

    def sign(self, place: int, pid: int) -> Sign | None:
        """Of the worker of this process id at this place; None if it does not serve yet."""
        owner, count, beat = _PLACE.unpack_from(self._memory, place * _PLACE.size)
        return Sign(beat, count == _RETIRED) if owner == pid else None

    def forget(self, place: int) -> None:
        """A worker that is gone."""
        _PLACE.pack_into(self._memory, place * _PLACE.size, 0, 0, 0.0)

    def of_others(self) -> list[int]:
        """The number of each other worker that accepts and stirs."""
        awake = monotonic() - SILENT_SECONDS
        return [
            count
            for place, (pid, count, beat) in enumerate(_PLACE.iter_unpack(self._memory[: PLACES * _PLACE.size]))
            if pid and beat > awake and count != _RETIRED and place != self._own
        ]
