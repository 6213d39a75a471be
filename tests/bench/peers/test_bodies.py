"""Requests in the forms of the servers, and answers of theirs."""

import json
from pathlib import Path

import numpy as np
import pytest

from bench.peers import bodies
from bench.peers.bodies import JSON, OIP_HEADER, RAW, Request, WrongAnswer
from bench.peers.cells import parse

ANSWER = np.array([[0.25, 0.75], [0.5, 0.5]], dtype=np.float32)


def test_rows_are_pixels_and_the_same_each_time() -> None:
    x = bodies.rows(40)
    assert x.shape == (40, 784)
    assert (x.min(), x.max()) == (0, 255)
    assert np.array_equal(x, x.round())
    assert np.array_equal(x, bodies.rows(40))
    assert len({row.tobytes() for row in x}) > 35  # shifts at random, and two may fall together


def test_each_form_carries_the_same_numbers() -> None:
    cell, binary = parse("json2@8"), parse("binary2@8")
    batch = bodies.batches(cell)[3]
    assert batch.shape == (2, 784)
    for form, key in (("committee", "instances"), ("plain", "instances")):
        said = json.loads(bodies.request(form, cell, batch).body)
        assert np.array_equal(said[key], batch)
        assert np.array_equal(np.frombuffer(bodies.request(form, binary, batch).body, np.float32), batch.ravel())
    (tensor,) = json.loads(bodies.request("oip", cell, batch).body)["inputs"]
    assert tensor["shape"] == [2, 784]
    assert np.array_equal(tensor["data"], batch.ravel())
    asked = bodies.request("oip", binary, batch)
    head = int(asked.headers[OIP_HEADER])
    assert json.loads(asked.body[:head])["inputs"][0]["parameters"]["binary_data_size"] == batch.nbytes
    assert np.array_equal(np.frombuffer(asked.body[head:], np.float32), batch.ravel())


def test_digits_are_long_and_still_in_the_domain() -> None:
    cell = parse("digits1@64")
    batch = bodies.batches(cell)[0]
    assert batch.min() >= 0
    assert batch.max() <= 255
    body = bodies.request("plain", cell, batch).body
    assert len(body) > 2 * len(bodies.request("plain", parse("json1@64"), bodies.rows(1)).body)
    assert np.array_equal(np.array(json.loads(body)["instances"], dtype=np.float32), batch)


def test_mixed_ones_ask_every_strategy() -> None:
    cell = parse("mixed1@64")
    paths = {bodies.request("committee", cell, bodies.rows(1), k).path for k in range(bodies.BODIES)}
    assert paths == {f"/predict?strategy={strategy}" for strategy in bodies.STRATEGIES}


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"content-type": JSON}, json.dumps({"predictions": [{"probabilities": row} for row in ANSWER.tolist()]})),
        ({"content-type": JSON}, json.dumps({"probabilities": ANSWER.tolist()})),
        ({"content-type": JSON}, json.dumps(ANSWER.tolist())),
        ({"content-type": JSON}, json.dumps({"outputs": [{"data": ANSWER.ravel().tolist()}]})),
        ({"content-type": RAW}, ANSWER.tobytes()),
        ({"content-type": RAW, OIP_HEADER: "2"}, b"{}" + ANSWER.tobytes()),
    ],
)
def test_an_answer_is_read_in_whatever_form(headers: dict[str, str], body: str | bytes) -> None:
    got = bodies.answer(headers, body.encode() if isinstance(body, str) else body)
    assert bodies.check(got, ANSWER, "here") == 0


def test_wrong_answers_are_told() -> None:
    with pytest.raises(WrongAnswer, match=r"naive, json1@8: an answer lies 0.01 from the right one"):
        bodies.check(ANSWER + np.float32(0.01), ANSWER, "naive, json1@8")
    with pytest.raises(WrongAnswer, match="expected 4 probabilities, got 2"):
        bodies.check(ANSWER[:1], ANSWER, "here")
    with pytest.raises(WrongAnswer, match="nan"):
        bodies.check(ANSWER * np.float32(np.nan), ANSWER, "here")


def test_the_script_is_told_of_every_body(tmp_path: Path) -> None:
    index = bodies.write([Request("/a", {"Content-Type": JSON}, b"1"), Request("/b", {}, b"2")], tmp_path / "new")
    first, second = index.read_text().splitlines()
    path, file, *headers = first.split("\t")
    assert (path, headers, Path(file).read_bytes()) == ("/a", ["Content-Type", JSON], b"1")
    assert second.split("\t")[0] == "/b"
