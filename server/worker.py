"""A process that serves: uvicorn under gunicorn's supervision.

`server.telemetry` and what imports it may not be imported here: see `server.workers`.
"""

import gc
import logging
import os
import signal
import ssl
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from gunicorn.arbiter import Arbiter
from uvicorn_worker import UvicornWorker

from server.accepting import Shares, SpreadingServer
from server.errors import InvalidKeys, InvalidRepository

NOTIFY_SECONDS = 2
"""How often a worker stirs, and looks whether it still has a supervisor."""
RETRY_SECONDS = 10
"""How long a worker waits, that replaces one which has died and cannot load the repository, before the next tries."""
GARBAGE = 10_000
"""Objects between two collections of garbage. Requests leave hardly any that counting references does not free."""

logger = logging.getLogger(__name__)


class Worker(UvicornWorker):  # type: ignore[misc]
    """A process that serves."""

    CONFIG_KWARGS = {  # noqa: RUF012
        "loop": "uvloop",
        "http": "server.protocol:FastLane",  # by name: it must not be imported yet
        "ws": "none",
        "lifespan": "on",
        "access_log": False,
        "server_header": False,
        "ssl_version": ssl.PROTOCOL_TLS_SERVER,
        "timeout_notify": NOTIFY_SECONDS,
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
        shares = Shares(shares_file(self.cfg.worker_tmp_dir))
        shares.join(self.age)
        self._install_sigquit_handler()
        server = SpreadingServer(self.config, shares)
        await server.serve(sockets=[listener.sock for listener in self.sockets])
        if not server.started:  # of several it may have been left behind
            sys.exit(os.EX_TEMPFAIL if self._is_replacing() else Arbiter.WORKER_BOOT_ERROR)

    def load_wsgi(self) -> None:
        """Build the application here, after the fork, which sessions of ONNX Runtime do not survive."""
        try:
            super().load_wsgi()
            _leave_to_stand()
            # Nothing drains in a loop that is blocked.
            self.wsgi.state.engine.on_block = lambda: os._exit(os.EX_SOFTWARE)
            _mark(self.cfg.worker_tmp_dir, "loaded")
        except (InvalidRepository, InvalidKeys) as exc:
            self._give_up(exc)

    def _give_up(self, exc: InvalidRepository | InvalidKeys) -> NoReturn:
        if self._is_replacing():
            # What it had served by has been changed on disk. The other workers have it in memory, and go on.
            logger.error("a worker could not be replaced, the next tries in %d seconds: %s", RETRY_SECONDS, exc)
            time.sleep(RETRY_SECONDS)  # a stop ends it, as `init_signals` has it
            sys.exit(os.EX_TEMPFAIL)
        if _mark(self.cfg.worker_tmp_dir, "failed"):  # the others would say the same
            logger.critical(str(exc))
        sys.exit(Arbiter.APP_LOAD_ERROR)

    def _is_replacing(self) -> bool:
        """Whether there have been workers that could serve."""
        return (Path(self.cfg.worker_tmp_dir) / "loaded").exists()

    def _has_lost_a_thread(self) -> bool:
        return bool(self.wsgi.state.engine.stuck)

    async def callback_notify(self) -> None:
        await super().callback_notify()
        if self._has_lost_a_thread():
            logger.error("a thread is lost, so this worker ends and another takes its place")
            signal.raise_signal(signal.SIGTERM)
        if self.wsgi.state.control is not None and self.wsgi.state.control.lost:
            signal.raise_signal(signal.SIGTERM)
        if os.getppid() != self.ppid:
            logger.error("the supervisor is gone")
            signal.raise_signal(signal.SIGTERM)


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


def _mark(folder: str, what: str) -> bool:
    """Leave a mark for all the workers that share this folder. Returns whether this is the first."""
    try:
        (Path(folder) / what).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def shares_file(folder: str) -> Path:
    return Path(folder) / "connections"
