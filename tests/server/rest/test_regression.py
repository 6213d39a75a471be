"""Ensembles of a regression, end to end: values of targets, and nothing of classes."""

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from server.codec.media import CSV, NPY, RAW
from tests import tiny
from tests.server.rest.client import Client
from tests.server.rest.served import answer, ask, refusal, serve
from tests.server.test_telemetry import value

ROWS = tiny.rows(4)
ANSWERS = tiny.values(ROWS, 3, 2)
ONLY = "strategy: expected one of mean, weighted, median; got"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    root = tmp_path_factory.mktemp("models")
    tiny.write_regression(root, targets=tiny.TARGETS, max_batch_size=8)
    tiny.write_regression(root, name="single", n_members=2, default_strategy="weighted")
    with serve(root, "regression") as client:
        yield client


def values(body: dict[str, Any]) -> list[list[float]]:
    return [row["values"] for row in body["predictions"]]


def weighted(*weights: float) -> NDArray[np.float64]:
    return np.tensordot(np.array(weights) / sum(weights), ANSWERS, axes=1)


def test_the_answer_is_the_mean_of_the_members(client: Client) -> None:
    body = answer(ask(client, ROWS, id="r"))
    np.testing.assert_allclose(values(body), ANSWERS.mean(axis=0), rtol=1e-5)
    assert all(set(row) == {"values"} for row in body.pop("predictions"))
    assert body == {
        "model": "regression",
        "version": 1,
        "id": "r",
        "strategy": "mean",
        "members": dict.fromkeys(["m1", "m2", "m3"], 0.33333334),
        "degraded": False,
        "missing": [],
        "targets": tiny.TARGETS,
    }


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("strategy=mean", ANSWERS.mean(axis=0)),
        ("strategy=median", np.median(ANSWERS, axis=0)),
        ("strategy=weighted", weighted(3, 2, 1)),
        ("strategy=weighted&weights=m1:1,m2:0,m3:3", weighted(1, 0, 3)),
        ("members=-m2", ANSWERS[[0, 2]].mean(axis=0)),
        ("members=m3&strategy=weighted", ANSWERS[2]),
    ],
)
def test_by_every_strategy(client: Client, query: str, expected: NDArray[np.float64]) -> None:
    np.testing.assert_allclose(values(answer(ask(client, ROWS, query))), expected, rtol=1e-4, atol=1e-5)


def test_of_one_target(client: Client) -> None:
    body = answer(ask(client, ROWS, of="single"))
    assert (body["targets"], body["strategy"]) == (tiny.TARGETS[:1], "weighted")
    expected = np.tensordot([2 / 3, 1 / 3], tiny.values(ROWS, 2), axes=1)
    np.testing.assert_allclose(values(body), expected, rtol=1e-4)


def test_details(client: Client) -> None:
    query = "strategy=weighted&weights=m1:1,m2:1,m3:2&detail=members,uncertainty,contributions"
    body = answer(ask(client, ROWS, query))
    fused = weighted(1, 1, 2)
    spread = np.sqrt(np.tensordot([0.25, 0.25, 0.5], (ANSWERS - fused) ** 2, axes=1))
    others = {"m1": ANSWERS[1] / 3 + ANSWERS[2] * 2 / 3, "m3": ANSWERS[:2].mean(axis=0)}
    for index, row in enumerate(body["predictions"]):
        assert list(row) == ["values", "members", "uncertainty", "contributions"]
        for name, own in zip(("m1", "m2", "m3"), ANSWERS[:, index], strict=True):
            assert list(row["members"][name]) == ["values"]
            np.testing.assert_allclose(row["members"][name]["values"], own, rtol=1e-5)
        assert list(row["uncertainty"]) == ["spread"]
        np.testing.assert_allclose(row["uncertainty"]["spread"], spread[index], rtol=1e-4)
        assert list(row["contributions"]) == ["m1", "m2", "m3"]
        for name, without in others.items():
            moved = fused[index] - without[index]
            np.testing.assert_allclose(row["contributions"][name], moved, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("type_", "body"),
    [
        (CSV, "\n".join(",".join(map(str, row)) for row in ROWS.tolist()).encode()),
        (RAW, ROWS.tobytes()),
    ],
)
def test_other_ways_to_send_rows(client: Client, type_: str, body: bytes) -> None:
    response = client.post("/predict", content=body, headers={"Content-Type": type_})
    assert answer(response)["predictions"] == answer(ask(client, ROWS))["predictions"]


def test_arrays_hold_the_values(client: Client) -> None:
    expected = np.array(values(answer(ask(client, ROWS))), dtype=np.float32)
    raw, npy = (
        client.post("/predict", json={"instances": ROWS.tolist()}, headers={"Accept": accept}) for accept in (RAW, NPY)
    )
    assert np.frombuffer(raw.content, "<f4").reshape(-1, 2).tolist() == expected.tolist()
    array = np.load(io.BytesIO(npy.content))
    assert (array.dtype, array.tolist()) == (np.float32, expected.tolist())
    assert npy.headers["committee-strategy"] == "mean"


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("strategy=vote", f"{ONLY} 'vote', which is none of a regression"),
        ("strategy=average", f"{ONLY} 'average', which is none of a regression"),
        ("strategy=stacking", f"{ONLY} 'stacking', which is none of a regression"),
        ("strategy=cascade", f"{ONLY} 'cascade', which is none of a regression"),
        ("strategy=nope", f"{ONLY} 'nope'"),
        ("strategy=median&weights=m1:1,m2:1,m3:1", "weights: strategy 'median' takes none; those that do: weighted"),
        ("abstain_below=0.5", "abstain_below: expected none of a regression, whose answers have no confidence"),
        ("abstain_below=0", "abstain_below: expected none of a regression, whose answers have no confidence"),
        ("cascade_threshold=0.5", "cascade_threshold: expected none with strategy 'mean'; it is for 'cascade'"),
    ],
)
def test_what_a_regression_does_not_have(client: Client, query: str, said: str) -> None:
    assert refusal(ask(client, ROWS, query)) == (400, "invalid_input", said)


def test_it_is_described(client: Client) -> None:
    body = client.get("/v1/ensembles/regression").json()
    assert (body["task"], body["classes"], body["targets"]) == ("regression", [], tiny.TARGETS)
    assert (body["default_strategy"], body["cascade"]) == ("mean", None)
    assert {name: strategy["weights"] for name, strategy in body["strategies"].items()} == {
        "mean": "equal",
        "weighted": "fitted",
        "median": "equal",
    }
    assert body["members"][0]["weights"] == {"weighted": 3.0}


def test_rows_are_counted_and_disagreements_are_not(client: Client) -> None:
    rows = 'committee_rows_total{ensemble="regression",strategy="median",version="1"}'
    before = value(rows)
    answer(ask(client, ROWS, "strategy=median"))
    assert value(rows) == before + 4
    assert 'committee_member_disagreements_total{ensemble="regression"' not in client.get("/metrics").text
