"""Answers without some of the members, and requests that get none because too many are missing."""

import io
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server.ensemble import FinalEstimator
from server.errors import MemberFailed
from server.fusion import STACKING, STRATEGIES, fuse
from tests import faulty, tiny
from tests.faulty import HANG, NAN, RAISE
from tests.server.rest.client import Client
from tests.server.rest.served import SOON, answer, ask, refusal, serve, write_faulty_stacked

KINDS = ["apart", "packed", "everything"]
THIRDS = "m1:0.33333334,m2:0.33333334"
REASONS = {RAISE: "raised", NAN: "invalid"}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """Ensembles whose member m3 fails if a row says so, in a graph of its own or in one with the others."""
    root = tmp_path_factory.mktemp("models")
    faulty.write(root, name="apart", packed=False)
    faulty.write(root, name="packed")
    faulty.write(root, name="strict", on_failure="fail")
    faulty.write(root, name="wants_all", quorum=3)
    faulty.write(root, name="wants_one", quorum=1)
    write_faulty_stacked(root)
    with serve(root, "packed") as client:
        yield client


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("fault", "reason"), REASONS.items())
def test_a_member_that_fails_has_no_part_in_the_answer(client: Client, kind: str, fault: float, reason: str) -> None:
    rows = faulty.rows(3, fault, at=1)
    body = answer(ask(client, rows, "detail=members,uncertainty", of=kind))
    assert (body["degraded"], body["missing"], body["reasons"]) == (True, ["m3"], {"m3": reason})
    assert body["members"] == {"m1": 0.5, "m2": 0.5}
    expected = tiny.answers(rows, 2).mean(axis=0)
    np.testing.assert_allclose([row["probabilities"] for row in body["predictions"]], expected, atol=1e-6)
    for row in body["predictions"]:
        assert list(row["members"]) == ["m1", "m2"]


def test_an_answer_of_all_is_not_degraded(client: Client) -> None:
    body = answer(ask(client, tiny.rows(3)))
    assert (body["degraded"], body["missing"]) == (False, [])
    assert "reasons" not in body


@pytest.mark.parametrize("strategy", [name for name in STRATEGIES if name != STACKING])
def test_the_others_answer_by_the_same_strategy(client: Client, strategy: str) -> None:
    rows = faulty.rows(3, NAN)
    body = answer(ask(client, rows, f"strategy={strategy}", of="everything"))
    weights = {"weighted": [3, 2], "log_linear": [1, 2]}.get(strategy, [1, 1])
    expected = fuse(
        strategy,
        tiny.answers(rows, 2),
        weights=np.array(weights, dtype=np.float32),
        temperatures=np.array([1, 1.5], dtype=np.float32),
    )
    assert (body["strategy"], body["missing"]) == (strategy, ["m3"])
    np.testing.assert_allclose(list(body["members"].values()), np.array(weights) / sum(weights), atol=1e-6)
    np.testing.assert_allclose([row["probabilities"] for row in body["predictions"]], expected.probabilities, atol=1e-6)
    assert [row["label"] for row in body["predictions"]] == [tiny.CLASSES[label] for label in expected.labels]


def test_a_requests_weights_are_those_of_the_others(client: Client) -> None:
    body = answer(ask(client, faulty.rows(2, NAN), "strategy=weighted&weights=m1:1,m2:3,m3:4"))
    assert body["members"] == {"m1": 0.25, "m2": 0.75}


def test_stacking_without_a_member_is_the_logarithmic_pool_and_says_so(client: Client) -> None:
    rows = faulty.rows(3, NAN)
    body = answer(ask(client, rows, "strategy=stacking", of="everything"))
    assert (body["strategy"], body["degraded"], body["reasons"]) == ("log_linear", True, {"m3": "invalid"})
    instead = answer(ask(client, rows, "strategy=log_linear&members=m1,m2", of="everything"))
    assert (body["members"], body["predictions"]) == (instead["members"], instead["predictions"])


def test_only_the_request_of_a_row_that_fails_a_member_lacks_it(client: Client) -> None:
    for fault in (RAISE, NAN):
        posts: list[tuple[str, dict[str, Any]]] = [
            ("/predict", {"instances": faulty.rows(2, fault if index == 1 else None, seed=index).tolist()})
            for index in range(4)
        ]
        bodies = [answer(response) for response in client.together(*posts)]
        assert [body["missing"] for body in bodies] == [[], ["m3"], [], []]
        expected = tiny.answers(tiny.rows(2, seed=2), 3).mean(axis=0)
        np.testing.assert_allclose([row["probabilities"] for row in bodies[2]["predictions"]], expected, atol=1e-6)


