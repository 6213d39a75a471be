"""Model control as one worker has it: it follows what all serve, takes changes, and polls if that is how they come."""

import asyncio
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from weakref import finalize

from server.changing import Changer, poll_forever
from server.errors import InvalidInput
from server.following import Follower
from server.generations import Board
from server.repository import Versions, parse_versions


class Control:
    """From `start` to `close`.

    `poll_seconds` is how often it looks whether the repository has changed; None: changes are asked for.
    """

    def __init__(self, follower: Follower, changer: Changer, *, poll_seconds: float | None) -> None:
        self.changer = changer
        self._follower, self._poll_seconds = follower, poll_seconds
        self._polling: asyncio.Task[None] | None = None

    @property
    def polls(self) -> bool:
        return self._poll_seconds is not None

    def to_ask(self) -> Changer:
        """For changes that somebody asks for. Raises InvalidInput where the repository alone says what is served."""
        if self.polls:
            raise InvalidInput("model control is poll: the repository itself says what is served")
        return self.changer

    @property
    def lost(self) -> bool:
        """Whether the process should be replaced, as it cannot serve what all others serve."""
        return self._follower.lost

    async def start(self) -> None:
        """Returns when what is served is what all serve. Raises InvalidRepository, MemberFailed."""
        await self._follower.start()
        if self._poll_seconds is not None:
            self._polling = asyncio.create_task(poll_forever(self.changer, self._poll_seconds))

    async def close(self) -> None:
        if self._polling is not None:
            self._polling.cancel()
            with suppress(asyncio.CancelledError):
                await self._polling
        await self._follower.close()


def read_versions(text: str, where: str) -> Versions:
    """What a load asks for. Raises InvalidInput."""
    try:
        return parse_versions(text)
    except ValueError as exc:
        raise InvalidInput(f"{where}: {exc}; got {text[:64]!r}") from exc


def open_board(shared: Path | None, owner: object) -> Board:
    """In the folder that the workers share; None: in one that goes with its owner, who is alone."""
    if shared is None:
        shared = Path(tempfile.mkdtemp(prefix="committee-"))
        finalize(owner, shutil.rmtree, shared, ignore_errors=True)
    return Board(shared)
