"""A process that serves: uvicorn under gunicorn's supervision.

`server.telemetry` and what imports it may not be imported here: see `server.workers`.
"""

import asyncio
import ctypes
import faulthandler
import gc
import logging
import os
import signal
import ssl
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from gunicorn.arbiter import Arbiter
from uvicorn_worker import UvicornWorker

from server import metric_files
from server.accepting import SpreadingServer
from server.errors import InvalidKeys, InvalidRepository
from server.ports import SHUT_SECONDS, shut
from server.shares import Shares

LOOK_SECONDS = 1.0
"""How often a worker looks whether it still has a supervisor, and is whole itself."""
RETRY_SECONDS = 10
"""How long it takes until the next tries, after a worker that replaces another could not load the repository."""
SHOW_WHERE = signal.SIGUSR2
"""Has a worker write where its main thread is to its temporary file, whatever that thread is doing."""
MMAP_THRESHOLD, LARGE = -3, 1 << 20
"""By glibc's name for it: bytes of a block that is given back to the system as soon as it is freed."""
GARBAGE = 10_000
"""Objects between two collections of garbage. Requests leave hardly any that counting references does not free."""

logger = logging.getLogger(__name__)


class Worker(UvicornWorker):  # type: ignore[misc]
    """A process that serves."""

    place = 0
    """Among the workers, which no other that lives has; the supervisor says it before the fork."""

    CONFIG_KWARGS = {  # noqa: RUF012
        "loop": "uvloop",
        "http": "server.protocol:FastLane",  # by name: it must not be imported yet
        "ws": "none",
        "lifespan": "on",
        "access_log": False,
        "server_header": False,
        "ssl_version": ssl.PROTOCOL_TLS_SERVER,
        "callback_notify": None,  # it goes by the clock on the wall
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not logger.isEnabledFor(logging.DEBUG):
            # Their warnings are about what clients send, who must not fill the log.
            for name in ("uvicorn.error", "python_multipart"):
                logging.getLogger(name).setLevel(logging.ERROR)

    def init_signals(self) -> None:
        super().init_signals()
        # Nothing is in flight yet; an exception, raised inside the loading of a C library, could become any other.
        on_stop(lambda *_: os._exit(0))
        faulthandler.register(SHOW_WHERE, file=self.tmp.fileno(), all_threads=False)

    def run(self) -> None:
        # Uvicorn takes the signals over, and passes them on once it has drained.
        on_stop(exit_at_once)
        try:
            super().run()
        finally:
            if self._has_lost_a_thread():
                os._exit(0)  # which nothing else would end

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGQUIT, which gunicorn sends on Ctrl-C: drain as on SIGTERM."""
        signal.raise_signal(signal.SIGTERM)

    async def _serve(self) -> None:
        self.config.app = self.wsgi
        shares = Shares(shares_file(self._shared))
        self._install_sigquit_handler()
        server = SpreadingServer(self.config, shares, self.place)
        looking = asyncio.create_task(self._look_for_ever())
        await server.serve(sockets=[listener.sock for listener in self.sockets])
        looking.cancel()
        if not server.started:  # of several it may have been left behind
            sys.exit(os.EX_TEMPFAIL if self._is_replacing() else Arbiter.WORKER_BOOT_ERROR)

    def load_wsgi(self) -> None:
        """Build the application here, after the fork, which sessions of ONNX Runtime do not survive."""
        try:
            metric_files.reserve(self._shared)
            _give_back_what_is_large()
            super().load_wsgi()
            _leave_to_stand()
            _mark(self._shared, "loaded")
        except Exception as exc:
            self._give_up(exc)

    def _give_up(self, exc: Exception) -> NoReturn:
        foreseen = isinstance(exc, (InvalidRepository, InvalidKeys, OSError))
        if self._is_replacing():
            # What it had served by has been changed on disk. The other workers have it in memory, and go on.
            logger.error(
                "a worker could not be replaced, the next tries in %d seconds: %s",
                RETRY_SECONDS,
                exc if foreseen else repr(exc),
                exc_info=not foreseen,
            )
            sys.exit(os.EX_TEMPFAIL)
        if not foreseen:
            raise exc
        if _mark(self._shared, "failed"):  # the others would say the same
            logger.critical(str(exc))
        sys.exit(Arbiter.APP_LOAD_ERROR)

    @property
    def _shared(self) -> Path:
        return Path(self.cfg.worker_tmp_dir)

    def _is_replacing(self) -> bool:
        """Whether there have been workers that could serve."""
        return (self._shared / "loaded").exists()

    def _has_lost_a_thread(self) -> bool:
        return bool(self.wsgi.state.engine.stuck)

    async def _look_for_ever(self) -> None:
        """Ends it, as a stop would, where another should take its place."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            with suppress(OSError):  # there is no more
                metric_files.make_room(self._shared)
            if self._has_lost_a_thread():
                logger.error("a thread is lost, so this worker ends and another takes its place")
            elif self.wsgi.state.control is None or not self.wsgi.state.control.lost:
                if os.getppid() == self.ppid:
                    continue
                logger.error("the supervisor is gone")
                for listener in self.sockets:
                    shut(listener.sock)
                await asyncio.sleep(SHUT_SECONDS)
            signal.raise_signal(signal.SIGTERM)
            return


def _give_back_what_is_large() -> None:
    """Tell glibc to keep nothing large for later.

    It would, once a large block has been freed: a worker that has read a few large bodies would hold half as much again
    as before, for good.
    """
    with suppress(AttributeError, OSError):  # of another C library
        ctypes.CDLL(None).mallopt(MMAP_THRESHOLD, LARGE)


def _leave_to_stand() -> None:
    """What is loaded stays: the collector of garbage need not look at it again and again, with everybody waiting."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE)


def on_stop(handler: Callable[[int, FrameType | None], object]) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, handler)


def exit_at_once(sig: int, frame: FrameType | None) -> NoReturn:
    sys.exit(0)


def _mark(folder: Path, what: str) -> bool:
    """Leave a mark for all the workers that share this folder. Returns whether this is the first."""
    try:
        (folder / what).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def shares_file(folder: Path) -> Path:
    return folder / "connections"
