"""Metrics, structured logs and request ids: plain functions that the engine and the transports call.

Metrics are kept a process; `exposition` sums them over all workers where `PROMETHEUS_MULTIPROC_DIR` says where they
share them, which must be set before this module is imported.
"""

import json
import logging
import os
import re
import uuid
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

REGISTRY = CollectorRegistry()

_REQUESTS = Counter(
    "committee_http_requests_total", "HTTP requests answered", ["route", "method", "status"], registry=REGISTRY
)
_LATENCY = Histogram(
    "committee_http_request_duration_seconds",
    "From the headers of a request to the last byte of its answer",
    ["route"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
    registry=REGISTRY,
)
_ERRORS = Counter("committee_errors_total", "Error answers", ["code"], registry=REGISTRY)
_PREDICTIONS = Counter(
    "committee_predictions_total", "Predict requests answered", ["ensemble", "version", "strategy"], registry=REGISTRY
)
_ROWS = Counter("committee_rows_total", "Rows predicted", ["ensemble", "version", "strategy"], registry=REGISTRY)
_DISAGREEMENTS = Counter(
    "committee_member_disagreements_total",
    "Rows on which a member's best class is not the answer's label",
    ["ensemble", "version", "member"],
    registry=REGISTRY,
)
_DEGRADED = Counter(
    "committee_degraded_predictions_total",
    "Predict requests answered without members that should have taken part",
    ["ensemble", "version"],
    registry=REGISTRY,
)
_MEMBERS = Counter(
    "committee_member_requests_total",
    "Requests that asked a member (a stage of a cascade counts as one), by what came of it: it answered, or why not",
    ["ensemble", "version", "member", "outcome"],
    registry=REGISTRY,
)
_ABSTAINED = Counter(
    "committee_abstained_rows_total",
    "Rows whose confidence was under what the request asked for",
    ["ensemble", "version"],
    registry=REGISTRY,
)
_STAGES = Counter(
    "committee_cascade_rows_total",
    "Rows by the stage that answered them",
    ["ensemble", "version", "stage"],
    registry=REGISTRY,
)
_CIRCUITS = Gauge(
    "committee_open_circuits",
    "Workers in which a member has failed so often that it is left alone for a while",
    ["ensemble", "version", "member"],
    registry=REGISTRY,
    multiprocess_mode="livesum",
)
_BUILD = Gauge(
    "committee_build_info", "1, with Committee's version", ["version"], registry=REGISTRY, multiprocess_mode="max"
)

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""Any other method is counted as OTHER: clients must not make labels."""

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""Of the request that the current task answers."""

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_PLAIN_RECORD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}


@cache
def _of(metric: Any, *labels: object) -> Any:
    """A metric with these labels: to find it there anew takes longer than to count. There are as many as members."""
    return metric.labels(*labels)


def count_prediction(
    *,
    ensemble: str,
    version: int,
    strategy: str,
    rows: int,
    disagreements: Mapping[str, int],
    requests: int = 1,
    degraded: bool = False,
    abstained: int = 0,
    by_stage: Sequence[int] = (),
) -> None:
    """Predict requests of one strategy, of `rows` rows together.

    `disagreements` gives, by member, the rows on which it had another label; `by_stage` the rows that each stage of a
    cascade has answered; `abstained` those that were too doubtful.
    """
    _of(_PREDICTIONS, ensemble, version, strategy).inc(requests)
    _of(_ROWS, ensemble, version, strategy).inc(rows)
    if degraded:
        _of(_DEGRADED, ensemble, version).inc()
    if abstained:
        _of(_ABSTAINED, ensemble, version).inc(abstained)
    for stage, count in enumerate(by_stage, start=1):
        _of(_STAGES, ensemble, version, stage).inc(count)
    for member, count in disagreements.items():
        _of(_DISAGREEMENTS, ensemble, version, member).inc(count)


def count_members(ensemble: str, version: int, outcomes: Mapping[str, str], requests: int = 1) -> None:
    """Requests to some members: by member, `answered`, or why it did not."""
    for member, outcome in outcomes.items():
        _of(_MEMBERS, ensemble, version, member, outcome).inc(requests)


def mark_circuit(ensemble: str, version: int, member: str, *, is_open: bool) -> None:
    _of(_CIRCUITS, ensemble, version, member).set(is_open)


def count_request(*, route: str, method: str, status: int, seconds: float) -> None:
    """One HTTP request; `route` is a template, never a path as it came."""
    _of(_REQUESTS, route, method if method in METHODS else "OTHER", status).inc()
    _of(_LATENCY, route).observe(seconds)


def count_error(code: str) -> None:
    _ERRORS.labels(code).inc()


def count_build() -> None:
    """Publish the version that runs."""
    _BUILD.labels(version("committee")).set(1)


def exposition() -> tuple[bytes, str]:
    """All metrics in Prometheus' text format, over all workers, and its media type."""
    registry = REGISTRY
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry), CONTENT_TYPE_LATEST


def choose_request_id(given: str | None) -> str:
    """The caller's id if it is 1 to 128 letters, digits, dots, dashes and underscores, else a new one."""
    return given if given is not None and _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


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