# Deadlines -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_member_that_hangs_is_not_waited_for(client: Client, kind: str) -> None:
    rows = faulty.rows(2, HANG)
    body = answer(ask(client, rows, f"deadline_ms={SOON}", of=kind))
    assert (body["missing"], body["members"]) == (["m3"], {"m1": 0.5, "m2": 0.5})
    assert body["reasons"]["m3"] in ("deadline", "hanging")
    expected = tiny.answers(rows, 2).mean(axis=0)
    np.testing.assert_allclose([row["probabilities"] for row in body["predictions"]], expected, atol=1e-6)


def test_a_member_that_hung_is_asked_again(client: Client) -> None:
    answer(ask(client, faulty.rows(2, HANG), f"deadline_ms={SOON}"))
    assert answer(ask(client, tiny.rows(2)))["missing"] == []


def test_the_header_bounds_what_the_query_would_wait_for(client: Client) -> None:
    response = client.post(
        "/predict?deadline_ms=60000",
        json={"instances": faulty.rows(2, HANG).tolist()},
        headers={"X-Request-Deadline-Ms": str(SOON)},
    )
    assert answer(response)["missing"] == ["m3"]


def test_where_none_may_be_late_the_request_fails(client: Client) -> None:
    status, code, said = refusal(ask(client, faulty.rows(2, HANG), f"deadline_ms={SOON}&on_failure=fail"))
    assert (status, code) == (504, "deadline_exceeded")
    assert said in [
        f"expected answers of at least 3 of 3 members; got 2 (m3: {reason})" for reason in ("deadline", "hanging")
    ]


def test_too_few_in_time_are_a_deadline_that_is_exceeded(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    status, code, said = refusal(ask(client, tiny.rows(2), "deadline_ms=0.001"))
    assert (status, code) == (504, "deadline_exceeded")
    assert said.startswith("expected answers of at least 2 of 3 members; got 0 (m1: ")
    assert not caplog.records


def test_the_settings_bound_every_request(tmp_path: Path) -> None:
    faulty.write(tmp_path)
    with serve(tmp_path, "faulty", deadline=SOON / 1000) as client:
        assert answer(ask(client, faulty.rows(2, HANG)))["missing"] == ["m3"]
        assert answer(ask(client, faulty.rows(2, HANG), "deadline_ms=3600000"))["missing"] == ["m3"]


# Failures ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("fault", "reason"), REASONS.items())
def test_where_none_may_fail_the_request_does(client: Client, kind: str, fault: float, reason: str) -> None:
    said = f"expected answers of at least 3 of 3 members; got 2 (m3: {reason})"
    response = ask(client, faulty.rows(3, fault), "on_failure=fail", of=kind)
    assert refusal(response) == (503, "quorum_missed", said)
    assert "retry-after" not in response.headers


@pytest.mark.parametrize(
    ("of", "query", "said"),
    [
        ("packed", "", None),
        ("packed", "quorum=1", None),
        ("packed", "quorum=2", None),
        ("packed", "quorum=3", "at least 3 of 3 members; got 2"),
        ("packed", "quorum=200", "at least 3 of 3 members; got 2"),
        ("packed", "members=-m1", "at least 2 of 2 members; got 1"),
        ("packed", "members=-m1&quorum=1", None),
        ("packed", "members=m3&quorum=1", "at least 1 of 1 members; got 0"),
        ("packed", "members=-m3&on_failure=fail", None),
        ("packed", "quorum=1&on_failure=fail", "at least 3 of 3 members; got 2"),
        ("strict", "", "at least 3 of 3 members; got 2"),
        ("strict", "on_failure=degrade", None),
        ("strict", "on_failure=degrade&quorum=3", "at least 3 of 3 members; got 2"),
        ("wants_all", "", "at least 3 of 3 members; got 2"),
        ("wants_all", "quorum=2", None),
        ("wants_one", "members=-m1", None),
        ("wants_one", "members=-m1&quorum=2", "at least 2 of 2 members; got 1"),
        ("everything", "strategy=stacking&on_failure=fail", "at least 3 of 3 members; got 2"),
        ("everything", "strategy=cascade", None),
        ("everything", "strategy=cascade&on_failure=fail", "at least 3 of 3 members; got 2"),
        ("everything", "strategy=cascade&quorum=3", "at least 3 of 3 members; got 2"),
    ],
)
def test_how_many_must_answer(client: Client, of: str, query: str, said: str | None) -> None:
    """The request says, else the manifest, else it is a majority of those asked."""
    response = ask(client, faulty.rows(1, NAN), query, of=of)
    if said is None:
        assert response.status_code == 200
    else:
        assert refusal(response) == (503, "quorum_missed", f"expected answers of {said} (m3: invalid)")


@pytest.mark.parametrize(
    ("of", "on_failure", "quorum"), [("packed", "degrade", None), ("strict", "fail", None), ("wants_all", "degrade", 3)]
)
def test_it_is_described_how_many_must_answer(client: Client, of: str, on_failure: str, quorum: int | None) -> None:
    body = client.get(f"/v1/ensembles/{of}").json()
    assert (body["on_failure"], body["quorum"]) == (on_failure, quorum)


def test_a_member_that_keeps_failing_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    faulty.write(tmp_path, packed=False)
    with serve(tmp_path, "faulty") as client:
        engine = client.app.state.engine
        known = engine._members[engine.ensemble()]
        known.own_rows = faulty.rows(1, NAN)
        caplog.clear()
        for query in ("", "on_failure=fail", ""):
            ask(client, faulty.rows(1, NAN), query)
            while known.on_trial:  # in a thread, and nobody waits for it
                client.get("/v2/health/live")
        assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
            (logging.WARNING, "a member failed: it answered NaN, infinity or no distribution")
        ]
        assert (vars(caplog.records[0])["member"], vars(caplog.records[0])["reason"]) == ("m3", "invalid")


