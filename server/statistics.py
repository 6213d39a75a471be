"""What the metrics say of each ensemble and member, also by the names that Triton has for it."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from prometheus_client import Metric
from prometheus_client.samples import Sample

REASONS: Mapping[str, str] = {
    "overloaded": "REJECTED",
    "deadline_exceeded": "REJECTED",
    "cancelled": "CANCELED",
    "quorum_missed": "BACKEND",
    "member_failed": "BACKEND",
    "internal_error": "BACKEND",
}
"""By the code of a failure, what Triton calls it; any other is OTHER."""


@dataclass(slots=True)
class Spent:
    """How often something was done, and the seconds that it took in all."""

    count: int = 0
    seconds: float = 0.0


@dataclass(slots=True)
class Statistics:
    """Of an ensemble, or of a member of one."""

    success: Spent = field(default_factory=Spent)
    """Requests that were answered; a member's have no time of their own."""
    failures: dict[str, Spent] = field(default_factory=lambda: defaultdict(Spent))
    """By Triton's reason; a member's are all BACKEND."""
    rows: int = 0
    """That were answered."""
    batches: int = 0
    last: float = 0.0
    """When something was last answered, in seconds since 1970; 0: never."""
    stages: dict[str, Spent] = field(default_factory=lambda: defaultdict(Spent))
    """By stage of the way, as the metrics call them. A member's `members` are its calls alone."""
    by_rows: dict[int, Spent] = field(default_factory=lambda: defaultdict(Spent))
    """Batches by their rows, rounded up; without those of an ensemble's member."""

    @property
    def failure(self) -> Spent:
        """All of them together."""
        found = self.failures.values()
        return Spent(sum(spent.count for spent in found), sum(spent.seconds for spent in found))

    @property
    def output(self) -> Spent:
        """What is made of the members' answers: fused, once a batch, and encoded."""
        fuse, encode = self.stages["fuse"], self.stages["encode"]
        return Spent(encode.count, fuse.seconds + encode.seconds)


def gather(metrics: Iterable[Metric]) -> dict[tuple[str, ...], Statistics]:
    """By ensemble and version, and by ensemble, version and member."""
    found: dict[tuple[str, ...], Statistics] = defaultdict(Statistics)
    for metric in metrics:
        for sample in metric.samples:
            labels = sample.labels
            if sample.name not in _TAKEN or not labels["ensemble"]:
                continue
            member = labels.get("member")
            key = labels["ensemble"], labels["version"], *([member] if member else [])
            _TAKEN[sample.name](found[key], sample)
    return found


def _inferences(of: Statistics, sample: Sample) -> Spent:
    outcome = sample.labels["outcome"]
    return of.success if outcome == "answered" else of.failures[REASONS.get(outcome, "OTHER")]


def _add_count(find: Callable[[Statistics, Sample], Spent]) -> Callable[[Statistics, Sample], None]:
    def take(of: Statistics, sample: Sample) -> None:
        find(of, sample).count += int(sample.value)

    return take


def _add_seconds(find: Callable[[Statistics, Sample], Spent]) -> Callable[[Statistics, Sample], None]:
    def take(of: Statistics, sample: Sample) -> None:
        find(of, sample).seconds += sample.value

    return take


def _add_rows(of: Statistics, sample: Sample) -> None:
    of.rows += int(sample.value)


def _add_batches(of: Statistics, sample: Sample) -> None:
    of.batches += int(sample.value)


def _set_by_rows(of: Statistics, sample: Sample) -> None:
    """The buckets come in order, each with what is in those before it."""
    if (bound := sample.labels["le"]) != "+Inf":
        before = sum(spent.count for rows, spent in of.by_rows.items() if rows < float(bound))
        of.by_rows[int(float(bound))].count = int(sample.value) - before


def _set_last(of: Statistics, sample: Sample) -> None:
    of.last = sample.value


def _member_requests(of: Statistics, sample: Sample) -> Spent:
    return of.success if sample.labels["outcome"] == "answered" else of.failures["BACKEND"]


def _stage(of: Statistics, sample: Sample) -> Spent:
    return of.stages[sample.labels.get("stage", "members")]


_TAKEN: Mapping[str, Callable[[Statistics, Sample], None]] = {
    "committee_inference_duration_seconds_count": _add_count(_inferences),
    "committee_inference_duration_seconds_sum": _add_seconds(_inferences),
    "committee_member_requests_total": _add_count(_member_requests),
    "committee_stage_duration_seconds_count": _add_count(_stage),
    "committee_stage_duration_seconds_sum": _add_seconds(_stage),
    "committee_member_call_duration_seconds_count": _add_count(_stage),
    "committee_member_call_duration_seconds_sum": _add_seconds(_stage),
    "committee_batch_seconds_total": _add_seconds(lambda of, sample: of.by_rows[int(sample.labels["rows"])]),
    "committee_batch_rows_bucket": _set_by_rows,
    "committee_batch_rows_count": _add_batches,
    "committee_member_batches_total": _add_batches,
    "committee_rows_total": _add_rows,
    "committee_member_rows_total": _add_rows,
    "committee_last_inference_timestamp_seconds": _set_last,
}
"""By the name of a sample, where it belongs."""

_EXPOSED: Mapping[str, tuple[str, Callable[[Statistics], float]]] = {
    "nv_inference_request_success": ("Requests that were answered", lambda of: of.success.count),
    "nv_inference_count": ("Rows that were answered", lambda of: of.rows),
    "nv_inference_exec_count": ("Batches", lambda of: of.batches),
    "nv_inference_request_duration_us": ("Requests that were answered", lambda of: of.success.seconds * 1e6),
    "nv_inference_queue_duration_us": ("Waiting for a batch", lambda of: of.stages["queue"].seconds * 1e6),
    "nv_inference_compute_input_duration_us": ("Decoding", lambda of: of.stages["decode"].seconds * 1e6),
    "nv_inference_compute_infer_duration_us": ("Members", lambda of: of.stages["members"].seconds * 1e6),
    "nv_inference_compute_output_duration_us": ("Fusing and encoding", lambda of: of.output.seconds * 1e6),
}


_OF_MEMBERS = {
    "nv_inference_request_success",
    "nv_inference_count",
    "nv_inference_exec_count",
    "nv_inference_compute_infer_duration_us",
}
"""What is known of a member: the rest is its ensemble's."""


def exposed(found: Mapping[tuple[str, ...], Statistics]) -> Iterable[Metric]:
    """By Triton's names; a member is a model of its own, as in the Open Inference Protocol."""
    models = [({"model": ".".join((key[0], *key[2:])), "version": key[1]}, found[key]) for key in sorted(found)]
    for name, (about, value) in _EXPOSED.items():
        metric = Metric(name, about, "unknown")
        for labels, of in models:
            if name in _OF_MEMBERS or "." not in labels["model"]:
                metric.add_sample(name, labels, value(of))
        yield metric
    failures = Metric("nv_inference_request_failure", "Requests that were not answered", "unknown")
    for labels, of in models:
        for reason, spent in of.failures.items():
            failures.add_sample(failures.name, {**labels, "reason": reason}, spent.count)
    yield failures
