import pytest
from prometheus_client import Metric

from server import telemetry
from server.statistics import Spent, Statistics, exposed, gather
from tests.server.test_telemetry import value


def counted(name: str, *samples: tuple[dict[str, str], float]) -> Metric:
    metric = Metric(name, "about", "unknown")
    for labels, amount in samples:
        metric.add_sample(name, labels, amount)
    return metric


OF = {"ensemble": "e", "version": "1"}
METRICS = [
    counted("committee_rows_total", ({**OF, "strategy": "vote"}, 4), ({**OF, "strategy": "average"}, 3)),
    counted(
        "committee_inference_duration_seconds_count",
        ({**OF, "outcome": "answered"}, 5),
        ({**OF, "outcome": "overloaded"}, 2),
        ({**OF, "outcome": "deadline_exceeded"}, 1),
        ({**OF, "outcome": "invalid_input"}, 1),
    ),
    counted(
        "committee_inference_duration_seconds_sum",
        ({**OF, "outcome": "answered"}, 0.5),
        ({**OF, "outcome": "overloaded"}, 0.25),
    ),
    counted(
        "committee_batch_rows_bucket",
        *(({**OF, "le": bound}, value) for bound, value in (("1.0", 2), ("2.0", 2), ("4.0", 3), ("+Inf", 3))),
    ),
    counted("committee_batch_rows_count", (OF, 3)),
    counted("committee_batch_seconds_total", ({**OF, "rows": "1"}, 0.02), ({**OF, "rows": "4"}, 0.03)),
    counted("committee_stage_duration_seconds_count", ({**OF, "stage": "fuse"}, 3), ({**OF, "stage": "encode"}, 5)),
    counted(
        "committee_stage_duration_seconds_sum",
        ({**OF, "stage": "fuse"}, 0.01),
        ({**OF, "stage": "encode"}, 0.02),
        ({"ensemble": "", "version": "", "stage": "receive"}, 9.0),
    ),
    counted(
        "committee_member_requests_total",
        ({**OF, "member": "m", "outcome": "answered"}, 4),
        ({**OF, "member": "m", "outcome": "raised"}, 1),
        ({**OF, "member": "m", "outcome": "hanging"}, 2),
    ),
    counted("committee_member_rows_total", ({**OF, "member": "m"}, 6)),
    counted("committee_member_call_duration_seconds_sum", ({**OF, "member": "m"}, 0.125)),
    counted("committee_last_inference_timestamp_seconds", ({**OF, "member": ""}, 12.5), ({**OF, "member": "m"}, 11.5)),
    counted("committee_errors_total", ({"code": "overloaded"}, 7)),
]


def test_what_is_counted_of_an_ensemble_and_of_a_member_is_gathered() -> None:
    found = gather(METRICS)
    assert set(found) == {("e", "1"), ("e", "1", "m")}
    ensemble, member = found["e", "1"], found["e", "1", "m"]
    assert (ensemble.success, ensemble.rows, ensemble.batches, ensemble.last) == (Spent(5, 0.5), 7, 3, 12.5)
    assert ensemble.failures == {"REJECTED": Spent(3, 0.25), "OTHER": Spent(1, 0.0)}
    assert ensemble.failure == Spent(4, 0.25)
    assert ensemble.by_rows == {1: Spent(2, 0.02), 2: Spent(0, 0.0), 4: Spent(1, 0.03)}
    assert ensemble.output.count == 5
    assert ensemble.output.seconds == pytest.approx(0.03)
    assert (member.success, member.failure, member.rows, member.last) == (Spent(4, 0), Spent(3, 0), 6, 11.5)
    assert member.stages["members"] == Spent(0, 0.125)


def test_triton_names_say_the_same() -> None:
    samples = {
        (sample.name, sample.labels["model"], sample.labels.get("reason")): sample.value
        for metric in exposed(gather(METRICS))
        for sample in metric.samples
    }
    assert samples["nv_inference_request_success", "e", None] == 5
    assert samples["nv_inference_request_duration_us", "e", None] == 500_000
    assert samples["nv_inference_count", "e", None] == 7
    assert samples["nv_inference_exec_count", "e", None] == 3
    assert samples["nv_inference_request_failure", "e", "REJECTED"] == 3
    assert samples["nv_inference_request_failure", "e.m", "BACKEND"] == 3
    assert samples["nv_inference_compute_infer_duration_us", "e.m", None] == 125_000
    assert samples["nv_inference_compute_output_duration_us", "e", None] == pytest.approx(30_000)
    assert ("nv_inference_queue_duration_us", "e.m", None) not in samples


def test_of_what_was_never_asked_there_is_nothing() -> None:
    assert gather([]) == {}
    assert Statistics().failure == Spent()
    assert all(not metric.samples for metric in exposed({}))


def test_batches_stand_under_the_sizes_that_the_histogram_has() -> None:
    for rows in (1, 1, 3, 4, 256):
        telemetry.count_batch(("sizes", 1), ["m1", "m2"], (0, 1), rows, 0.5)
    telemetry.flush()
    found = telemetry.statistics()
    by_rows = {rows: spent for rows, spent in found["sizes", "1"].by_rows.items() if spent.count}
    assert value('committee_batch_rows_sum{ensemble="sizes",version="1"}') == 1 + 1 + 3 + 4 + 256
    assert by_rows == {1: Spent(2, 1.0), 4: Spent(2, 1.0), 256: Spent(1, 0.5)}
    assert [found["sizes", "1", member].batches for member in ("m1", "m2")] == [5, 5]
    assert found["sizes", "1"].stages["members"] == Spent(5, 2.5)


def test_when_something_was_last_answered_is_known_once_it_is_flushed() -> None:
    telemetry.count_members(("lately", 1), ["m1", "m2"], (0,), {1: "raised"}, rows=3)
    telemetry.flush()
    found = telemetry.statistics()
    assert found["lately", "1", "m1"].last > 1e9
    assert found["lately", "1", "m1"].rows == 3
    assert (found["lately", "1", "m2"].last, found["lately", "1", "m2"].rows) == (0, 0)
