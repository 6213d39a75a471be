"""The same request down both roads, over real sockets: the answers are the same to the byte but for their dates."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from server import telemetry
from server.app import create_app
from server.bounds import Bounds
from server.codec.media import CSV, JPEG, JSON, NPY, PNG, RAW, WEBP
from server.engine import Engine
from server.errors import Overloaded
from server.lane import PredictTurn, find_target
from server.settings import Settings
from tests import faulty, tiny
from tests.server.rest.served import write_faulty_stacked
from tests.server.served_http import Answer, Reader, Served, SlowRoad, get, parse, post, served, until

ID = "the-same-1"
PIXELS = np.array([[17, 255], [0, 128]], dtype=np.uint8)
ROW = [1, 2, 3, 4]
TYPED = {"Content-Type": JSON}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    tiny.write_ensemble(root, max_batch_size=8)
    tiny.write_ensemble(root, version=2, max_batch_size=8)
    tiny.write_picture_ensemble(root, max_batch_size=4)
    tiny.write_table_ensemble(root, max_batch_size=4)
    tiny.write_regression(root)
    write_faulty_stacked(root)
    faulty.write(root, name="strict", on_failure="fail")
    return root


@pytest.fixture(scope="module")
def roads(models: Path) -> Iterator[tuple[Served, Served]]:
    """The fast lane, and FastAPI's."""
    apps = [create_app(Settings(models=models, default="tiny", versions="all", breaker_failures=0)) for _ in range(2)]
    with served(apps[0]) as fast, served(apps[1], SlowRoad) as slow:
        yield fast, slow


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The routes of those that have taken the fast lane."""
    seen: list[str] = []
    begin = PredictTurn.begin

    def spy(turn: PredictTurn) -> None:
        seen.append(turn.route or "")
        begin(turn)

    monkeypatch.setattr(PredictTurn, "begin", spy)
    return seen


def both(roads: tuple[Served, Served], request: bytes) -> Answer:
    """The one answer of both roads, whose connections close after it."""
    answers = [parse(road.send(request)) for road in roads]
    assert answers[0] == answers[1]
    [answer] = answers[0]
    return answer


def ask(roads: tuple[Served, Served], path: str, body: bytes, headers: Any = TYPED) -> Answer:
    given = list(headers.items()) if isinstance(headers, dict) else headers
    return both(roads, post(path, body, [*given, ("X-Request-Id", ID)], close=True))


def instances(*rows: Any, **fields: Any) -> bytes:
    return json.dumps({"instances": rows, **fields}).encode()


def npy(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def picture(format_: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, format_)
    return buffer.getvalue()


def form(*parts: tuple[str, str | None, bytes]) -> bytes:
    made = b""
    for name, filename, data in parts:
        file = "" if filename is None else f'; filename="{filename}"'
        made += f'--b\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'.encode() + data + b"\r\n"
    return made + b"--b--\r\n"


FORM = "multipart/form-data; boundary=b"
PICTURES, PEOPLE = "/v1/ensembles/pictures/predict", "/v1/ensembles/people/predict"
EVERYTHING, STRICT = "/v1/ensembles/everything/predict", "/v1/ensembles/strict/predict"
WAYS = [
    ("/predict", JSON, instances(ROW)),
    ("/predict", JSON, instances(*[ROW] * 8, id="é\n1")),
    ("/predict", JSON, instances(*[ROW] * 9)),
    ("/predict", RAW, np.zeros(8, "<f4").tobytes()),
    ("/predict", f"{RAW}; dtype=uint8", bytes(8)),
    ("/predict", f"{RAW}; dtype=uint8", bytes(9)),
    ("/predict", NPY, npy(np.zeros((2, 4)))),
    ("/predict", NPY, npy(np.full((1, 4), np.nan))),
    ("/predict", RAW, npy(np.zeros((2, 4), "<f8"))),
    ("/predict", CSV, b"1,2,3,4\n5,6,7,8\n"),
    ("/predict", CSV, b"1,2,3\n"),
    ("/predict", CSV, b"1" * 300_000),
    ("/predict", PNG, picture("PNG")),
    ("/predict", FORM, form(("f", "a.npy", npy(np.zeros((2, 4)))), ("strategy", None, b"vote"))),
    ("/predict", FORM, form(("strategy", None, b"vote"))),
    ("/predict", FORM, b"x"),
    ("/predict", "multipart/form-data", b"x"),
    ("/predict", "image/gif", b"GIF89a"),
    ("/predict", "text/plain", b"x"),
    ("/predict", "application/json; charset=utf-16", b"x"),
    ("/predict", "application/json; charset=UTF-8", instances(ROW)),
    ("/predict", "é" * 200, b"x"),
    (PICTURES, PNG, picture("PNG")),
    (PICTURES, WEBP, picture("WEBP")),
    (PICTURES, JPEG, picture("JPEG")),
    (PICTURES, JPEG, picture("PNG")),
    (PICTURES, PNG, b""),
    (
        PICTURES,
        FORM,
        form(("f", "a.png", picture("PNG")), ("g", "b.png", picture("PNG")), ("detail", None, b"members")),
    ),
    (PICTURES, FORM, form(*[("f", "a.png", picture("PNG"))] * 5)),
    (PICTURES, f"{RAW}; dtype=uint8", PIXELS.tobytes()),
    (PICTURES, JSON, instances(PIXELS.tolist())),
    (PICTURES, JSON, instances([1, 2, 3, 256])),
    (PEOPLE, JSON, instances({"age": 41, "job": "nurse"}, {"job": "cook"})),
    (PEOPLE, JSON, instances({"age": 41})),
    (PEOPLE, CSV, b"job,age\nnurse,41\ncook,\n"),
    (PEOPLE, CSV, b"job,age\nbaker,41\n"),
    (PEOPLE, PNG, picture("PNG")),
    (EVERYTHING, JSON, instances([1, 2, 3, faulty.NAN])),
    (EVERYTHING, JSON, instances([1, 2, 3, faulty.RAISE])),
    (EVERYTHING, JSON, instances([1, 2, 3, faulty.RAISE], strategy="stacking")),
    (EVERYTHING, JSON, instances(ROW, strategy="cascade", cascade_threshold=0.9)),
    (STRICT, JSON, instances([1, 2, 3, faulty.RAISE])),
    ("/v1/ensembles/regression/predict?detail=members,uncertainty,contributions", JSON, instances(ROW)),
    ("/v1/ensembles/regression/predict?strategy=vote", JSON, instances(ROW)),
]


@pytest.mark.parametrize("accept", [None, NPY])
@pytest.mark.parametrize("case", range(len(WAYS)), ids=lambda i: f"{i} {WAYS[i][0]} {WAYS[i][1][:30]}")
def test_every_way_to_send_rows(roads: tuple[Served, Served], turns: list[str], case: int, accept: str | None) -> None:
    path, type_, body = WAYS[case]
    headers = {"Content-Type": type_.encode().decode("latin-1")} | ({"Accept": accept} if accept else {})
    answer = ask(roads, path, body, headers)
    assert len(turns) == 1
    assert answer.header("x-request-id") == ID
    assert answer.header("connection") == "close"
    if answer.status != 200:
        assert set(answer.json()) == {"error", "code", "request_id"}


def test_the_ways_are_good_and_bad(roads: tuple[Served, Served]) -> None:
    statuses = [ask(roads, path, body, {"Content-Type": type_.encode().decode("latin-1")}).status
                for path, type_, body in WAYS]  # fmt: skip
    found = {status: statuses.count(status) for status in sorted(set(statuses))}
    assert found == {200: 22, 400: 13, 413: 2, 415: 6, 503: 1}


OIP, OIP_PEOPLE, OIP_FAULTY = "/v2/models/tiny/infer", "/v2/models/people/infer", "/v2/models/everything/infer"
TF, TF_PEOPLE = "/v1/models/tiny:predict", "/v1/models/people:predict"
LENGTH = "Inference-Header-Content-Length"
X = np.array([ROW, ROW], dtype="<f4")


def tensor(size: int | None = None, data: Any = None, **changes: Any) -> dict[str, Any]:
    """An input `X` of two rows, whose values are behind the JSON or in it."""
    said: dict[str, Any] = {"name": "X", "shape": [2, 4], "datatype": "FP32", **changes}
    return said | ({"data": data} if size is None else {"parameters": {"binary_data_size": size}})


def infer_body(*inputs: dict[str, Any], tail: bytes | None = None, **fields: Any) -> tuple[bytes, dict[str, str]]:
    text = json.dumps({"inputs": inputs, **fields}).encode()
    return (text, {}) if tail is None else (text + tail, {LENGTH: str(len(text))})


def wanted(*names: str, **parameters: Any) -> list[dict[str, Any]]:
    return [{"name": name, "parameters": parameters} for name in names]


ROWS = X.tolist()
PERSON = tensor(name="age", shape=[1], data=[41]), tensor(name="job", shape=[1], datatype="BYTES", data=["nurse"])
ALL_BINARY = {"binary_data_output": True}
OTHERS: list[tuple[str, int, tuple[bytes, dict[str, str]]]] = [
    (OIP, 200, infer_body(tensor(data=ROWS))),
    (OIP, 200, infer_body(tensor(data=X.ravel().tolist()), id="é\n1", parameters={"strategy": "vote"})),
    (OIP, 200, infer_body(tensor(data=[ROW, ROW], datatype="INT8"), outputs=wanted("label"))),
    (OIP, 200, infer_body(tensor(32), tail=X.tobytes())),
    (OIP, 200, infer_body(tensor(32), tail=X.tobytes(), parameters=ALL_BINARY)),
    (OIP, 200, infer_body(tensor(data=ROWS), parameters=ALL_BINARY)),
    (OIP, 200, infer_body(tensor(data=ROWS), outputs=wanted("label", binary_data=True) + wanted("probabilities"))),
    (OIP, 200, infer_body(tensor(data=ROWS), outputs=wanted("probabilities", classification=2))),
    (OIP, 200, infer_body(tensor(8, datatype="UINT8"), tail=bytes(8))),
    (f"{OIP}?strategy=vote", 200, infer_body(tensor(data=ROWS))),
    (f"{OIP}?strategy=vote", 400, infer_body(tensor(data=ROWS), parameters={"strategy": "max"})),
    ("/v2/models/tiny.m1/infer", 200, infer_body(tensor(data=ROWS))),
    ("/v2/models/tiny.m1/versions/1/infer", 200, infer_body(tensor(data=ROWS))),
    ("/v2/models/tiny.m1/infer", 400, infer_body(tensor(data=ROWS), parameters={"strategy": "vote"})),
    ("/v2/models/tiny.m9/infer", 404, infer_body(tensor(data=ROWS))),
    ("/v2/models/nope/infer", 404, infer_body(tensor(data=ROWS))),
    ("/v2/models/tiny/versions/9/infer", 404, infer_body(tensor(data=ROWS))),
    ("/v2/models/regression/infer", 200, infer_body(tensor(data=ROWS))),
    (OIP, 200, (X.tobytes(), {LENGTH: "0"})),
    (OIP, 400, (X.tobytes()[:-1], {LENGTH: "0"})),
    (OIP, 400, (b"", {LENGTH: "0"})),
    (OIP, 400, (b"{}", {LENGTH: "x"})),
    (OIP, 400, (b"{}", {LENGTH: "3"})),
    (OIP, 400, (b"{}", {})),
    (OIP, 400, (b"", {})),
    (OIP, 400, infer_body(tensor(data=ROWS[:1]))),
    (OIP, 400, infer_body(tensor(data=ROWS, shape=[2, 5]))),
    (OIP, 400, infer_body(tensor(data=ROWS, datatype="BF16"))),
    (OIP, 400, infer_body(tensor(data=ROWS, name="Y"))),
    (OIP, 400, infer_body(tensor(data=[[*ROW[:3], None], ROW]))),
    (OIP, 400, infer_body(tensor(data=[ROW] * 9, shape=[9, 4]))),
    (OIP, 400, infer_body(tensor(data=ROWS), outputs=wanted("nope"))),
    (OIP, 400, infer_body(tensor(data=ROWS), parameters={"stratgy": "vote"})),
    (OIP, 400, infer_body(tensor(32))),
    (OIP, 400, infer_body(tensor(32), tail=X.tobytes()[:-1])),
    (OIP, 400, infer_body(tensor(32), tail=X.tobytes() + b"x")),
    (OIP, 400, infer_body({**tensor(0), "parameters": {"shared_memory_region": "r"}})),
    (OIP_PEOPLE, 200, infer_body(*PERSON)),
    (OIP_PEOPLE, 200, infer_body(PERSON[0], {**tensor(9), **PERSON[1], "parameters": {}})),
    (
        OIP_PEOPLE,
        200,
        infer_body(PERSON[0], tensor(9, name="job", shape=[1], datatype="BYTES"), tail=b"\5\0\0\0nurse"),
    ),
    (OIP_PEOPLE, 400, infer_body(PERSON[0])),
    (OIP_FAULTY, 200, infer_body(tensor(data=[1, 2, 3, faulty.NAN], shape=[1, 4]))),
    (OIP_FAULTY, 503, infer_body(tensor(data=[1, 2, 3, faulty.NAN], shape=[1, 4]), parameters={"on_failure": "fail"})),
    (OIP_FAULTY, 200, infer_body(tensor(data=[1, 2, 3, faulty.NAN], shape=[1, 4]), parameters=ALL_BINARY)),
    (TF, 200, (instances(ROW, ROW), {})),
    (TF, 200, (instances({"X": ROW}, signature_name="serving_default"), {})),
    (TF, 200, (json.dumps({"inputs": {"X": [ROW]}}).encode(), {})),
    (f"{TF}?strategy=vote", 200, (instances(ROW), {})),
    (f"{TF}?strategy=nope", 400, (instances(ROW), {})),
    ("/v1/models/tiny.m1/versions/1:predict", 200, (instances(ROW), {})),
    ("/v1/models/nope:predict", 404, (instances(ROW), {})),
    (TF, 400, (instances(ROW, strategy="vote"), {})),
    (TF, 400, (instances([1, 2]), {})),
    (TF, 400, (b"", {})),
    (TF, 413, (instances(*[ROW] * 9), {})),
    (TF_PEOPLE, 200, (instances({"age": [41], "job": "nurse"}), {})),
    (TF_PEOPLE, 400, (instances({"age": 41}), {})),
]


@pytest.mark.parametrize("case", range(len(OTHERS)), ids=lambda i: f"{i} {OTHERS[i][0]} {OTHERS[i][1]}")
def test_the_forms_of_other_servers(roads: tuple[Served, Served], turns: list[str], case: int) -> None:
    path, status, (body, headers) = OTHERS[case]
    answer = ask(roads, path, body, headers)
    assert len(turns) == 1
    assert answer.status == status
    if status != 200:
        assert set(answer.json()) == {"error", "code", "request_id"}


@pytest.mark.parametrize("path", [OIP, TF])
@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_other_methods_of_theirs(roads: tuple[Served, Served], turns: list[str], path: str, method: str) -> None:
    request = get(path, method=method, close=True).replace(b"Host: x", b"Host: x\r\nX-Request-Id: one")
    answers = [parse(road.send(request)) for road in roads]
    assert answers[0] == answers[1]
    assert not turns


def samples() -> dict[tuple[str, ...], float]:
    """What is counted, by its name and labels, but for how long it took."""
    telemetry.flush()
    return {
        (sample.name, *sample.labels.values()): sample.value
        for metric in telemetry.REGISTRY.collect()
        for sample in metric.samples
        if not sample.name.endswith(("_created", "_bucket", "_sum", "_seconds_total", "_timestamp_seconds"))
    }


def test_what_is_counted(roads: tuple[Served, Served]) -> None:
    requests = [
        post("/predict", instances(ROW), TYPED),
        post("/predict?strategy=vote", instances(ROW, ROW), TYPED),
        post("/v1/ensembles/tiny/versions/1/predict", instances(ROW), TYPED),
        post("/v1/ensembles/nope/predict", instances(ROW), TYPED),
        post(EVERYTHING, instances([1, 2, 3, faulty.NAN], abstain_below=1), TYPED),
        post(STRICT, instances([1, 2, 3, faulty.RAISE]), TYPED),
        post("/predict", b"", TYPED),
        post("/predict", b"", {**TYPED, "Content-Length": "99999999"}),
    ]
    counted = []
    for road in roads:
        before = samples()
        for request in requests:
            with road.connect() as connection:
                connection.sendall(request)
                Reader(connection).answer()
        until(lambda road=road: not road.connections and not road.tasks)  # type: ignore[misc]
        after = samples()
        counted.append({key: more for key, value in after.items() if (more := value - before.get(key, 0))})
    assert counted[0] == counted[1]
    assert sum(n for (name, *_), n in counted[0].items() if name == "committee_http_requests_total") == len(requests)
    assert sum(n for (name, *_), n in counted[0].items() if name == "committee_errors_total") == 4


QUERIES = [
    "", "strategy=vote", "strategy=nope", "strategy=", "strategy", "strategy=vote&strategy=vote", "Strategy=vote",
    "strategy=weighted&weights=m1:3,m2:1,m3:1e0", "weights=m1:1", "weights=:1", "weights=m1:%2B1",
    "strategy=weighted&weights=m1:1e999,m2:1,m3:1", "members=m1", "members=-m1", "members=m9", "members=m1,",
    "detail=members,uncertainty,contributions", "detail=all", "%FF=1", "strategy=m%65dian", "strategy=me+dian",
    "a=b;c=d",
    "?strategy=vote", "strategy=vote?", "&&strategy=vote&", "=vote", "strategy=vote=max", "strategy==vote",
    "quorum=2&on_failure=fail", "quorum=0", "on_failure=x", "abstain_below=1", "abstain_below=2", "deadline_ms=5000",
    "deadline_ms=0", "cascade_threshold=0.5", "strategy=cascade", "timeout=1", "strategy=%00", "/predict",
    "strategy=a/b",
    "strategy='\"<>", "strategy=|^`{}", "id=1", "members=" + "m1," * 500, "x" * 5000
]  # fmt: skip


@pytest.mark.parametrize("query", QUERIES, ids=range(len(QUERIES)))
def test_every_query(roads: tuple[Served, Served], turns: list[str], query: str) -> None:
    ask(roads, f"/predict?{query}", instances(ROW))
    assert len(turns) == 1
    ask(roads, f"/v1/ensembles/everything/versions/1/predict?{query}", instances(ROW), {**TYPED, "Accept": RAW})
    assert len(turns) == 2


BODIES = [
    b"", b"{", b"[1]", b"null", b"{}", b'{"instances": []}', b'{"instances": [[NaN,2,3,4]]}', b"\xff", b"\0",
    b'{"instances": [[1,2,3,4]]} {}', b'{"instances": [[1,2,3,4]], "instances": 1}', instances([1, 2, 3]),
    instances([1, 2, 3, "4"]), instances([1, 2, 3, None]), instances([1, 2, 3, 1e39]), instances(ROW, id="x" * 129),
    instances(ROW, id=5), instances(ROW, id=""), instances(ROW, strategy="vote", detail=["members"]),
    instances(ROW, strategy=["vote"]), instances(ROW, weights={"m1": -1}), instances(ROW, members=["m1", "m3"]),
    instances(ROW, abstain_below=0.999), instances(ROW, deadline_ms=5000), instances(ROW, quorum=300),
    instances(ROW, on_failure="fail"), instances(ROW, nope=1), instances(ROW) + b" " * 100_000,
    b'{"instances": [[1,2,3,4]], "' + b"k" * 100_000 + b'": 1}', b"[" * 100_000,
]  # fmt: skip


@pytest.mark.parametrize("body", BODIES, ids=range(len(BODIES)))
def test_every_body(roads: tuple[Served, Served], turns: list[str], body: bytes) -> None:
    ask(roads, "/predict", body)
    ask(roads, "/predict?strategy=vote", body)
    assert turns == ["/predict"] * 2


HEADERS: list[list[tuple[str, str]]] = [
    [],
    [("Content-Type", JSON), ("Content-Type", "text/plain")],
    [("Content-Type", JSON), ("Content-Encoding", "gzip")],
    [("Content-Type", JSON), ("Content-Encoding", "identity")],
    [("Content-Type", JSON), ("Content-Encoding", "identity"), ("Content-Encoding", "br")],
    [("Content-Type", JSON), ("Accept", "text/html")],
    [("Content-Type", JSON), ("Accept", "text/html"), ("Accept", "*/*;q=0.1")],
    [("Content-Type", JSON), ("Accept", "\u00e9")],
    [("Content-Type", JSON), ("Accept", RAW)],
    [("Content-Type", JSON), ("X-Request-Deadline-Ms", "5000")],
    [("Content-Type", JSON), ("X-Request-Deadline-Ms", "0")],
    [("Content-Type", JSON), ("X-Request-Deadline-Ms", "5000"), ("X-Request-Deadline-Ms", "x")],
    [("Content-Type", JSON), ("Transfer-Encoding", "chunked")],
    [("Content-Type", JSON), ("Expect", "200-ok")],
    [("Content-Type", JSON), ("Cookie", "a=b"), ("Origin", "http://evil.test"), ("Range", "bytes=0-1")],
]


@pytest.mark.parametrize("headers", HEADERS, ids=range(len(HEADERS)))
def test_every_header(roads: tuple[Served, Served], turns: list[str], headers: list[tuple[str, str]]) -> None:
    body = instances(ROW)
    if ("Transfer-Encoding", "chunked") in headers:
        body = b"5\r\n%b\r\n%x;ext=1\r\n%b\r\n0\r\nContent-Type: text/plain\r\n\r\n" % (
            body[:5],
            len(body) - 5,
            body[5:],
        )
    ask(roads, "/predict", body, headers)
    assert turns == ["/predict"]


@pytest.mark.parametrize(
    ("path", "fast"),
    [
        ("/v1/ensembles/tiny/predict", True),
        ("/v1/ensembles/tiny/versions/1/predict", True),
        ("/v1/ensembles/tiny/versions/9/predict", True),
        ("/v1/ensembles/nope/predict", True),
        ("/v1/ensembles/tiny/versions/999999999/predict", True),
        ("/v1/ensembles/tiny/versions/1000000000/predict", False),
        ("/v1/ensembles/tiny/versions/0/predict", False),
        ("/v1/ensembles/tiny/versions/01/predict", False),
        ("/v1/ensembles/tiny/versions/1.0/predict", False),
        ("/v1/ensembles/tiny/versions/%31/predict", False),
        ("/v1/ensembles/t%69ny/predict", False),
        ("/v1/ensembles/a.b/predict", False),
        ("/v1/ensembles//predict", False),
        ("/v1/ensembles/-tiny/predict", False),
        (f"/v1/ensembles/{'a' * 64}/predict", True),
        (f"/v1/ensembles/{'a' * 65}/predict", False),
        ("/predict/", False),
        ("//predict", False),
        ("/Predict", False),
        ("/predict#part", False),
        ("/predict?strategy=vote#part", False),
        ("/predict;a=b", False),
        ("/pre%64ict", False),
        ("http://x/predict", False),
        ("/nope", False),
        ("/", False),
    ],
)
def test_every_path(roads: tuple[Served, Served], turns: list[str], path: str, fast: bool) -> None:
    ask(roads, path, instances(ROW))
    assert len(turns) == fast
    assert (find_target(path.encode()) is not None) == fast


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"])
def test_other_methods(roads: tuple[Served, Served], turns: list[str], method: str) -> None:
    request = get("/predict", method=method, close=True).replace(b"Host: x", b"Host: x\r\nX-Request-Id: one")
    answers = [road.send(request) for road in roads]
    heads = [b"\r\n".join(line for line in data.split(b"\r\n") if not line.startswith(b"date:")) for data in answers]
    assert heads[0] == heads[1]
    assert heads[0].startswith(b"HTTP/1.1 405 ")
    assert heads[0].endswith(b"\r\n\r\n") == (method == "HEAD")
    assert not turns


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("connection", [None, "close", "keep-alive"])
def test_whether_the_connection_closes(roads: tuple[Served, Served], version: str, connection: str | None) -> None:
    headers = [*TYPED.items(), ("X-Request-Id", ID), *([("Connection", connection)] if connection else [])]
    last = post("/predict", instances(ROW), [*TYPED.items(), ("X-Request-Id", "last")], close=True)
    request = post("/predict", instances(ROW), headers, version=version)
    answers = [parse(road.send(request + last)) for road in roads]
    assert answers[0] == answers[1]
    assert len(answers[0]) == (2 if version == "1.1" and connection != "close" else 1)


def test_too_many_bytes(roads: tuple[Served, Served]) -> None:
    """By the length: answered unread, and the connection goes on once they have come; in chunks: it closes."""
    known = [*TYPED.items(), ("X-Request-Id", ID)]
    long = post("/predict", b" " * (Bounds().max_body_bytes + 1), known)
    answers = [parse(road.send(long + post("/predict", instances(ROW), known, close=True))) for road in roads]
    assert answers[0] == answers[1]
    assert [answer.status for answer in answers[0]] == [413, 200]


def test_a_length_of_many_digits(roads: tuple[Served, Served]) -> None:
    """More than the parser itself takes, and less."""
    for digits, code in (("9" * 30, 400), ("9" * 18, 413), ("1" * 19, 413)):
        request = post("/predict", b"", [*TYPED.items(), ("X-Request-Id", ID), ("Content-Length", digits)], close=True)
        answers = []
        for road in roads:
            with road.connect() as connection:
                connection.sendall(request)
                answers.append(Reader(connection).answer())
        assert answers[0].status == answers[1].status == code
        assert code == 400 or answers[0] == answers[1]


def test_too_many_bytes_in_chunks(roads: tuple[Served, Served]) -> None:
    headers = [*TYPED.items(), ("X-Request-Id", ID), ("Transfer-Encoding", "chunked")]
    chunk = b"100000\r\n" + b" " * (1 << 20) + b"\r\n"
    answers = []
    for road in roads:
        with road.connect() as connection:
            connection.sendall(post("/predict", chunk * 16, headers))
            connection.sendall(b"1\r\n")
            connection.sendall(b" ")
            answers += [parse(b"".join(iter(lambda c=connection: c.recv(65536), b"")))]  # type: ignore[misc]
    assert answers[0] == answers[1]
    [answer] = answers[0]
    assert (answer.status, answer.header("connection")) == (413, "close")
    assert answer.json()["error"] == "body: expected at most 16777216 bytes (max_body_bytes); got more"


@pytest.mark.parametrize("path", ["/predict", "/v2/models/tiny/infer", "/v1/models/tiny:predict"])
def test_what_is_refused_unread(roads: tuple[Served, Served], path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """During an overload: whatever the body holds."""

    def check(self: Engine) -> None:
        raise Overloaded("the server is busy: others take 3.100 s, and have for a while", retry_after=4)

    monkeypatch.setattr(Engine, "check_load", check)
    answer = ask(roads, path, b"no JSON")
    assert (answer.status, answer.header("retry-after")) == (503, "4")
    assert answer.json()["code"] == "overloaded"
