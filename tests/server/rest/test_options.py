"""Every option, in every place that it may stand in, does the same; and what is said of those that are wrong."""

import io
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from server.codec.media import NPY
from server.codec.options import OPTIONS
from tests import faulty, tiny
from tests.server.rest.client import Client
from tests.server.rest.served import ask, refusal, serve, write_faulty_stacked

ROWS = tiny.rows(3)
NAN = faulty.rows(3, faulty.NAN)
MISSED = "quorum_missed"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    root = tmp_path_factory.mktemp("models")
    write_faulty_stacked(root)
    tiny.write_ensemble(root)
    with serve(root, "everything") as client:
        yield client


def npy(rows: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, rows)
    return buffer.getvalue()


def send(client: Client, way: str, rows: NDArray[Any], text: dict[str, str], fields: dict[str, Any]) -> httpx.Response:
    """The rows, with the options as text in the query or in a form, or as fields of a JSON body."""
    match way:
        case "query":
            return client.post("/predict", params=text, json={"instances": rows.tolist()})
        case "query of rows alone":
            return client.post("/predict", params=text, content=npy(rows), headers={"Content-Type": NPY})
        case "form":
            return client.post("/predict", files={"f": ("rows.npy", npy(rows), NPY)}, data=text)
        case _:
            return ask(client, rows, **fields)


def facts(response: httpx.Response) -> dict[str, Any]:
    body = response.json()
    if response.status_code != 200:
        return {"code": body["code"]}
    rows = body["predictions"]
    return {
        "strategy": body["strategy"],
        "members": list(body["members"]),
        "weights": list(body["members"].values()),
        "missing": body["missing"],
        "stages": [row.get("stage") for row in rows],
        "labelled": [row["label"] is not None for row in rows],
        "details": [key for key in ("members", "uncertainty", "contributions") if key in rows[0]],
    }


@pytest.mark.parametrize("way", ["query", "query of rows alone", "form", "body"])
@pytest.mark.parametrize(
    ("text", "fields", "rows", "expected"),
    [
        ({}, {}, ROWS, {"strategy": "average", "members": ["m1", "m2", "m3"], "missing": [], "details": []}),
        ({}, {}, ROWS, {"stages": [None] * 3, "labelled": [True] * 3}),
        ({}, {}, NAN, {"members": ["m1", "m2"], "missing": ["m3"]}),
        ({"strategy": "vote"}, {"strategy": "vote"}, ROWS, {"strategy": "vote"}),
        (
            {"strategy": "weighted", "weights": "m1:1,m2:1e0,m3:2.0"},
            {"strategy": "weighted", "weights": {"m1": 1, "m2": 1.0, "m3": 2}},
            ROWS,
            {"weights": [0.25, 0.25, 0.5]},
        ),
        ({"members": "m3,m1"}, {"members": ["m3", "m1"]}, ROWS, {"members": ["m1", "m3"]}),
        ({"members": "-m2"}, {"members": ["-m2"]}, ROWS, {"members": ["m1", "m3"]}),
        ({"members": "-m3,-m1"}, {"members": ["-m3", "-m1"]}, NAN, {"members": ["m2"], "missing": []}),
        ({"detail": "contributions"}, {"detail": ["contributions"]}, ROWS, {"details": ["contributions"]}),
        (
            {"detail": "contributions,uncertainty,members"},
            {"detail": ["contributions", "uncertainty", "members"]},
            ROWS,
            {"details": ["members", "uncertainty", "contributions"]},
        ),
        ({"strategy": "cascade"}, {"strategy": "cascade"}, ROWS, {"stages": [2, 2, 2]}),
        (
            {"strategy": "cascade", "cascade_threshold": "0.55"},
            {"strategy": "cascade", "cascade_threshold": 0.55},
            ROWS,
            {"stages": [1, 1, 2]},
        ),
        (
            {"strategy": "cascade", "cascade_threshold": "0"},
            {"strategy": "cascade", "cascade_threshold": 0},
            ROWS,
            {"stages": [1, 1, 1], "members": ["m1", "m2"]},
        ),
        ({"deadline_ms": "1e-3"}, {"deadline_ms": 1e-3}, ROWS, {"code": "deadline_exceeded"}),
        ({"deadline_ms": "3600000"}, {"deadline_ms": 3_600_000}, ROWS, {"missing": []}),
        ({"quorum": "2"}, {"quorum": 2}, NAN, {"missing": ["m3"]}),
        ({"quorum": "3"}, {"quorum": 3}, NAN, {"code": MISSED}),
        ({"quorum": "256"}, {"quorum": 256}, ROWS, {"missing": []}),
        ({"on_failure": "degrade"}, {"on_failure": "degrade"}, NAN, {"missing": ["m3"]}),
        ({"on_failure": "fail"}, {"on_failure": "fail"}, NAN, {"code": MISSED}),
        ({"on_failure": "fail"}, {"on_failure": "fail"}, ROWS, {"missing": []}),
        ({"abstain_below": "1"}, {"abstain_below": 1}, ROWS, {"labelled": [False] * 3}),
        ({"abstain_below": "0.5"}, {"abstain_below": 0.5}, ROWS, {"labelled": [True, True, True]}),
        ({"abstain_below": "0.6"}, {"abstain_below": 0.6}, ROWS, {"labelled": [False, True, False]}),
        ({"abstain_below": "0"}, {"abstain_below": 0}, ROWS, {"labelled": [True] * 3}),
    ],
)
def test_an_option_does_the_same_wherever_it_stands(
    client: Client,
    text: dict[str, str],
    fields: dict[str, Any],
    rows: NDArray[Any],
    expected: dict[str, Any],
    way: str,
) -> None:
    found = facts(send(client, way, rows, text, fields))
    assert {key: found.get(key) for key in expected} == expected


