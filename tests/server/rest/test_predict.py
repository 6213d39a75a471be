import json
import logging
from typing import Any

import httpx
import numpy as np
import pytest

from server.bounds import Bounds
from server.errors import MemberFailed
from server.session import Session
from tests.server.rest.client import Client
from tests.server.rest.conftest import MAX_ROWS
from tests.tiny import CLASSES, answers, rows

ROWS = rows(5)
INSTANCES = ROWS.tolist()
JSON = {"Content-Type": "application/json"}


def ask(client: Client, path: str = "/predict", instances: Any = INSTANCES, **fields: Any) -> httpx.Response:
    return client.post(path, json={"instances": instances, **fields})


def test_average_of_the_members(client: Client) -> None:
    response = ask(client, id="batch-7")
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    predictions = body.pop("predictions")
    assert body == {
        "model": "tiny",
        "version": 2,
        "id": "batch-7",
        "strategy": "average",
        "members": dict.fromkeys(["m1", "m2", "m3"], 0.33333334),
        "degraded": False,
        "missing": [],
        "classes": CLASSES,
    }
    expected = answers(ROWS, 3).mean(axis=0)
    for prediction, row in zip(predictions, expected, strict=True):
        assert set(prediction) == {"label", "confidence", "probabilities"}
        np.testing.assert_allclose(prediction["probabilities"], row, atol=1e-6)
        assert prediction["label"] == CLASSES[row.argmax()]
        assert prediction["confidence"] == max(prediction["probabilities"])


def test_floats_are_as_short_as_float32_allows(client: Client) -> None:
    assert '"m1":0.33333334,' in ask(client).text


@pytest.mark.parametrize(
    ("path", "model", "version"),
    [
        ("/v1/ensembles/tiny/predict", "tiny", 2),
        ("/v1/ensembles/tiny/versions/1/predict", "tiny", 1),
        ("/v1/ensembles/other/predict", "other", 1),
    ],
)
def test_names_and_versions(client: Client, path: str, model: str, version: int) -> None:
    body = ask(client, path).json()
    assert (body["model"], body["version"], body["id"]) == (model, version, None)


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/v1/ensembles/nope/predict", 404, "no ensemble 'nope'; there are: other, tiny"),
        ("/v1/ensembles/tiny/versions/9/predict", 404, "no version 9 of ensemble 'tiny'; served: 1, 2"),
        ("/v1/ensembles/tiny/versions/0/predict", 400, "path.version: "),
        ("/v1/ensembles/tiny/versions/1.0/predict", 400, "path.version: expected a positive integer; got '1.0'"),
        ("/v1/ensembles/tiny/versions/%201/predict", 400, "path.version: expected a positive integer; got ' 1'"),
        ("/v1/ensembles/tiny/versions/9999999999999999999999/predict", 400, "path.version: "),
        ("/v1/ensembles/a.b/predict", 400, "path.name: "),
        ("/v1/ensembles/%2e%2e/predict", 400, "path.name: "),
    ],
)
def test_unknown_and_malformed_paths(client: Client, path: str, status: int, said: str) -> None:
    response = ask(client, path)
    assert response.status_code == status
    assert response.json()["error"].startswith(said)


@pytest.mark.parametrize("in_query", [True, False])
def test_options_in_the_query_or_in_the_body(client: Client, in_query: bool) -> None:
    if in_query:
        path = "/predict?strategy=weighted&weights=m1:3,m3:1e0&members=m3,m1&detail=members,uncertainty"
        response = ask(client, path)
    else:
        response = ask(
            client,
            strategy="weighted",
            weights={"m1": 3, "m3": 1},
            members=["m3", "m1"],
            detail=["members", "uncertainty"],
        )
    body = response.json()
    assert body["strategy"] == "weighted"
    assert body["members"] == {"m1": 0.75, "m3": 0.25}
    members = answers(ROWS, 3)[[0, 2]]
    fused = np.tensordot([0.75, 0.25], members, axes=1)
    for i, prediction in enumerate(body["predictions"]):
        np.testing.assert_allclose(prediction["probabilities"], fused[i], atol=1e-6)
        assert list(prediction["members"]) == ["m1", "m3"]
        for name, row in zip(("m1", "m3"), members[:, i], strict=True):
            np.testing.assert_allclose(prediction["members"][name]["probabilities"], row, atol=1e-6)
            assert prediction["members"][name]["label"] == CLASSES[row.argmax()]
        doubt = prediction["uncertainty"]
        entropy = -(fused[i] * np.log(fused[i])).sum()
        assert doubt["entropy"] == pytest.approx(entropy, abs=1e-5)
        assert doubt["disagreement"] == np.mean(members[:, i].argmax(axis=1) != fused[i].argmax())
        assert set(doubt) == {"entropy", "mutual_information", "disagreement", "vote_entropy", "jensen_shannon"}


def test_the_same_in_query_and_body_is_taken(client: Client) -> None:
    path = "/predict?strategy=weighted&weights=m1:1,m2:2&members=m1,m2&detail=members"
    response = ask(
        client, path, strategy="weighted", weights={"m1": 1, "m2": 2.0}, members=["m1", "m2"], detail=["members"]
    )
    assert response.status_code == 200


