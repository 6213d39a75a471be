import re

import pytest

from server import telemetry


def value(sample: str) -> float:
    """Of one line of the exposition; 0 if it is not there."""
    telemetry.flush()
    text, _ = telemetry.exposition()
    found = [line for line in text.decode().splitlines() if line.startswith(sample + " ")]
    return float(found[0].split()[-1]) if found else 0.0


def test_counts_predictions_rows_and_disagreements() -> None:
    labels = 'ensemble="e1",strategy="vote",version="3"'
    for rows in (2, 5):
        telemetry.count_prediction(
            ensemble="e1", version=3, strategy="vote", rows=rows, disagreements={"m1": rows - 1, "m2": 0}
        )
    assert value(f"committee_predictions_total{{{labels}}}") == 2
    assert value(f"committee_rows_total{{{labels}}}") == 7
    assert value('committee_member_disagreements_total{ensemble="e1",member="m1",version="3"}') == 5
    assert value('committee_member_disagreements_total{ensemble="e1",member="m2",version="3"}') == 0


def test_counts_what_is_out_of_the_ordinary() -> None:
    labels = 'ensemble="e2",version="3"'
    for degraded, abstained, by_stage in ((False, 0, []), (True, 2, [3, 0]), (True, 1, [1, 4])):
        telemetry.count_prediction(
            ensemble="e2",
            version=3,
            strategy="cascade",
            rows=5,
            disagreements={},
            degraded=degraded,
            abstained=abstained,
            by_stage=by_stage,
        )
    assert value(f"committee_degraded_predictions_total{{{labels}}}") == 2
    assert value(f"committee_abstained_rows_total{{{labels}}}") == 3
    assert value('committee_cascade_rows_total{ensemble="e2",stage="1",version="3"}') == 4
    assert value('committee_cascade_rows_total{ensemble="e2",stage="2",version="3"}') == 4


def test_counts_what_came_of_members() -> None:
    names = ["m1", "m2"]
    telemetry.count_members(("e3", 1), names, (0,), {1: "deadline"}, rows=1)
    telemetry.count_members(("e3", 1), names, (0, 1), {}, rows=1)
    telemetry.count_members(("e3", 1), names, (), {}, rows=1)
    sample = 'committee_member_requests_total{{ensemble="e3",member="{}",outcome="{}",version="1"}}'
    found = [value(sample.format(*of)) for of in (("m1", "answered"), ("m2", "answered"), ("m2", "deadline"))]
    assert found == [2, 1, 1]


def test_marks_circuits() -> None:
    sample = 'committee_open_circuits{ensemble="e4",member="m1",version="2"}'
    seen = [value(sample)]
    for is_open in (True, True, False):
        telemetry.mark_circuit("e4", 2, "m1", is_open=is_open)
        seen.append(value(sample))
    assert seen == [0, 1, 1, 0]


def test_counts_requests_with_bounded_labels() -> None:
    for method in ("GET", "PROPFIND", "MKCOL"):
        telemetry.count_request(route="/r", method=method, status=200, seconds=0.02)
    assert value('committee_http_requests_total{method="GET",route="/r",status="200"}') == 1
    assert value('committee_http_requests_total{method="OTHER",route="/r",status="200"}') == 2
    assert value('committee_http_request_duration_seconds_count{route="/r"}') == 3
    assert value('committee_http_request_duration_seconds_bucket{le="0.01",route="/r"}') == 0
    assert value('committee_http_request_duration_seconds_bucket{le="0.025",route="/r"}') == 3


def test_times_the_parts_of_a_requests_way() -> None:
    labels = 'stage="encode",version="1"}'
    names = [
        f'count{{ensemble="e5",{labels}',
        f'sum{{ensemble="e5",{labels}',
        f'bucket{{ensemble="e5",le="0.0001",{labels}',
    ]
    before = [value(f"committee_stage_duration_seconds_{name}") for name in names]
    telemetry.observe_part("encode", 0.0001, ("e5", 1))
    telemetry.observe_part("encode", 0.5, ("e5", 1), times=3)
    after = [value(f"committee_stage_duration_seconds_{name}") for name in names]
    assert [now - then for now, then in zip(after, before, strict=True)] == pytest.approx([4, 1.5001, 1])


def test_what_is_counted_is_seen_once_it_is_flushed() -> None:
    sample = 'committee_errors_total{code="unflushed"}'
    assert value(sample) == 0
    telemetry.count_error("unflushed")
    assert sample.encode() not in telemetry.exposition()[0]
    telemetry.flush()
    telemetry.flush()
    assert f"{sample} 1.0".encode() in telemetry.exposition()[0]


def test_counts_errors_and_the_build() -> None:
    telemetry.count_error("some_code")
    telemetry.count_build()
    assert value('committee_errors_total{code="some_code"}') == 1
    telemetry.flush()
    text, media_type = telemetry.exposition()
    assert re.search(rb'^committee_build_info{version="[0-9.]+"} 1.0$', text, re.MULTILINE)
    assert media_type.startswith("text/plain")


@pytest.mark.parametrize("given", ["a", "A-b_c.9", "x" * 128])
def test_takes_a_callers_request_id(given: str) -> None:
    assert telemetry.choose_request_id(given) == given


@pytest.mark.parametrize("given", [None, "", "x" * 129, "a b", "a\n", "é", "a/b"])
def test_makes_a_request_id(given: str | None) -> None:
    made = telemetry.choose_request_id(given)
    assert re.fullmatch(r"[0-9a-f]{32}", made)
    assert telemetry.choose_request_id(given) != made


def test_marks_how_this_worker_is() -> None:
    seen = []
    names = ("committee_ready", "committee_queue_wait_seconds", "committee_inflight_bytes")
    for can_answer, wait, inflight in ((True, 0.5, 7), (False, 0.0, 0)):
        telemetry.mark_load(can_answer=can_answer, wait=wait, inflight=inflight, limit=100)
        seen.append([value(name) for name in names])
    assert seen == [[1, 0.5, 7], [0, 0, 0]]
    assert value("committee_inflight_limit_bytes") == 100
