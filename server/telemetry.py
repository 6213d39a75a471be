"""Metrics and request ids: plain functions that the engine and the transports call.

Metrics are kept a process; `exposition` sums them over all workers where `PROMETHEUS_MULTIPROC_DIR` says where they
share them, which must be set before this module is imported. What is counted is seen by other processes once it is
flushed.
"""

import os
import random
import re
import time
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from importlib.metadata import version
from typing import Literal

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Metric, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from server import tracing
from server.statistics import Statistics, exposed, gather
from server.tally import Distribution, Tally

REGISTRY = CollectorRegistry()
LATENCY_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
"""Seconds."""
STAGE_BOUNDS = (
    *(1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3),
    *(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
"""Seconds."""
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
"""Rows; no batch has more."""

_REQUESTS = Counter(
    "committee_http_requests_total", "HTTP requests answered", ["route", "method", "status"], registry=REGISTRY
)
_LATENCY = Distribution(
    "committee_http_request_duration_seconds",
    "From the headers of a request to the last byte of its answer",
    ["route"],
    bounds=LATENCY_BOUNDS,
    registry=REGISTRY,
)
_CALLS = Counter("committee_grpc_requests_total", "Calls over gRPC answered", ["method", "status"], registry=REGISTRY)
_CALL_LATENCY = Distribution(
    "committee_grpc_request_duration_seconds",
    "From the whole message of a call to its answer",
    ["method"],
    bounds=LATENCY_BOUNDS,
    registry=REGISTRY,
)
_STAGES_OF_REQUESTS = Distribution(
    "committee_stage_duration_seconds",
    "What requests spend their time on: receive, decode, queue, members, fuse, encode; members and fuse once a batch",
    ["ensemble", "version", "stage"],
    bounds=STAGE_BOUNDS,
    registry=REGISTRY,
)
_INFERENCES = Distribution(
    "committee_inference_duration_seconds",
    "From when an ensemble is asked, the request decoded, to its answer, not yet encoded",
    ["ensemble", "version", "outcome"],
    bounds=LATENCY_BOUNDS,
    registry=REGISTRY,
)
_BATCH_ROWS = Distribution(
    "committee_batch_rows", "Rows in a batch", ["ensemble", "version"], bounds=SIZES, registry=REGISTRY
)
_BATCH_SECONDS = Counter(
    "committee_batch_seconds_total",
    "What the members took for batches, by their rows, rounded up to a bound of committee_batch_rows",
    ["ensemble", "version", "rows"],
    registry=REGISTRY,
)
_MEMBER_CALLS = Distribution(
    "committee_member_call_duration_seconds",
    "Calls of a member alone; of several that run together nobody can tell whose time it is",
    ["ensemble", "version", "member"],
    bounds=STAGE_BOUNDS,
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
_MEMBER_ROWS = Counter(
    "committee_member_rows_total",
    "Rows that a member has answered",
    ["ensemble", "version", "member"],
    registry=REGISTRY,
)
_MEMBER_BATCHES = Counter(
    "committee_member_batches_total",
    "Batches that have asked a member",
    ["ensemble", "version", "member"],
    registry=REGISTRY,
)
_LAST = Gauge(
    "committee_last_inference_timestamp_seconds",
    "When something was last answered, by the clock; of an ensemble itself, without a member",
    ["ensemble", "version", "member"],
    registry=REGISTRY,
    multiprocess_mode="max",
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

Of = tuple[str, int] | tuple[str, str]
"""An ensemble's name and version."""
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""Any other method is counted as OTHER: clients must not make labels."""

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""Of the request that the current task answers."""

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


@dataclass(slots=True)
class _Fates:
    """What became of requests to the same members."""

    names: Sequence[str]
    """Of all members of the ensemble."""
    requests: int = 0
    rows: int = 0


@dataclass(slots=True)
class _Batches:
    """Of the same members, and of about as many rows."""

    names: Sequence[str]
    """Of all members of the ensemble."""
    count: int = 0
    rows: int = 0
    seconds: float = 0.0


# Counted once a batch or request, whatever the number of members, and spread over them when it is written.
_fates: dict[tuple[Of, tuple[int, ...], tuple[tuple[int, str], ...]], _Fates] = {}
_batches: dict[tuple[Of, tuple[int, ...], int], _Batches] = {}
_tally = Tally()
_count = _tally.count

Part = Literal["receive", "decode", "queue", "members", "fuse", "encode"]
"""Of the way of a request."""
NOBODY: Of = ("", "")
"""Before it is known which ensemble is asked. To Prometheus an empty label is none."""


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


def count_members(
    of: Of, names: Sequence[str], answered: tuple[int, ...], missing: Mapping[int, str], *, rows: int, requests: int = 1
) -> None:
    """Requests, of `rows` rows together, to members that have answered, and to those that have not, by why."""
    key = of, answered, tuple(missing.items()) if missing else ()
    found = _fates.get(key)
    if found is None:
        found = _fates[key] = _Fates(names)
    found.requests += requests
    found.rows += rows


def count_batch(of: Of, names: Sequence[str], members: tuple[int, ...], rows: int, seconds: float) -> None:
    """A batch that these members, or those of them that could, have answered."""
    key = of, members, min(bisect_left(SIZES, rows), len(SIZES) - 1)
    found = _batches.get(key)
    if found is None:
        found = _batches[key] = _Batches(names)
    found.count += 1
    found.rows += rows
    found.seconds += seconds
    _STAGES_OF_REQUESTS.observe((of, "members"), seconds)


def observe_member(of: Of, member: str, seconds: float) -> None:
    """A call of a member alone."""
    _MEMBER_CALLS.observe((of, member), seconds)


def observe_inference(of: Of, outcome: str, seconds: float) -> None:
    """A request to an ensemble: it was `answered`, or the code of why not."""
    _INFERENCES.observe((of, outcome), seconds)


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


def observe_part(part: Part, seconds: float, of: Of = NOBODY, times: int = 1) -> None:
    """How long a part of the way has taken one request or batch, or each of so many together."""
    _STAGES_OF_REQUESTS.observe((of, part), seconds, times)
    if part in ("decode", "encode") and (trace := tracing.current()) is not None:
        tracing.part(part, time.perf_counter() - seconds, trace)


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
    _spread()
    now = time.time()
    for labels in {(*labels[:2], "") for labels in _tally.waiting(_PREDICTIONS)} | _tally.waiting(_MEMBER_ROWS):
        _LAST.labels(*labels).set(now)
    _tally.flush()
    for distribution in (_LATENCY, _CALL_LATENCY, _STAGES_OF_REQUESTS, _INFERENCES, _BATCH_ROWS, _MEMBER_CALLS):
        distribution.flush()


def _spread() -> None:
    """What was counted of several members at once, by member."""
    for (of, answered, missing), fates in _fates.items():
        for member in answered:
            _count(_MEMBERS, *of, fates.names[member], "answered", by=fates.requests)
            _count(_MEMBER_ROWS, *of, fates.names[member], by=fates.rows)
        for member, reason in missing:
            _count(_MEMBERS, *of, fates.names[member], reason, by=fates.requests)
    for (of, members, size), batches in _batches.items():
        _BATCH_ROWS.observe((of,), SIZES[size], batches.count, total=batches.rows)
        _count(_BATCH_SECONDS, *of, SIZES[size], by=batches.seconds)
        for member in members:
            _count(_MEMBER_BATCHES, *of, batches.names[member], by=batches.count)
    _fates.clear()
    _batches.clear()


def exposition() -> tuple[bytes, str]:
    """All metrics that are flushed, in Prometheus' text format, over all workers, and its media type."""
    return generate_latest(_Exposed()), CONTENT_TYPE_LATEST


def statistics() -> Mapping[tuple[str, ...], Statistics]:
    """By ensemble and version, and by ensemble, version and member: what is flushed, over all workers."""
    return gather(_over_all_workers().collect())


class _Exposed(Collector):
    """What is counted, and behind it the same by the names that Triton has."""

    def collect(self) -> Iterable[Metric]:
        metrics = list(_over_all_workers().collect())
        return [*metrics, *exposed(gather(metrics))]


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
