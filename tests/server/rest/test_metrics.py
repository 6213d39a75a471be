from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests import faulty, tiny
from tests.faulty import HANG, NAN, RAISE
from tests.server.rest.client import Client
from tests.server.rest.served import SOON, answer, ask, serve
from tests.server.test_telemetry import value


def counted(client: Client, name: str, **labels: str) -> float:
    """The sum of all samples of this name that have these labels."""
    families = text_string_to_metric_families(client.get("/metrics").text)
    return sum(
        sample.value
        for family in families
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def test_counts_what_the_server_does(client: Client) -> None:
    rows = 'committee_rows_total{ensemble="tiny",strategy="median",version="1"}'
    requests = (
        'committee_http_requests_total{method="POST",route="/v1/ensembles/{name}/versions/{version}/predict",'
        'status="200"}'
    )
    before = value(rows), value(requests)
    path = "/v1/ensembles/tiny/versions/1/predict?strategy=median"
    client.post(path, json={"instances": [[1, 2, 3, 4]] * 3})
    response = client.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=")
    lines = dict(line.rsplit(" ", 1) for line in response.text.splitlines() if line.startswith("committee"))
    assert (float(lines[rows]), float(lines[requests])) == (before[0] + 3, before[1] + 1)


@pytest.fixture(scope="module")
def failing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """Ensembles of names that no other test counts under."""
    root = tmp_path_factory.mktemp("models")
    faulty.write(root, name="counted")
    stages = tiny.cascade(["m1"], ["m2", "m3"])
    faulty.write(root, name="counted_stages", cascade=stages, default_strategy="cascade")
    with serve(root, "counted") as client:
        yield client


LATE = "deadline or hanging"
REQUESTS = [
    (None, "", ["m1", "m2", "m3"], None),
    (None, "strategy=vote", ["m1", "m2", "m3"], None),
    (None, "members=m1", ["m1"], None),
    (None, "members=-m1", ["m2", "m3"], None),
    (NAN, "", ["m1", "m2", "m3"], "invalid"),
    (NAN, "members=-m3", ["m1", "m2"], None),
    (NAN, "on_failure=fail", ["m1", "m2", "m3"], "invalid"),
    (RAISE, "", ["m1", "m2", "m3"], "raised"),
    (RAISE, "quorum=3", ["m1", "m2", "m3"], "raised"),
    (RAISE, "members=m3", ["m3"], "raised"),
    (HANG, f"deadline_ms={SOON}", ["m1", "m2", "m3"], LATE),
    (None, "strategy=nope", [], None),
    (None, "members=m9", [], None),
]
"""What a row asks for, the options, who is asked, and what comes of m3 if it does not answer."""


def test_what_came_of_the_members_adds_up_to_the_requests(failing: Client) -> None:
    def outcomes(member: str, **labels: str) -> float:
        return counted(failing, "committee_member_requests_total", ensemble="counted", member=member, **labels)

    assert [outcomes(name) for name in ("m1", "m2", "m3")] == [0, 0, 0]
    for fault, query, _, _ in REQUESTS:
        ask(failing, faulty.rows(2, fault), query)
    for name in ("m1", "m2", "m3"):
        asked = [reason for _, _, names, reason in REQUESTS if name in names]
        assert outcomes(name) == len(asked)
        failed = [reason for reason in asked if reason is not None] if name == "m3" else []
        assert outcomes(name, outcome="answered") == len(asked) - len(failed)
        for reason in set(failed):
            found = sum(outcomes(name, outcome=word) for word in reason.split(" or "))
            assert found == failed.count(reason)


def test_what_came_of_requests_that_ran_together_adds_up(failing: Client) -> None:
    before = counted(failing, "committee_member_requests_total", ensemble="counted", member="m3")
    posts = [
        ("/predict", {"instances": faulty.rows(1, fault, seed=seed).tolist()})
        for seed, fault in enumerate((None, NAN, None, RAISE, None))
    ]
    missing = [answer(response)["missing"] for response in failing.together(*posts)]
    assert missing == [[], ["m3"], [], ["m3"], []]
    assert counted(failing, "committee_member_requests_total", ensemble="counted", member="m3") == before + 5


def test_degraded_answers(failing: Client) -> None:
    def degraded() -> float:
        return counted(failing, "committee_degraded_predictions_total", ensemble="counted", version="1")

    before = degraded()
    for fault, query, _, _ in REQUESTS:
        ask(failing, faulty.rows(2, fault), query)
    assert degraded() == before + 3  # those that have an answer at all


def test_rows_by_stage(failing: Client) -> None:
    def rows(stage: int) -> float:
        return counted(failing, "committee_cascade_rows_total", ensemble="counted_stages", stage=str(stage))

    def asked(member: str) -> float:
        return counted(failing, "committee_member_requests_total", ensemble="counted_stages", member=member)

    body = answer(ask(failing, tiny.rows(8, seed=2), of="counted_stages"))
    of_rows = [row["stage"] for row in body["predictions"]]
    assert (rows(1), rows(2)) == (of_rows.count(1), of_rows.count(2)) == (1, 7)
    assert [asked(name) for name in ("m1", "m2", "m3")] == [1, 1, 1]
    answer(ask(failing, tiny.rows(8, seed=2), "cascade_threshold=0", of="counted_stages"))
    assert (rows(1), rows(2)) == (9, 7)
    assert [asked(name) for name in ("m1", "m2", "m3")] == [2, 1, 1]
    answer(ask(failing, tiny.rows(8, seed=2), "strategy=average", of="counted_stages"))
    assert (rows(1), rows(2)) == (9, 7)


def test_rows_that_are_left_open(failing: Client) -> None:
    def abstained() -> float:
        return counted(failing, "committee_abstained_rows_total", ensemble="counted")

    before = abstained()
    body = answer(ask(failing, tiny.rows(8), "abstain_below=0.6"))
    left_open = [row["label"] for row in body["predictions"]].count(None)
    assert 0 < left_open < 8
    assert abstained() == before + left_open
    answer(ask(failing, tiny.rows(8), "abstain_below=0"))
    assert abstained() == before + left_open


def test_errors_by_code(failing: Client) -> None:
    def errors(code: str) -> float:
        return counted(failing, "committee_errors_total", code=code)

    before = errors("quorum_missed"), errors("deadline_exceeded")
    ask(failing, faulty.rows(1, NAN), "quorum=3")
    ask(failing, faulty.rows(1), "deadline_ms=0.001")
    assert (errors("quorum_missed"), errors("deadline_exceeded")) == (before[0] + 1, before[1] + 1)