# Both places ---------------------------------------------------------------------------------------------------------

SAME: dict[str, tuple[str, Any]] = {
    "strategy": ("weighted", "weighted"),
    "weights": ("m1:1,m2:0.5,m3:2", {"m1": 1.0, "m2": 0.5, "m3": 2}),
    "members": ("m1,m2,m3", ["m1", "m2", "m3"]),
    "detail": ("members,contributions", ["members", "contributions"]),
    "cascade_threshold": ("0.90", 0.9),
    "deadline_ms": ("6e4", 60_000),
    "quorum": ("2", 2),
    "on_failure": ("degrade", "degrade"),
    "abstain_below": ("0.0", 0),
}
"""By option: a value as text, and the same as JSON."""
OTHER: dict[str, Any] = {
    "strategy": "median",
    "weights": {"m1": 1, "m2": 0.5, "m3": 3},
    "members": ["m2", "m1", "m3"],
    "detail": ["members"],
    "cascade_threshold": 0.8,
    "deadline_ms": 60_001,
    "quorum": 1,
    "on_failure": "fail",
    "abstain_below": 0.1,
}
BESIDE = {"weights": "&strategy=weighted", "cascade_threshold": "&strategy=cascade"}
"""What an option needs to be one at all."""


@pytest.mark.parametrize("name", OPTIONS)
def test_the_same_in_the_query_and_in_the_body_is_taken(client: Client, name: str) -> None:
    text, value = SAME[name]
    assert ask(client, ROWS, f"{name}={text}{BESIDE.get(name, '')}", **{name: value}).status_code == 200


@pytest.mark.parametrize("name", OPTIONS)
def test_two_places_that_differ_are_refused(client: Client, name: str) -> None:
    expected = (400, "invalid_input", f"{name}: given twice, and differently")
    text, _ = SAME[name]
    assert refusal(ask(client, ROWS, f"{name}={text}", **{name: OTHER[name]})) == expected
    assert refusal(ask(client, ROWS, f"{name}={text}", of="tiny", **{name: OTHER[name]})) == expected


@pytest.mark.parametrize(("name", "other"), [("on_failure", "fail"), ("quorum", "1"), ("abstain_below", "0.1")])
def test_a_query_and_a_form_that_differ_are_refused(client: Client, name: str, other: str) -> None:
    files = {"f": ("rows.npy", npy(ROWS), NPY)}
    text, _ = SAME[name]
    response = client.post(f"/predict?{name}={text}", files=files, data={name: other})
    assert refusal(response) == (400, "invalid_input", f"{name}: given twice, and differently")


# The header of the deadline ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "query", "fields", "code"),
    [
        (["0.001"], "", {}, "deadline_exceeded"),
        (["60000"], "", {}, None),
        (["6e4"], "", {}, None),
        (["0.001"], "deadline_ms=60000", {}, "deadline_exceeded"),
        (["60000"], "deadline_ms=0.001", {}, "deadline_exceeded"),
        (["60000"], "", {"deadline_ms": 0.001}, "deadline_exceeded"),
        (["0.001"], "", {"deadline_ms": 60000}, "deadline_exceeded"),
        (["60000", "0.001"], "", {}, "deadline_exceeded"),
        (["60000", "50000"], "deadline_ms=60000", {"deadline_ms": 60000}, None),
    ],
)
def test_the_nearest_deadline_counts(
    client: Client, headers: list[str], query: str, fields: dict[str, Any], code: str | None
) -> None:
    sent = [("X-Request-Deadline-Ms", value) for value in headers]
    response = client.post(f"/predict?{query}", json={"instances": ROWS.tolist(), **fields}, headers=sent)
    assert facts(response).get("code") == code


def test_the_header_counts_for_a_form_too(client: Client) -> None:
    files = {"f": ("rows.npy", npy(ROWS), NPY)}
    headers = {"X-Request-Deadline-Ms": "0.001"}
    response = client.post("/predict", files=files, data={"deadline_ms": "60000"}, headers=headers)
    assert facts(response) == {"code": "deadline_exceeded"}


@pytest.mark.parametrize("value", ["", "0", "-1", "1 ", "3600001", "1e999", "nan", "50, 60", "50ms", "é"])
def test_a_header_that_is_no_deadline(client: Client, value: str) -> None:
    headers = [(b"X-Request-Deadline-Ms", value.encode("latin-1"))]
    response = client.post("/predict", json={"instances": ROWS.tolist()}, headers=headers)
    assert refusal(response) == (
        400,
        "invalid_input",
        f"X-Request-Deadline-Ms: expected milliseconds, above 0 and at most 3600000; got the string {value!r}",
    )
