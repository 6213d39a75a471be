"""The processes: gunicorn supervises them, one a core, and each runs the application in uvicorn.

`server.telemetry` and what imports it may be imported only inside `serve`: prometheus_client asks when it is imported
where the processes share their metrics, and `serve` has to say so first.
"""

import argparse
import logging
import logging.config
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from gunicorn.app.base import BaseApplication
from gunicorn.errors import HaltServer

from server import metric_files, trial
from server.errors import InvalidKeys, InvalidRepository
from server.keys import Keys
from server.ports import check_tls, listen, reserve
from server.reloading import check_repository
from server.settings import PROGRAM, Settings, read_settings
from server.settings import add_arguments as add_arguments  # with `run`, what `server.cli` wants of a command
from server.shares import Shares
from server.supervisor import Supervisor
from server.worker import Worker, exit_at_once, shares_file

logger = logging.getLogger(__name__)


def run(options: argparse.Namespace) -> int:
    """Serve as the options and the environment say. Returns the exit code: 2, after one line, if they are wrong."""
    try:
        settings = read_settings(options)
    except ValueError as exc:
        print(f"{PROGRAM}: {exc}", file=sys.stderr)  # noqa: T201
        return 2
    return serve(settings)


def serve(settings: Settings) -> int:
    """Serve until told to stop. Returns the exit code: 0, or another after one line that says why."""
    signal.signal(signal.SIGTERM, exit_at_once)  # until the supervisor takes it over
    try:
        folder = _shared_folder()
    except OSError as exc:
        print(f"{PROGRAM}: no folder for temporary files: {exc}", file=sys.stderr)  # noqa: T201
        return 1
    with _metrics_in(folder):
        from server.logs import logging_config

        logging.config.dictConfig(logging_config(settings.log_level))
        try:
            check_repository(settings)
            _try_graphs(settings)
            if settings.keys_file is not None:
                Keys(settings.keys_file)
            check_tls(settings)
            listeners = listen(settings)
            rpc_listener = reserve(settings)
        except (InvalidRepository, InvalidKeys, OSError) as exc:
            logger.critical(str(exc))
            return 1
        if settings.admin_port is not None:  # 0 was any
            settings = settings.model_copy(update={"admin_port": listeners[-1].getsockname()[1]})
        with rpc_listener or nullcontext():
            return _supervise(settings, listeners, rpc_listener, logging_config(settings.log_level), folder)


def _try_graphs(settings: Settings) -> None:
    """Load the graphs where they can do no harm. Raises InvalidRepository."""
    # Imported before the forks, the libraries stand in memory once.
    from prometheus_client.multiprocess import mark_process_dead

    import server.app  # noqa: F401

    mark_process_dead(os.getpid())  # type: ignore[no-untyped-call]  # its gauges are of no worker
    if fault := trial.find_fault(settings.models, settings.versions, seconds=settings.trial_seconds):
        raise InvalidRepository(fault)


class _Application(BaseApplication):  # type: ignore[misc]
    def __init__(self, settings: Settings, grpc_address: str | None, options: dict[str, Any]) -> None:
        self.settings, self.grpc_address = settings, grpc_address
        self.options = options
        super().__init__()

    def load_config(self) -> None:
        for name, value in self.options.items():
            self.cfg.set(name, value)

    def load(self) -> FastAPI:
        from server.app import create_app

        return create_app(self.settings, Path(self.options["worker_tmp_dir"]), grpc_address=self.grpc_address)


def _supervise(
    settings: Settings,
    listeners: Sequence[socket.socket],
    rpc_listener: socket.socket | None,
    log_config: dict[str, Any],
    folder: str,
) -> int:
    control: dict[str, Any] = {}
    if settings.model_control != "none":
        control = {"model_control": settings.model_control, "admin_port": settings.admin_port}
    logger.info(
        "listening on %s:%d",
        *listeners[0].getsockname()[:2],
        extra={"workers": settings.workers, "models": settings.models, **control},
    )
    grpc_address = None
    if rpc_listener is not None:
        host, port = rpc_listener.getsockname()[:2]
        grpc_address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        logger.info("gRPC on %s", grpc_address)
    options = {
        "bind": [f"fd://{listener.detach()}" for listener in listeners],
        "workers": settings.workers,
        "worker_class": Worker,
        "worker_tmp_dir": folder,
        "keepalive": settings.keep_alive,
        "control_socket_disable": True,
        "logconfig_dict": log_config,
        "pre_fork": Supervisor.seat,
        "proc_name": PROGRAM,
    }
    if settings.tls_cert is not None:
        options |= {"certfile": str(settings.tls_cert), "keyfile": str(settings.tls_key)}
    logging.getLogger("gunicorn.error").addFilter(_is_news)
    try:
        Supervisor(_Application(settings, grpc_address, options)).run()
    except HaltServer as exc:  # a second worker has failed to start while the first one's failure stops the server
        return int(exc.exit_status)
    except SystemExit as exc:
        return int(exc.code or 0)
    return 0


def _is_news(record: logging.LogRecord) -> bool:
    """Of a worker that cannot load the repository, and has said why, gunicorn has two more lines to tell."""
    return record.levelno < logging.ERROR or record.msg not in ("Shutting down: %s", "Reason: %s")


def _shared_folder() -> str:
    """A fresh private folder in memory if there is one, else in the usual place, with room for all. Raises OSError."""
    memory = "/dev/shm"
    folder = tempfile.mkdtemp(prefix="committee-", dir=memory if os.access(memory, os.W_OK | os.X_OK) else None)
    try:
        metric_files.reserve(Path(folder))
        Shares(shares_file(Path(folder)))
    except OSError:
        shutil.rmtree(folder)
        raise
    return folder


@contextmanager
def _metrics_in(folder: str) -> Iterator[None]:
    """Let the processes share their metrics in this folder; the process that began removes it."""
    owner = os.getpid()
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
    try:
        yield
    finally:
        if os.getpid() == owner:  # workers are forks, and come by here too
            shutil.rmtree(folder, ignore_errors=True)
