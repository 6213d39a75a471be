"""Structured logs: a line of JSON for each record, with the id of the request that it is about."""

import json
import logging
from datetime import UTC, datetime
from typing import Any

from server.telemetry import request_id

_PLAIN_RECORD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}


class JsonFormatter(logging.Formatter):
    """One line of JSON a record: time, level, logger, message, pid, request_id if there is one, extra fields."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "pid": record.process,
        }
        if (current := request_id.get()) is not None:
            entry["request_id"] = current
        entry.update((name, value) for name, value in vars(record).items() if name not in _PLAIN_RECORD)
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


def logging_config(level: str) -> dict[str, Any]:
    """For `logging.config.dictConfig`: everything to stderr as JSON lines.

    What gunicorn and uvicorn say below a warning is dropped unless `level` is debug, and there is no access log: the
    metrics count requests.
    """
    server_level = level.upper() if level in ("debug", "error", "critical") else "WARNING"
    server_logger = {"level": server_level, "handlers": ["stderr"], "propagate": False}
    silent = {"handlers": [], "propagate": False}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": JsonFormatter}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "stream": "ext://sys.stderr", "formatter": "json"}},
        "root": {"level": level.upper(), "handlers": ["stderr"]},
        "loggers": {
            "gunicorn.error": server_logger,
            "gunicorn.access": silent,
            "uvicorn.error": server_logger,
            "uvicorn.access": silent,
        },
    }