def test_of_rows_that_a_member_cannot_answer_the_log_says_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever sends them could fill it."""
    faulty.write(tmp_path, packed=False)
    with serve(tmp_path, "faulty") as client:
        engine = client.app.state.engine
        caplog.clear()
        for _ in range(3):
            assert answer(ask(client, faulty.rows(1, NAN)))["reasons"] == {"m3": "invalid"}
            while engine._members[engine.ensemble()].on_trial:
                client.get("/v2/health/live")
        assert caplog.records == []


def test_a_final_estimator_that_fails_is_a_fault_of_which_the_log_tells(
    client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> None:
        raise MemberFailed("/srv/models/everything/1/final.onnx: broken")

    monkeypatch.setattr(FinalEstimator, "__call__", fail)
    assert refusal(ask(client, tiny.rows(2), "strategy=stacking", of="everything")) == (
        503,
        "member_failed",
        "a member of the ensemble could not answer; the server's log says more",
    )
    assert [record.getMessage() for record in caplog.records] == ["/srv/models/everything/1/final.onnx: broken"]


# Arrays --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("accept", ["application/octet-stream", "application/x-npy"])
@pytest.mark.parametrize(
    ("fault", "query", "expected"),
    [
        (None, "", {"degraded": "false", "strategy": "average", "members": f"{THIRDS},m3:0.33333334"}),
        (NAN, "", {"degraded": "true", "missing": "m3:invalid", "strategy": "average", "members": "m1:0.5,m2:0.5"}),
        (RAISE, "", {"degraded": "true", "missing": "m3:raised", "strategy": "average", "members": "m1:0.5,m2:0.5"}),
        (
            NAN,
            "strategy=stacking",
            {
                "degraded": "true",
                "missing": "m3:invalid",
                "strategy": "log_linear",
                "members": "m1:0.33333334,m2:0.6666667",
            },
        ),
    ],
)
def test_arrays_say_in_headers_who_is_missing(
    client: Client, fault: float | None, query: str, expected: dict[str, str], accept: str
) -> None:
    path = f"/v1/ensembles/everything/predict?{query}"
    body = {"instances": faulty.rows(3, fault).tolist()}
    response = client.post(path, json=body, headers={"Accept": accept})
    assert (response.status_code, response.headers["content-type"]) == (200, accept)
    assert {
        name.removeprefix("committee-"): value
        for name, value in response.headers.items()
        if name.startswith("committee-")
    } == {"model": "everything", "version": "1", **expected}
    array = (
        np.frombuffer(response.content, "<f4").reshape(3, -1)
        if accept == "application/octet-stream"
        else np.load(io.BytesIO(response.content))
    )
    rows = [row["probabilities"] for row in answer(client.post(path, json=body))["predictions"]]
    assert array.tolist() == np.array(rows, dtype=np.float32).tolist()


def test_errors_are_json_whatever_was_accepted(client: Client) -> None:
    response = client.post(
        "/predict?on_failure=fail",
        json={"instances": faulty.rows(1, NAN).tolist()},
        headers={"Accept": "application/x-npy"},
    )
    assert refusal(response)[:2] == (503, "quorum_missed")
