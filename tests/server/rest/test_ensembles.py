import pytest

from server.fusion import STACKING, STRATEGIES
from tests.server.rest.client import Client
from tests.server.rest.conftest import MAX_ROWS, REPORT
from tests.tiny import CLASSES


def test_list(client: Client) -> None:
    response = client.get("/v1/ensembles")
    assert response.status_code == 200
    assert response.json() == {
        "default": "tiny",
        "ensembles": [
            {"name": "other", "versions": [1], "description": "linear members for tests"},
            {"name": "tiny", "versions": [1, 2], "description": "linear members for tests"},
        ],
    }


def test_describe(client: Client) -> None:
    body = client.get("/v1/ensembles/tiny").json()
    assert (body["name"], body["version"], body["versions"]) == ("tiny", 2, [1, 2])
    assert body["classes"] == CLASSES
    assert body["inputs"] == [
        {
            "name": "X",
            "datatype": "FP32",
            "shape": [4],
            "low": None,
            "high": None,
            "missing": False,
            "categories": None,
            "unknown": "refuse",
        }
    ]
    assert body["max_batch_size"] == MAX_ROWS
    assert body["default_strategy"] == "average"
    assert (body["task"], body["targets"], body["cascade"]) == ("classification", [], None)
    assert (body["on_failure"], body["quorum"]) == ("degrade", None)
    assert list(body["strategies"]) == [name for name in STRATEGIES if name != STACKING]
    assert body["strategies"]["weighted"]["weights"] == "fitted"
    assert body["strategies"]["median"]["weights"] == "equal"
    assert body["strategies"]["log_linear"]["calibrated"] is True
    assert body["strategies"]["vote"]["summary"].startswith("Each member votes")
    assert body["members"][1] == {
        "name": "m2",
        "framework": "hand",
        "weights": {"weighted": 2.0, "log_linear": 2.0},
        "temperature": 1.5,
        "cost_us": 1.0,
    }
    assert body["report"] == REPORT


def test_a_version_without_a_report(client: Client) -> None:
    body = client.get("/v1/ensembles/tiny/versions/1").json()
    assert (body["version"], body["report"]) == (1, None)


@pytest.mark.parametrize(
    ("path", "status"), [("nope", 404), ("tiny/versions/3", 404), ("tiny/versions/x", 400), ("a%20b", 400)]
)
def test_what_is_not_there(client: Client, path: str, status: int) -> None:
    response = client.get(f"/v1/ensembles/{path}")
    assert response.status_code == status
    assert set(response.json()) == {"error", "code", "request_id"}
