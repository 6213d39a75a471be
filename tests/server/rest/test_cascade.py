"""A cascade asks the members of a stage only for the rows that those before were not sure of."""

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests import faulty, tiny
from tests.faulty import NAN
from tests.server.rest.client import Client
from tests.server.rest.served import SOON, answer, ask, refusal, serve

ROWS = tiny.rows(8, seed=2)
ANSWERS = tiny.answers(ROWS, 3)
ALONE, TOGETHER = ANSWERS[0], ANSWERS.mean(axis=0)
THRESHOLD = 0.8


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """Cascades whose member m3 can fail: it alone is asked first, last, or beside another."""
    root = tmp_path_factory.mktemp("models")
    tiny.write_cascade(root)
    tiny.write_cascade(root, name="agreeing", cascade=tiny.cascade(["m1", "m2"], ["m3"], measure="agreement"))
    tiny.write_cascade(root, name="weighted", cascade=tiny.cascade(["m1"], ["m2", "m3"], strategy="weighted"))
    for name, stages in {
        "first": (["m3"], ["m1", "m2"]),
        "last": (["m1", "m2"], ["m3"]),
        "beside": (["m1", "m3"], ["m2"]),
        "three": (["m1"], ["m3"], ["m2"]),
    }.items():
        faulty.write(root, name=name, cascade=tiny.cascade(*stages), default_strategy="cascade")
    with serve(root, "cascade") as client:
        yield client


def expected(threshold: float) -> tuple[list[int], NDArray[np.float32]]:
    """Of each row the stage and the answer."""
    sure = ALONE.max(axis=1) >= threshold
    return np.where(sure, 1, 2).tolist(), np.where(sure[:, None], ALONE, TOGETHER)


def probabilities(body: dict[str, Any]) -> list[list[float]]:
    return [row["probabilities"] for row in body["predictions"]]


def stages(body: dict[str, Any]) -> list[int]:
    return [row["stage"] for row in body["predictions"]]


@pytest.mark.parametrize("threshold", [0, 0.4, 0.7, 0.77, 0.9, 1])
def test_a_row_stops_where_it_is_sure_enough(client: Client, threshold: float) -> None:
    body = answer(ask(client, ROWS, cascade_threshold=threshold))
    of_rows, fused = expected(threshold)
    assert (body["strategy"], stages(body)) == ("cascade", of_rows)
    np.testing.assert_allclose(probabilities(body), fused, atol=1e-6)
    assert [row["label"] for row in body["predictions"]] == [tiny.CLASSES[label] for label in fused.argmax(axis=1)]


def test_the_manifest_says_how_sure_if_the_request_does_not(client: Client) -> None:
    body = answer(ask(client, ROWS))
    of_rows, fused = expected(THRESHOLD)
    assert stages(body) == of_rows == [1, 2, 2, 2, 2, 2, 2, 2]
    np.testing.assert_allclose(probabilities(body), fused, atol=1e-6)
    assert body["members"] == dict.fromkeys(["m1", "m2", "m3"], 0.33333334)


def test_a_row_tells_of_those_that_were_asked_for_it(client: Client) -> None:
    body = answer(ask(client, ROWS, "detail=members,uncertainty,contributions"))
    for row, members in zip(body["predictions"], ANSWERS.transpose(1, 0, 2), strict=True):
        asked = ["m1"] if row["stage"] == 1 else ["m1", "m2", "m3"]
        assert list(row["members"]) == list(row["contributions"]) == asked
        said = [member["probabilities"] for member in row["members"].values()]
        np.testing.assert_allclose(said, members[: len(asked)], atol=1e-6)
        if row["stage"] == 1:
            assert row["uncertainty"]["mutual_information"] == row["uncertainty"]["disagreement"] == 0
            moved = np.array(row["probabilities"]) - 1 / 3
            np.testing.assert_allclose(row["contributions"]["m1"], moved, atol=1e-6)


def test_where_all_rows_stop_early_the_later_members_have_no_part(client: Client) -> None:
    body = answer(ask(client, ROWS, "cascade_threshold=0"))
    assert body["members"] == {"m1": 1.0}
    assert stages(body) == [1] * 8


def test_stages_whose_members_are_left_out_are_none(client: Client) -> None:
    body = answer(ask(client, ROWS[1:], "members=-m2"))
    assert (stages(body), list(body["members"])) == ([2] * 7, ["m1", "m3"])
    np.testing.assert_allclose(probabilities(body), ANSWERS[[0, 2], 1:].mean(axis=0), atol=1e-6)


@pytest.mark.parametrize(("query", "chosen"), [("members=m1", [0]), ("members=-m1", [1, 2])])
def test_a_cascade_of_one_stage_is_just_its_strategy(client: Client, query: str, chosen: list[int]) -> None:
    body = answer(ask(client, ROWS, query))
    assert (body["strategy"], list(body["members"])) == ("cascade", [f"m{index + 1}" for index in chosen])
    np.testing.assert_allclose(probabilities(body), ANSWERS[chosen].mean(axis=0), atol=1e-6)
    assert all("stage" not in row for row in body["predictions"])


