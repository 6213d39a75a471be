"""The same rows, sent in every way there is, get the same answer to the bit, in every form there is."""

import io
import json
import struct
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from server.app import create_app
from server.codec.media import CSV, JSON, NPY, PNG, RAW, WEBP
from server.settings import Settings
from tests.server.rest.client import Client
from tests.tiny import CLASSES, people, picture_answers, table_answers, write_picture_ensemble, write_table_ensemble

PICTURE = np.array([[17, 255], [0, 128]], dtype=np.uint8)
PEOPLE = people(3)
TABLE = "/v1/ensembles/people/predict"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    root = tmp_path_factory.mktemp("models")
    write_picture_ensemble(root, max_batch_size=4)
    write_table_ensemble(root, max_batch_size=4)
    with Client(create_app(Settings(models=root, default="pictures"))) as client:
        yield client


def npy(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def picture(format_: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PICTURE).save(buffer, format_, **options)
    return buffer.getvalue()


def instances(*rows: Any) -> bytes:
    return json.dumps({"instances": rows}).encode()


def objects() -> list[dict[str, Any]]:
    ages = [None if np.isnan(age) else float(age) for age in PEOPLE["age"].ravel()]
    return [{"age": age, "job": job} for age, job in zip(ages, PEOPLE["job"].ravel(), strict=True)]


def lines() -> bytes:
    rows = (f"{row['job']},{'' if row['age'] is None else row['age']}" for row in objects())
    return "\r\n".join(["job,age", *rows]).encode()


PICTURES: dict[str, tuple[str, bytes]] = {
    "flat": (JSON, instances(PICTURE.ravel().tolist())),
    "nested": (JSON, instances(PICTURE.tolist())),
    "with its channel": (JSON, instances(PICTURE[..., None].tolist())),
    "png": (PNG, picture("PNG")),
    "webp": (WEBP, picture("WEBP", lossless=True)),
    "float32": (RAW, PICTURE.astype("<f4").tobytes()),
    "uint8": (f"{RAW}; dtype=uint8", PICTURE.tobytes()),
    "npy": (NPY, npy(PICTURE)),
    "npy of float64, unnamed": (RAW, npy(PICTURE[None, ..., None].astype(np.float64))),
    "csv": (CSV, b"17,255,0,128\n"),
}
TABLES = {"objects": (JSON, instances(*objects())), "csv": (CSV, lines())}
EXPECTED = {
    "/predict": picture_answers(PICTURE, 2).mean(axis=0),
    TABLE: table_answers(PEOPLE, 2).mean(axis=0),
}


def probabilities(response: httpx.Response) -> NDArray[np.float32]:
    assert response.status_code == 200, response.text
    match response.headers["content-type"]:
        case "application/json":
            rows = [row["probabilities"] for row in response.json()["predictions"]]
            return np.array(rows, dtype=np.float32)
        case "application/octet-stream":
            return np.frombuffer(response.content, "<f4").reshape(-1, len(CLASSES))
        case _:
            return np.asarray(np.load(io.BytesIO(response.content)))


def ways() -> Iterator[Any]:
    for path, forms in (("/predict", PICTURES), (TABLE, TABLES)):
        for name, (type_, body) in forms.items():
            yield pytest.param(path, {"headers": {"Content-Type": type_}, "content": body}, id=f"{path} {name}")
            if type_ != JSON:
                file = (f"f.{name}", body, type_.partition(";")[0])
                if name not in ("float32", "uint8"):
                    yield pytest.param(path, {"files": {"f": file}}, id=f"{path} {name} in a form")


@pytest.mark.parametrize(("path", "sent"), list(ways()))
def test_the_same_answer(client: Client, path: str, sent: dict[str, Any]) -> None:
    headers = sent.pop("headers", {})
    answers = [
        probabilities(client.post(path, **sent, headers={**headers, "Accept": accept})) for accept in (JSON, RAW, NPY)
    ]
    np.testing.assert_allclose(answers[0], EXPECTED[path], atol=1e-6)
    first = client.post(path, content=(PICTURES["flat"] if path == "/predict" else TABLES["objects"])[1],
                        headers={"Content-Type": JSON})  # fmt: skip
    for answer in answers:
        assert answer.dtype == np.float32
        assert answer.tobytes() == probabilities(first).tobytes()


def test_a_form_of_many_files_and_options(client: Client) -> None:
    files = [
        ("f", ("a.png", picture("PNG"), PNG)),
        ("f", ("b", npy(np.stack([255 - PICTURE] * 2)), RAW)),
        ("f", ("c.csv", b"17,255,0,128", "")),
    ]
    data = {"strategy": "weighted", "weights": "m1:3,m2:1", "detail": "members"}
    response = client.post("/predict", files=files, data=data)
    body = response.json()
    assert (response.status_code, body["strategy"], body["members"]) == (200, "weighted", {"m1": 0.75, "m2": 0.25})
    rows = np.stack([PICTURE, 255 - PICTURE, 255 - PICTURE, PICTURE])
    expected = np.tensordot([0.75, 0.25], picture_answers(rows, 2), axes=1)
    np.testing.assert_allclose(probabilities(response), expected, atol=1e-6)
    assert all(list(row["members"]) == ["m1", "m2"] for row in body["predictions"])


def test_the_query_speaks_for_bodies_that_cannot(client: Client) -> None:
    response = client.post("/predict?members=m2", content=picture("PNG"), headers={"Content-Type": PNG})
    assert response.json()["members"] == {"m2": 1.0}
    files = {"f": ("a.png", picture("PNG"), PNG)}
    response = client.post("/predict?strategy=max", files=files, data={"strategy": "vote"})
    assert (response.status_code, response.json()["error"]) == (400, "strategy: given twice, and differently")
    assert client.post("/predict?strategy=vote", files=files, data={"strategy": "vote"}).status_code == 200


class TestBinaryAnswers:
    def test_the_rest_is_in_headers(self, client: Client) -> None:
        body = json.dumps({"instances": [[1, 2, 3, 4]], "id": "é\r\nX: 1", "strategy": "weighted",
                           "weights": {"m1": 2, "m2": 1}}).encode()  # fmt: skip
        response = client.post("/predict", content=body, headers={"Content-Type": JSON, "Accept": NPY})
        facts = {name: value for name, value in response.headers.items() if name.startswith("committee-")}
        assert facts == {
            "committee-model": "pictures",
            "committee-version": "1",
            "committee-strategy": "weighted",
            "committee-members": "m1:0.6666667,m2:0.33333334",
            "committee-degraded": "false",
            "committee-id": "%C3%A9%0D%0AX%3A%201",
        }
        assert not [name for name in client.post("/predict", content=body, headers={"Content-Type": JSON}).headers
                    if name.startswith("committee-")]  # fmt: skip

    def test_without_an_id(self, client: Client) -> None:
        headers = {"Content-Type": PNG, "Accept": RAW}
        response = client.post("/predict", content=picture("PNG"), headers=headers)
        assert "committee-id" not in response.headers
        assert len(struct.unpack("<3f", response.content)) == 3

    def test_hold_no_details(self, client: Client) -> None:
        headers = {"Content-Type": PNG, "Accept": RAW}
        response = client.post("/predict?detail=members", content=picture("PNG"), headers=headers)
        assert response.status_code == 400
        assert response.json()["error"].startswith("detail: expected none with Accept: application/octet-stream")

    def test_none_that_is_liked(self, client: Client) -> None:
        headers = {"Content-Type": PNG, "Accept": "text/html"}
        response = client.post("/predict", content=picture("PNG"), headers=headers)
        assert response.status_code == 406
        body = response.json()
        assert body["code"] == "not_acceptable"
        assert body["error"].startswith("Accept: expected one of application/json, application/octet-stream, appl")
        assert set(body) == {"error", "code", "request_id"}


@pytest.mark.parametrize(
    ("path", "type_", "body", "status", "said"),
    [
        ("/predict", "image/gif", b"GIF89a", 415, "Content-Type: expected one of application/json, image/png, "),
        (TABLE, PNG, picture("PNG"), 415, "Content-Type: the ensemble's input is a table; expected one of application"),
        ("/predict", PNG, b"", 400, "picture: expected image/png; got bytes that do not begin like it"),
        ("/predict", WEBP, picture("PNG"), 400, "picture: expected image/webp"),
        ("/predict", RAW, b"\0" * 4, 400, "body: expected rows of 16 bytes, 4 numbers of float32 each; got 4 bytes"),
        ("/predict", f"{RAW}; dtype=uint8", bytes(20), 413, "body: expected at most 4 rows; got 5"),
        ("/predict", NPY, npy(np.full((2, 2), 256)), 400, "row 0: expected numbers from 0 to 255; number 0 is 256"),
        ("/predict", CSV, b"1,2,3,4\n" * 5, 413, "body: expected at most 4 rows; got more"),
        ("/predict", JSON, instances({"image": 1}), 400, "instances[0]: expected 4 numbers, or [2, 2], or [2, 2, 1]; "),
        (TABLE, JSON, instances([41, "cook"]), 400, "instances[0]: expected an object with the keys 'age', 'job'; got"),
        (TABLE, JSON, instances({"age": 1}), 400, "instances[0]: expected a value for column 'job'; got none"),
        (TABLE, CSV, b"age,job\n1,baker\n", 400, "line 2: column 'job': expected one of 'cook', 'nurse', 'pilot'"),
        ("/predict", "multipart/form-data", b"", 400, "Content-Type: expected multipart/form-data with its boundary"),
        ("/predict", "multipart/form-data; boundary=b", b"x", 400, "body: expected a form as the boundary divides it"),
    ],
)
def test_refused(client: Client, path: str, type_: str, body: bytes, status: int, said: str) -> None:
    response = client.post(path, content=body, headers={"Content-Type": type_})
    assert response.status_code == status
    assert response.json()["error"].startswith(said)
    assert set(response.json()) == {"error", "code", "request_id"}


def test_large_bodies_are_decoded_beside_the_event_loop(client: Client) -> None:
    """They are answered like others; what is wrong with them too."""
    long = b"1" * 300_000
    response = client.post("/predict", content=long, headers={"Content-Type": CSV})
    assert (response.status_code, response.json()["error"][:28]) == (400, "line 1: expected at most 820")