@pytest.mark.parametrize(
    ("query", "fields", "said"),
    [
        ("strategy=nope", {}, "strategy: expected one of average, "),
        ("strategy=", {}, "query: strategy: expected a value; got none"),
        ("strategy", {}, "query: strategy: expected a value; got none"),
        ("strategy=vote&strategy=vote", {}, "query: expected strategy once; got it twice"),
        ("Strategy=vote", {}, "query: expected no parameters but strategy, "),
        ("weights=m1:1", {}, "weights: strategy 'average' takes none"),
        ("weights=1,2,3", {}, "query: weights: expected name:number,name:number; got the string '1'"),
        ("weights=:1", {}, "query: weights: expected name:number"),
        ("weights=m1:", {}, "query: weights: expected name:number"),
        ("weights=m1:nan", {}, "query: weights: expected name:number"),
        ("weights=m1:1_0", {}, "query: weights: expected name:number"),
        ("weights=m1:%2B1", {}, "query: weights: expected name:number"),
        ("weights=m1:1,m1:1", {}, "query: weights: expected each member once; got the string 'm1' twice"),
        ("strategy=weighted&weights=m1:-1,m2:1,m3:1", {}, "weights: expected a finite number that is not negative"),
        ("strategy=weighted&weights=m1:1e999,m2:1,m3:1", {}, "weights: expected a finite number"),
        ("strategy=weighted&weights=m1:0,m2:0,m3:0", {}, "weights: expected at least one above zero"),
        ("strategy=weighted&weights=m1:1,m2:1", {}, "weights: expected a weight for each of m1, m2, m3"),
        ("members=m9", {}, "members: expected some of m1, m2, m3; got 'm9'"),
        ("members=m1,", {}, "members: expected some of m1, m2, m3; got ''"),
        ("members=m1,m1", {}, "members: expected each member once"),
        ("detail=all", {}, "query: detail: expected some of members, uncertainty, contributions; got the string 'all'"),
        ("detail=members,members", {}, "query: detail: expected each detail once"),
        ("strategy=vote", {"strategy": "median"}, "strategy: given twice, and differently"),
        ("members=m1", {"members": ["m2"]}, "members: given twice, and differently"),
        ("", {"strategy": "max", "weights": {"m1": 1}}, "weights: strategy 'max' takes none"),
        ("%FF=1", {}, "query: expected no parameters but"),
    ],
)
def test_options_that_are_refused(client: Client, query: str, fields: dict[str, Any], said: str) -> None:
    response = ask(client, f"/predict?{query}", **fields)
    assert response.status_code == 400
    body = response.json()
    assert body["error"].startswith(said)
    assert body["code"] == "invalid_input"


class TestBody:
    @pytest.mark.parametrize(
        "media_type",
        [
            "application/json",
            "APPLICATION/JSON",
            "application/json; charset=utf-8",
            'application/json;charset="UTF-8"',
        ],
    )
    def test_json(self, client: Client, media_type: str) -> None:
        response = client.post("/predict", content=b'{"instances":[[1,2,3,4]]}', headers={"Content-Type": media_type})
        assert response.status_code == 200

    @pytest.mark.parametrize(
        "headers",
        [
            {},
            {"Content-Type": "text/plain"},
            {"Content-Type": "application/jsonx"},
            {"Content-Type": "application/json; charset=utf-16"},
            {"Content-Type": "application/json; " + "a" * 5000},
            {**JSON, "Content-Encoding": "br"},
            {**JSON, "Content-Encoding": "gzip, gzip"},
            [("Content-Type", "application/json"), ("Content-Type", "text/plain")],
        ],
    )
    def test_other_media_types(self, client: Client, headers: Any) -> None:
        response = client.post("/predict", content=b'{"instances":[[1,2,3,4]]}', headers=headers)
        assert response.status_code == 415
        assert response.json()["code"] == "unsupported_media_type"

    def test_too_many_bytes(self, client: Client) -> None:
        response = client.post("/predict", content=b" " * (Bounds().max_body_bytes + 1), headers=JSON)
        assert response.status_code == 413
        assert response.json()["error"] == "body: expected at most 16777216 bytes (max_body_bytes); got 16777217"

    def test_a_length_of_many_digits(self, client: Client) -> None:
        response = client.post("/predict", content=b"{}", headers={**JSON, "Content-Length": "9" * 30})
        assert response.status_code == 413

    def test_a_length_that_is_none(self, client: Client) -> None:
        response = client.post("/predict", content=b"{}", headers={**JSON, "Content-Length": "-1"})
        assert response.status_code == 400

    def test_too_many_rows(self, client: Client) -> None:
        response = ask(client, instances=[[1, 2, 3, 4]] * (MAX_ROWS + 1))
        assert response.status_code == 413
        assert response.json()["code"] == "too_large"

    def test_malformed(self, client: Client) -> None:
        response = client.post("/predict", content=b"{", headers=JSON)
        assert response.status_code == 400
        assert set(response.json()) == {"error", "code", "request_id"}

    def test_none(self, client: Client) -> None:
        assert client.post("/predict", headers=JSON).status_code == 400


def test_a_member_that_fails(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise MemberFailed("/srv/models/tiny/2/m1.onnx: broken")

    monkeypatch.setattr(Session, "run", fail)
    response = ask(client)
    assert response.status_code == 503
    assert response.json()["code"] == "quorum_missed"
    assert response.json()["error"] == (
        "expected answers of at least 2 of 3 members; got 0 (m1: raised, m2: raised, m3: raised)"
    )


def test_an_unforeseen_error(client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def fail(*_: Any) -> None:
        raise KeyError("secret")

    monkeypatch.setattr(Session, "run", fail)
    response = client.post("/predict", json={"instances": [[1, 2, 3, 4]]}, headers={"X-Request-Id": "r-9"})
    assert response.status_code == 500
    assert response.json() == {
        "error": "internal error; the server's log says more",
        "code": "internal_error",
        "request_id": "r-9",
    }
    assert response.headers["X-Request-Id"] == "r-9"
    [record] = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.exc_info is not None
    assert json.dumps(record.getMessage()) == '"unexpected KeyError"'
