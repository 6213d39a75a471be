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
from pathlib import Path
from typing import Literal

from prometheus_client import CONTENT_TYPE_LATEST, Metric, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from server import meters, metric_files, tracing
from server.meters import REGISTRY as REGISTRY
from server.statistics import Statistics, exposed, gather
from server.tally import Tally

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
    _count(meters.PREDICTIONS, ensemble, version, strategy, by=requests)
    _count(meters.ROWS, ensemble, version, strategy, by=rows)
    if degraded:
        _count(meters.DEGRADED, ensemble, version)
    if abstained:
        _count(meters.ABSTAINED, ensemble, version, by=abstained)
    for stage, count in enumerate(by_stage, start=1):
        _count(meters.STAGES, ensemble, version, stage, by=count)
    for member, count in disagreements.items():
        _count(meters.DISAGREEMENTS, ensemble, version, member, by=count)


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
    key = of, members, min(bisect_left(meters.SIZES, rows), len(meters.SIZES) - 1)
    found = _batches.get(key)
    if found is None:
        found = _batches[key] = _Batches(names)
    found.count += 1
    found.rows += rows
    found.seconds += seconds
    meters.STAGES_OF_REQUESTS.observe((of, "members"), seconds)


def observe_member(of: Of, member: str, seconds: float) -> None:
    """A call of a member alone."""
    meters.MEMBER_CALLS.observe((of, member), seconds)


def observe_inference(of: Of, outcome: str, seconds: float) -> None:
    """A request to an ensemble: it was `answered`, or the code of why not."""
    meters.INFERENCES.observe((of, outcome), seconds)


def mark_circuit(ensemble: str, version: int, member: str, *, is_open: bool) -> None:
    meters.CIRCUITS.labels(ensemble, version, member).set(is_open)


def count_request(*, route: str, method: str, status: int, seconds: float) -> None:
    """One HTTP request; `route` is a template, never a path as it came."""
    _count(meters.REQUESTS, route, method if method in METHODS else "OTHER", status)
    meters.LATENCY.observe((route,), seconds)


def count_call(*, method: str, status: str, seconds: float) -> None:
    """One call over gRPC, of one of the methods that there are; `status` is the name of its status code."""
    _count(meters.CALLS, method, status)
    meters.CALL_LATENCY.observe((method,), seconds)


def observe_part(part: Part, seconds: float, of: Of = NOBODY, times: int = 1) -> None:
    """How long a part of the way has taken one request or batch, or each of so many together."""
    meters.STAGES_OF_REQUESTS.observe((of, part), seconds, times)
    if part in ("decode", "encode") and (trace := tracing.current()) is not None:
        tracing.part(part, time.perf_counter() - seconds, trace)


def mark_ready(ensemble: str, version: int, *, is_ready: bool) -> None:
    meters.READY.labels(ensemble, version).set(is_ready)


def mark_generation(number: int) -> None:
    """This worker serves it."""
    meters.GENERATION.set(number)
    meters.OLDEST_GENERATION.set(number)


def mark_load(*, can_answer: bool, wait: float, inflight: int, limit: int) -> None:
    """How this worker is: `wait` seconds for a request that comes now, `inflight` bytes of `limit`."""
    meters.CAN_ANSWER.set(can_answer)
    meters.QUEUE_WAIT.set(wait)
    meters.INFLIGHT.set(inflight)
    meters.INFLIGHT_LIMIT.set(limit)


def count_change(action: str, outcome: str) -> None:
    """A `load`, an `unload` or a `poll`: it is `done`, `unchanged`, `refused`, in `conflict` or has `failed`."""
    meters.CHANGES.labels(action, outcome).inc()


def count_replaced(cause: str) -> None:
    """A worker that another takes the place of: it was `silent`, a `slow_load`, or has `died`. The supervisor does."""
    meters.REPLACED.labels(cause).inc()


def count_error(code: str) -> None:
    _count(meters.ERRORS, code)


def count_build() -> None:
    """Publish the version that runs."""
    meters.BUILD.labels(version("committee")).set(1)


def flush() -> None:
    """Write what has been counted where other processes, and `REGISTRY`, see it."""
    _spread()
    now = time.time()
    ensembles = {(*labels[:2], "") for labels in _tally.waiting(meters.PREDICTIONS)}
    for labels in ensembles | _tally.waiting(meters.MEMBER_ROWS):
        meters.LAST.labels(*labels).set(now)
    _tally.flush()
    for distribution in meters.DISTRIBUTIONS:
        distribution.flush()


def _spread() -> None:
    """What was counted of several members at once, by member."""
    for (of, answered, missing), fates in _fates.items():
        for member in answered:
            _count(meters.MEMBERS, *of, fates.names[member], "answered", by=fates.requests)
            _count(meters.MEMBER_ROWS, *of, fates.names[member], by=fates.rows)
        for member, reason in missing:
            _count(meters.MEMBERS, *of, fates.names[member], reason, by=fates.requests)
    for (of, members, size), batches in _batches.items():
        meters.BATCH_ROWS.observe((of,), meters.SIZES[size], batches.count, total=batches.rows)
        _count(meters.BATCH_SECONDS, *of, meters.SIZES[size], by=batches.seconds)
        for member in members:
            _count(meters.MEMBER_BATCHES, *of, batches.names[member], by=batches.count)
    _fates.clear()
    _batches.clear()


def exposition() -> tuple[bytes, str]:
    """All metrics that are flushed, in Prometheus' text format, over all workers, and its media type."""
    return generate_latest(_Exposed()), CONTENT_TYPE_LATEST


def statistics() -> Mapping[tuple[str, ...], Statistics]:
    """By ensemble and version, and by ensemble, version and member: what is flushed, over all workers."""
    return gather(_collect())


class _Exposed(Collector):
    """What is counted, and behind it the same by the names that Triton has."""

    def collect(self) -> Iterable[Metric]:
        metrics = _collect()
        return [*metrics, *exposed(gather(metrics))]


def _collect() -> list[Metric]:
    """Over all workers."""
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    if folder is None:
        return list(REGISTRY.collect())
    with metric_files.reading(Path(folder)):
        return list(MultiProcessCollector(None).collect())  # type: ignore[no-untyped-call]


def choose_request_id(given: str | None) -> str:
    """The caller's id if it is 1 to 128 letters, digits, dots, dashes and underscores, else a new one."""
    # Python seeds its generator anew in every fork. An id has to be unique, and need not be hard to guess.
    return given if given is not None and _REQUEST_ID.fullmatch(given) else f"{random.getrandbits(128):032x}"
