"""What an answer says beside its probabilities: how sure it is, what each member moves, and labels left open."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from server.fusion import STACKING, STRATEGIES
from tests import tiny
from tests.server.rest.client import Client
from tests.server.rest.served import answer, ask, serve, write_faulty_stacked

ROWS = tiny.rows(6)
ANSWERS = tiny.answers(ROWS, 3)
NAMES = ["m1", "m2", "m3"]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    root = tmp_path_factory.mktemp("models")
    write_faulty_stacked(root)
    tiny.write_ensemble(root, name="alone", n_members=1)
    with serve(root, "everything") as client:
        yield client


def entropy(probabilities: NDArray[Any]) -> NDArray[np.float64]:
    logs = np.log(np.where(probabilities > 0, probabilities, 1))
    return np.asarray(-(probabilities * logs).sum(axis=-1))


def of_rows(body: dict[str, Any], key: str) -> list[Any]:
    return [row[key] for row in body["predictions"]]


def test_uncertainty(client: Client) -> None:
    """Every figure, worked out anew from the members' answers."""
    weights = np.array([0.5, 0.25, 0.25])
    body = answer(ask(client, ROWS, "strategy=weighted&weights=m1:2,m2:1,m3:1&detail=uncertainty"))
    fused = np.tensordot(weights, ANSWERS, axes=1)
    votes = ANSWERS.argmax(axis=2)
    shares = np.stack([(votes == index).mean(axis=0) for index in range(3)], axis=1)
    expected = {
        "entropy": entropy(fused),
        "mutual_information": entropy(fused) - weights @ entropy(ANSWERS),
        "disagreement": (votes != fused.argmax(axis=1)).mean(axis=0),
        "vote_entropy": entropy(shares),
        "jensen_shannon": entropy(ANSWERS.mean(axis=0)) - entropy(ANSWERS).mean(axis=0),
    }
    found = of_rows(body, "uncertainty")
    assert all(list(row) == list(expected) for row in found)
    for name, figures in expected.items():
        np.testing.assert_allclose([row[name] for row in found], figures, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("strategy", [name for name in STRATEGIES if name != STACKING])
def test_a_contribution_is_what_the_answer_would_lack_without_a_member(client: Client, strategy: str) -> None:
    query = f"strategy={strategy}"
    body = answer(ask(client, ROWS, f"{query}&detail=contributions"))
    whole = np.array(of_rows(body, "probabilities"))
    for name in NAMES:
        others = np.array(of_rows(answer(ask(client, ROWS, f"{query}&members=-{name}")), "probabilities"))
        moved = [row[name] for row in of_rows(body, "contributions")]
        np.testing.assert_allclose(moved, whole - others, atol=1e-6)
    assert all(list(row) == NAMES for row in of_rows(body, "contributions"))


def test_the_contribution_of_a_member_that_is_alone_is_all_but_chance(client: Client) -> None:
    for body in (
        answer(ask(client, ROWS, "detail=contributions", of="alone")),
        answer(ask(client, ROWS, "members=m1&detail=contributions")),
    ):
        moved = [row["m1"] for row in of_rows(body, "contributions")]
        np.testing.assert_allclose(moved, ANSWERS[0] - 1 / 3, atol=1e-6)


@pytest.mark.parametrize("least", [0, 0.5, 0.55, 0.6, 0.9, 1])
def test_a_label_is_left_open_where_the_confidence_is_lower(client: Client, least: float) -> None:
    plain = answer(ask(client, ROWS))
    body = answer(ask(client, ROWS, abstain_below=least))
    assert body["degraded"] is False
    for row, told in zip(body["predictions"], plain["predictions"], strict=True):
        assert row["label"] == (told["label"] if told["confidence"] >= least else None)
        assert {**row, "label": told["label"]} == told


def test_a_confidence_that_is_just_enough_is_enough(client: Client) -> None:
    confidence = answer(ask(client, ROWS[:1]))["predictions"][0]["confidence"]
    just = np.nextafter(np.float32(confidence), np.float32(1)).item()
    assert answer(ask(client, ROWS[:1], abstain_below=confidence))["predictions"][0]["label"] is not None
    assert answer(ask(client, ROWS[:1], abstain_below=just))["predictions"][0]["label"] is None


def test_a_members_own_label_is_never_left_open(client: Client) -> None:
    body = answer(ask(client, ROWS, "abstain_below=1&detail=members"))
    assert of_rows(body, "label") == [None] * 6
    for row, members in zip(of_rows(body, "members"), ANSWERS.transpose(1, 0, 2), strict=True):
        assert [member["label"] for member in row.values()] == [tiny.CLASSES[index] for index in members.argmax(axis=1)]


def test_a_row_has_its_details_in_one_order(client: Client) -> None:
    """Whatever the order that they are asked for in."""
    query = "strategy=cascade&detail=contributions,members,uncertainty"
    row = answer(ask(client, ROWS, query))["predictions"][0]
    assert list(row) == ["label", "confidence", "probabilities", "stage", "members", "uncertainty", "contributions"]