def test_agreement_is_another_way_to_be_sure(client: Client) -> None:
    body = answer(ask(client, ROWS, of="agreeing"))
    agree = ANSWERS[0].argmax(axis=1) == ANSWERS[1].argmax(axis=1)
    assert stages(body) == np.where(agree, 1, 2).tolist()
    assert len(set(stages(body))) == 2


def test_a_requests_weights_are_for_the_strategy_of_the_stages(client: Client) -> None:
    query = "cascade_threshold=1&weights=m1:1,m2:1,m3:2"
    body = answer(ask(client, ROWS, query, of="weighted"))
    assert body["members"] == {"m1": 0.25, "m2": 0.25, "m3": 0.5}
    weighted = np.tensordot([0.25, 0.25, 0.5], ANSWERS, axes=1)
    np.testing.assert_allclose(probabilities(body), weighted, atol=1e-6)


def test_another_strategy_asks_all_at_once(client: Client) -> None:
    body = answer(ask(client, ROWS, "strategy=average"))
    np.testing.assert_allclose(probabilities(body), TOGETHER, atol=1e-6)
    assert all("stage" not in row for row in body["predictions"])


def test_arrays_hold_the_same(client: Client) -> None:
    response = client.post("/predict", json={"instances": ROWS.tolist()}, headers={"Accept": "application/x-npy"})
    assert (response.status_code, response.headers["committee-strategy"]) == (200, "cascade")
    body = answer(ask(client, ROWS))
    assert np.load(io.BytesIO(response.content)).tolist() == np.array(probabilities(body), dtype=np.float32).tolist()


def test_it_is_described(client: Client) -> None:
    body = client.get("/v1/ensembles/weighted").json()
    assert body["cascade"] == {
        "strategy": "weighted",
        "measure": "confidence",
        "tolerance": None,
        "stages": [{"members": ["m1"], "threshold": 0.8}, {"members": ["m2", "m3"], "threshold": 0.8}],
    }
    assert body["default_strategy"] == "cascade"
    assert body["strategies"]["cascade"] == {
        "summary": "Members in stages, cheap ones first: a row goes on to the next only while its answer is not sure "
        "enough.",
        "weights": "fitted",
        "calibrated": False,
    }


# With a member that fails ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("of", "of_rows"), [("first", [2, 2]), ("last", [1, 1]), ("beside", [1, 2])])
def test_the_answers_that_there_are_stand(client: Client, of: str, of_rows: list[int]) -> None:
    """The first row asks m3 to fail; m1 is sure of it, and m2 as sure of another class."""
    rows = faulty.rows(2, NAN, seed=2)
    body = answer(ask(client, rows, "detail=members", of=of))
    assert (body["degraded"], body["missing"], body["reasons"]) == (True, ["m3"], {"m3": "invalid"})
    assert (stages(body), body["members"]) == (of_rows, {"m1": 0.5, "m2": 0.5})
    of_members = tiny.answers(rows, 2)
    for index, row in enumerate(body["predictions"]):
        chosen = [int(name[1]) - 1 for name in row["members"]]
        np.testing.assert_allclose(row["probabilities"], of_members[chosen, index].mean(axis=0), atol=1e-6)


@pytest.mark.parametrize(("of", "query"), [("last", "cascade_threshold=0&"), ("three", "")])
def test_a_member_that_no_row_needs_may_be_broken(client: Client, of: str, query: str) -> None:
    body = answer(ask(client, faulty.rows(1, NAN), f"{query}on_failure=fail", of=of))
    assert (body["degraded"], body["missing"], stages(body)) == (False, [], [1])


@pytest.mark.parametrize(
    ("of", "query", "said"),
    [
        ("first", "on_failure=fail", "at least 1 of 1 members; got 0"),
        ("beside", "on_failure=fail", "at least 2 of 2 members; got 1"),
        ("last", "on_failure=fail", "at least 3 of 3 members; got 2"),
        ("last", "quorum=3", "at least 3 of 3 members; got 2"),
        ("first", "members=m3", "at least 1 of 1 members; got 0"),
    ],
)
def test_too_few_answers(client: Client, of: str, query: str, said: str) -> None:
    response = ask(client, faulty.rows(2, NAN), query, of=of)
    assert refusal(response) == (503, "quorum_missed", f"expected answers of {said} (m3: invalid)")


def test_a_stage_that_is_late_leaves_the_answers_so_far(client: Client) -> None:
    body = answer(ask(client, faulty.rows(2, faulty.HANG), f"deadline_ms={SOON}", of="last"))
    assert (stages(body), body["missing"], body["degraded"]) == ([1, 1], ["m3"], True)
