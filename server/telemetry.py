"""Metrics, structured logs and request ids: plain functions that the engine and the transports call.

Metrics are kept a process; `exposition` sums them over all workers where `PROMETHEUS_MULTIPROC_DIR` says where they
share them, which must be set before this module is imported. What is counted is seen by other processes once it is
flushed.
"""

import json
import logging
import os
import random
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, Literal

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from server.tally import Durations, Tally

REGISTRY = CollectorRegistry()
LATENCY_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
"""Seconds."""

_REQUESTS = Counter(
    "committee_http_requests_total", "HTTP requests answered", ["route", "method", "status"], registry=REGISTRY
)
_LATENCY = Durations(
    "committee_http_request_duration_seconds",
    "From the headers of a request to the last byte of its answer",
    ["route"],
    bounds=LATENCY_BOUNDS,
    registry=REGISTRY,
)
_CALLS = Counter("committee_grpc_requests_total", "Calls over gRPC answered", ["method", "status"], registry=REGISTRY)
_CALL_LATENCY = Durations(
    "committee_grpc_request_duration_seconds",
    "From the whole message of a call to its answer",
    ["method"],
    bounds=LATENCY_BOUNDS,
    registry=REGISTRY,
)
_STAGES_OF_REQUESTS = Durations(
    "committee_stage_duration_seconds",
    "What requests spend their time on: receive, decode, queue, members, fuse, encode; members and fuse once a batch",
    ["stage"],
    bounds=(1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
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
_READY = Gauge(
    "committee_model_ready",
    "1 for a version that is loaded, in all workers; 0 for one that was",
    ["ensemble", "version"],
    registry=REGISTRY,
    multiprocess_mode="livemin",
)
_GENERATION = Gauge(
    "committee_generation",
    "The generation of what is served; 0 without model control",
    registry=REGISTRY,
    multiprocess_mode="livemostrecent",
)
_CHANGES = Counter(
    "committee_model_changes_total",
    "Loads and unloads, asked for or found by polling, by what came of them",
    ["action", "outcome"],
    registry=REGISTRY,
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

_tally = Tally()
_count = _tally.count

Part = Literal["receive", "decode", "queue", "members", "fuse", "encode"]
"""Of the way of a request."""


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
    _count(_PREDICTIONS, ensemble, version, strategy, by=requests)
    _count(_ROWS, ensemble, version, strategy, by=rows)
    if degraded:
        _count(_DEGRADED, ensemble, version)
    if abstained:
        _count(_ABSTAINED, ensemble, version, by=abstained)
    for stage, count in enumerate(by_stage, start=1):
        _count(_STAGES, ensemble, version, stage, by=count)
    for member, count in disagreements.items():
        _count(_DISAGREEMENTS, ensemble, version, member, by=count)


def count_members(ensemble: str, version: int, outcomes: Mapping[str, str], requests: int = 1) -> None:
    """Requests to some members: by member, `answered`, or why it did not."""
    for member, outcome in outcomes.items():
        _count(_MEMBERS, ensemble, version, member, outcome, by=requests)


def mark_circuit(ensemble: str, version: int, member: str, *, is_open: bool) -> None:
    _CIRCUITS.labels(ensemble, version, member).set(is_open)


def count_request(*, route: str, method: str, status: int, seconds: float) -> None:
    """One HTTP request; `route` is a template, never a path as it came."""
    _count(_REQUESTS, route, method if method in METHODS else "OTHER", status)
    _LATENCY.observe((route,), seconds)


def count_call(*, method: str, status: str, seconds: float) -> None:
    """One call over gRPC, of one of the methods that there are; `status` is the name of its status code."""
    _count(_CALLS, method, status)
    _CALL_LATENCY.observe((method,), seconds)


def observe_part(part: Part, seconds: float, times: int = 1) -> None:
    """How long a part of the way has taken one request or batch, or each of so many together."""
    _STAGES_OF_REQUESTS.observe((part,), seconds, times)


def mark_ready(ensemble: str, version: int, *, is_ready: bool) -> None:
    _READY.labels(ensemble, version).set(is_ready)


def mark_generation(number: int) -> None:
    _GENERATION.set(number)


def count_change(action: str, outcome: str) -> None:
    """A `load`, an `unload` or a `poll`: it is `done`, `unchanged`, `refused`, in `conflict` or has `failed`."""
    _CHANGES.labels(action, outcome).inc()


def count_error(code: str) -> None:
    _count(_ERRORS, code)


def count_build() -> None:
    """Publish the version that runs."""
    _BUILD.labels(version("committee")).set(1)


def flush() -> None:
    """Write what has been counted where other processes, and `REGISTRY`, see it."""
    _tally.flush()
    _LATENCY.flush()
    _CALL_LATENCY.flush()
    _STAGES_OF_REQUESTS.flush()


def exposition() -> tuple[bytes, str]:
    """All metrics that are flushed, in Prometheus' text format, over all workers, and its media type."""
    return generate_latest(_over_all_workers()), CONTENT_TYPE_LATEST


@dataclass(slots=True)
class Asked:
    """How often an ensemble, or a member of one, has been asked, and how many rows it has answered."""

    answered: int = 0
    failed: int = 0
    """Of members only: an ensemble's answer fails for reasons that are counted by their code."""
    rows: int = 0
    """Of ensembles only."""


def asked() -> dict[tuple[str, ...], Asked]:
    """By ensemble and version, and by ensemble, version and member: what is flushed, over all workers."""
    found: dict[tuple[str, ...], Asked] = defaultdict(Asked)
    for metric in _over_all_workers().collect():
        for sample in metric.samples:
            labels, count = sample.labels, int(sample.value)
            if sample.name == "committee_predictions_total":
                found[labels["ensemble"], labels["version"]].answered += count
            elif sample.name == "committee_rows_total":
                found[labels["ensemble"], labels["version"]].rows += count
            elif sample.name == "committee_member_requests_total":
                of_member = found[labels["ensemble"], labels["version"], labels["member"]]
                if labels["outcome"] == "answered":
                    of_member.answered += count
                else:
                    of_member.failed += count
    return found


def _over_all_workers() -> CollectorRegistry:
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return REGISTRY
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return registry


def choose_request_id(given: str | None) -> str:
    """The caller's id if it is 1 to 128 letters, digits, dots, dashes and underscores, else a new one."""
    # Python seeds its generator anew in every fork. An id has to be unique, and need not be hard to guess.
    return given if given is not None and _REQUEST_ID.fullmatch(given) else f"{random.getrandbits(128):032x}"


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
