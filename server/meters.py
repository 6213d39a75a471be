"""Every metric that there is, by its name in Prometheus; `server.telemetry` says when they count.

prometheus_client asks when it is imported where processes share their metrics: see there.
"""

from itertools import product

from prometheus_client import CollectorRegistry, Counter, Gauge

from server.tally import Distribution

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

REQUESTS = Counter(
    "committee_http_requests_total", "HTTP requests answered", ["route", "method", "status"], registry=REGISTRY
)
LATENCY = Distribution(
    "committee_http_request_duration_seconds",
    "From the headers of a request to the last byte of its answer",
    ["route"],
    bounds=LATENCY_BOUNDS,
    registry=REGISTRY,
)
CALLS = Counter("committee_grpc_requests_total", "Calls over gRPC answered", ["method", "status"], registry=REGISTRY)
CALL_LATENCY = Distribution(
    "committee_grpc_request_duration_seconds",
    "From the whole message of a call to its answer",
    ["method"],
    bounds=LATENCY_BOUNDS,
    registry=REGISTRY,
)
STAGES_OF_REQUESTS = Distribution(
    "committee_stage_duration_seconds",
    "What requests spend their time on: receive, decode, queue, members, fuse, encode; members and fuse once a batch",
    ["ensemble", "version", "stage"],
    bounds=STAGE_BOUNDS,
    registry=REGISTRY,
)
INFERENCES = Distribution(
    "committee_inference_duration_seconds",
    "From when an ensemble is asked, the request decoded, to its answer, not yet encoded",
    ["ensemble", "version", "outcome"],
    bounds=LATENCY_BOUNDS,
    registry=REGISTRY,
)
BATCH_ROWS = Distribution(
    "committee_batch_rows", "Rows in a batch", ["ensemble", "version"], bounds=SIZES, registry=REGISTRY
)
BATCH_SECONDS = Counter(
    "committee_batch_seconds_total",
    "What the members took for batches, by their rows, rounded up to a bound of committee_batch_rows",
    ["ensemble", "version", "rows"],
    registry=REGISTRY,
)
MEMBER_CALLS = Distribution(
    "committee_member_call_duration_seconds",
    "Calls of a member alone; of several that run together nobody can tell whose time it is",
    ["ensemble", "version", "member"],
    bounds=STAGE_BOUNDS,
    registry=REGISTRY,
)
ERRORS = Counter("committee_errors_total", "Error answers", ["code"], registry=REGISTRY)
PREDICTIONS = Counter(
    "committee_predictions_total", "Predict requests answered", ["ensemble", "version", "strategy"], registry=REGISTRY
)
ROWS = Counter("committee_rows_total", "Rows predicted", ["ensemble", "version", "strategy"], registry=REGISTRY)
DISAGREEMENTS = Counter(
    "committee_member_disagreements_total",
    "Rows on which a member's best class is not the answer's label",
    ["ensemble", "version", "member"],
    registry=REGISTRY,
)
DEGRADED = Counter(
    "committee_degraded_predictions_total",
    "Predict requests answered without members that should have taken part",
    ["ensemble", "version"],
    registry=REGISTRY,
)
MEMBERS = Counter(
    "committee_member_requests_total",
    "Requests that asked a member (a stage of a cascade counts as one), by what came of it: it answered, or why not",
    ["ensemble", "version", "member", "outcome"],
    registry=REGISTRY,
)
MEMBER_ROWS = Counter(
    "committee_member_rows_total",
    "Rows that a member has answered",
    ["ensemble", "version", "member"],
    registry=REGISTRY,
)
MEMBER_BATCHES = Counter(
    "committee_member_batches_total",
    "Batches that have asked a member",
    ["ensemble", "version", "member"],
    registry=REGISTRY,
)
LAST = Gauge(
    "committee_last_inference_timestamp_seconds",
    "When something was last answered, by the clock; of an ensemble itself, without a member",
    ["ensemble", "version", "member"],
    registry=REGISTRY,
    multiprocess_mode="max",
)
ABSTAINED = Counter(
    "committee_abstained_rows_total",
    "Rows whose confidence was under what the request asked for",
    ["ensemble", "version"],
    registry=REGISTRY,
)
STAGES = Counter(
    "committee_cascade_rows_total",
    "Rows by the stage that answered them",
    ["ensemble", "version", "stage"],
    registry=REGISTRY,
)
CIRCUITS = Gauge(
    "committee_open_circuits",
    "Workers in which a member has failed so often that it is left alone for a while",
    ["ensemble", "version", "member"],
    registry=REGISTRY,
    multiprocess_mode="livesum",
)
READY = Gauge(
    "committee_model_ready",
    "1 for a version that is loaded, in all workers; 0 for one that was",
    ["ensemble", "version"],
    registry=REGISTRY,
    multiprocess_mode="livemin",
)
GENERATION = Gauge(
    "committee_generation",
    "The generation of what is served; 0 without model control",
    registry=REGISTRY,
    multiprocess_mode="livemostrecent",
)
OLDEST_GENERATION = Gauge(
    "committee_oldest_generation",
    "The lowest generation that a worker serves: another one than committee_generation only while a change is taken up",
    registry=REGISTRY,
    multiprocess_mode="livemin",
)
CHANGES = Counter(
    "committee_model_changes_total",
    "Loads and unloads, asked for or found by polling, by what came of them",
    ["action", "outcome"],
    registry=REGISTRY,
)
for _action, _outcome in product(("load", "unload", "poll"), ("done", "unchanged", "refused", "conflict", "failed")):
    CHANGES.labels(_action, _outcome)
REPLACED = Counter(
    "committee_workers_replaced_total",
    "Workers that another has taken the place of, unasked: silent, slow_load or died",
    ["cause"],
    registry=REGISTRY,
)
for _cause in ("silent", "slow_load", "died"):  # shown from the beginning, so that the first one is seen to be new
    REPLACED.labels(_cause)  # and so that the supervisor has its file open before there are none left
CAN_ANSWER = Gauge(
    "committee_ready",
    "1 while every worker is ready, as /v2/health/ready says of one: some ensemble has a quorum of members; else 0",
    registry=REGISTRY,
    multiprocess_mode="livemin",
)
QUEUE_WAIT = Gauge(
    "committee_queue_wait_seconds",
    "How long a request that comes now would wait for those before it, in the worker where that is longest",
    registry=REGISTRY,
    multiprocess_mode="livemax",
)
INFLIGHT = Gauge(
    "committee_inflight_bytes",
    "What bodies, rows and answers in flight hold of max_inflight_bytes, in the worker where that is most",
    registry=REGISTRY,
    multiprocess_mode="livemax",
)
INFLIGHT_LIMIT = Gauge(
    "committee_inflight_limit_bytes", "max_inflight_bytes, of a worker", registry=REGISTRY, multiprocess_mode="max"
)
BUILD = Gauge(
    "committee_build_info", "1, with Committee's version", ["version"], registry=REGISTRY, multiprocess_mode="max"
)

DISTRIBUTIONS = (LATENCY, CALL_LATENCY, STAGES_OF_REQUESTS, INFERENCES, BATCH_ROWS, MEMBER_CALLS)
