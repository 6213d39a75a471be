"""Members that fail too often are left alone for a while; readiness and metrics tell."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import faulty, tiny
from tests.faulty import NAN, RAISE
from tests.server.rest.client import Client
from tests.server.rest.served import answer, ask, refusal, serve
from tests.server.test_telemetry import value

COOLDOWN = 60.0
READY = {"ready": True}
OPEN = {"ready": True, "degraded": {"faulty/1": ["m3"]}}
GAUGE = 'committee_open_circuits{ensemble="faulty",member="m3",version="1"}'


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    """Of an ensemble whose member m3 fails if a row says so: one failure is too many."""
    faulty.write(tmp_path)
    with serve(tmp_path, "faulty", breaker_failures=1, breaker_cooldown=COOLDOWN) as client:
        faulty.blame_members(client.app.state.engine)
        yield client


def ready(client: Client) -> object:
    response = client.get("/v2/health/ready")
    assert response.status_code == 200
    assert client.request("HEAD", "/v2/health/ready").status_code == 200
    return response.json()


def reasons(client: Client, fault: float | None = None, query: str = "") -> dict[str, str]:
    found: dict[str, str] = answer(ask(client, faulty.rows(1, fault), query)).get("reasons", {})
    return found


@pytest.mark.parametrize(("fault", "reason"), [(NAN, "invalid"), (RAISE, "raised")])
def test_a_circuit_opens_and_closes_again(client: Client, fault: float, reason: str) -> None:
    assert ready(client) == READY
    assert reasons(client, fault) == {"m3": reason}
    assert (ready(client), value(GAUGE)) == (OPEN, 1)
    assert reasons(client) == {"m3": "circuit_open"}
    client.pass_time(COOLDOWN + 1)
    assert ready(client) == READY
    assert reasons(client) == {}
    assert (ready(client), value(GAUGE)) == (READY, 0)
    assert reasons(client) == {}


def test_a_member_that_fails_again_is_left_alone_again(client: Client) -> None:
    assert reasons(client, NAN) == {"m3": "invalid"}
    client.pass_time(COOLDOWN + 1)
    assert reasons(client, NAN) == {"m3": "invalid"}
    assert (ready(client), value(GAUGE)) == (OPEN, 1)
    assert reasons(client) == {"m3": "circuit_open"}
    client.pass_time(COOLDOWN / 2)
    assert reasons(client) == {"m3": "circuit_open"}


def test_one_request_at_a_time_tries_again(client: Client) -> None:
    reasons(client, NAN)
    client.pass_time(COOLDOWN + 1)
    body = {"instances": tiny.rows(2).tolist()}
    missing = [answer(response)["missing"] for response in client.together(*[("/predict", body)] * 3)]
    assert missing == [[], ["m3"], ["m3"]]
    assert reasons(client) == {}


def test_who_does_not_ask_the_member_hears_nothing_of_it(client: Client) -> None:
    reasons(client, NAN)
    assert reasons(client, query="members=-m3&on_failure=fail") == {}
    assert ready(client) == OPEN


def test_a_request_that_needs_the_member_is_told(client: Client) -> None:
    reasons(client, NAN)
    expected = "expected answers of at least 3 of 3 members; got 2 (m3: circuit_open)"
    for query in ("on_failure=fail", "quorum=3"):
        assert refusal(ask(client, tiny.rows(2), query)) == (503, "quorum_missed", expected)
    expected = "expected answers of at least 1 of 1 members; got 0 (m3: circuit_open)"
    assert refusal(ask(client, tiny.rows(2), "members=m3")) == (503, "quorum_missed", expected)


def test_it_takes_as_many_failures_in_a_row_as_the_settings_say(tmp_path: Path) -> None:
    faulty.write(tmp_path)
    with serve(tmp_path, "faulty", breaker_failures=2, breaker_cooldown=COOLDOWN) as client:
        faulty.blame_members(client.app.state.engine)
        for fault in (NAN, None, NAN):
            reasons(client, fault)
            assert ready(client) == READY
        assert reasons(client, NAN) == {"m3": "invalid"}
        assert ready(client) == OPEN


def test_a_member_that_answers_some_of_the_rows_has_not_failed(client: Client) -> None:
    body = answer(ask(client, faulty.rows(2, NAN)))
    assert (body["reasons"], ready(client)) == ({"m3": "invalid"}, READY)


def test_no_circuit_opens_where_the_settings_forbid_it(tmp_path: Path) -> None:
    faulty.write(tmp_path)
    with serve(tmp_path, "faulty", breaker_failures=0) as client:
        for _ in range(8):
            assert reasons(client, NAN) == {"m3": "invalid"}
        assert ready(client) == READY


def test_without_a_quorum_anywhere_the_server_is_not_ready(tmp_path: Path) -> None:
    """Where the manifest wants all, one open circuit is one too many; another ensemble makes up for it."""
    faulty.write(tmp_path / "one", quorum=3)
    faulty.write(tmp_path / "two", quorum=3)
    tiny.write_ensemble(tmp_path / "two")
    for folder in ("one", "two"):
        with serve(tmp_path / folder, "faulty", breaker_failures=1, breaker_cooldown=COOLDOWN) as client:
            faulty.blame_members(client.app.state.engine)
            assert ready(client) == READY
            assert refusal(ask(client, faulty.rows(1, NAN)))[1] == "quorum_missed"
            if folder == "one":
                response = client.get("/v2/health/ready")
                expected = (503, "not_ready", "no ensemble has enough members that work")
                assert (refusal(response), response.headers["Retry-After"]) == (expected, "1")
                assert client.request("HEAD", "/v2/health/ready").status_code == 503
                assert client.get("/v2/health/live").status_code == 200
                client.pass_time(COOLDOWN + 1)
                assert ready(client) == READY
                assert reasons(client) == {}
            else:
                assert ready(client) == OPEN


def test_an_open_circuit_of_a_version_is_no_other_versions(tmp_path: Path) -> None:
    faulty.write(tmp_path, version=1)
    faulty.write(tmp_path, version=2)
    with serve(tmp_path, "faulty", versions="all", breaker_failures=1, breaker_cooldown=COOLDOWN) as client:
        faulty.blame_members(client.app.state.engine)
        reasons(client, NAN)
        assert ready(client) == {"ready": True, "degraded": {"faulty/2": ["m3"]}}
        body = {"instances": tiny.rows(2).tolist()}
        assert answer(client.post("/v1/ensembles/faulty/versions/1/predict", json=body))["missing"] == []


def test_arrays_say_that_the_circuit_is_open(client: Client) -> None:
    reasons(client, NAN)
    body = {"instances": tiny.rows(2).tolist()}
    response = client.post("/predict", json=body, headers={"Accept": "application/octet-stream"})
    assert response.headers["committee-degraded"] == "true"
    assert response.headers["committee-missing"] == "m3:circuit_open"
