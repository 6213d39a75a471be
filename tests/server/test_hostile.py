"""What strangers send, by kind, to a server in a process of its own: each is refused with a status that says why.

Nothing of it is answered by 5xx but for a cause, the server lives, and its memory stays what it was.
"""

import gzip
import io
import json
import os
import re
import socket
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from server.bounds import Bounds
from tests import tiny
from tests.server.served_http import RESET, Answer, get, parse, post, read_all, until

LIVE = "/v2/health/live"
PICTURES = "/v1/ensembles/pictures/predict"
TABLE = "/v1/ensembles/people/predict"
MANY = Bounds().max_body_bytes
MEMORY_MB = 12 * MANY >> 20
JSON = ("Content-Type", "application/json")
ROW = [1, 2, 3, 4]
BODY = json.dumps({"instances": [ROW]}).encode()


@dataclass(frozen=True)
class Hostile:
    port: int
    worker: int

    def send(self, data: bytes) -> list[Answer]:
        """All answers until the server closes; one that goes on reading in vain is left."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=40) as connection:
            with suppress(BrokenPipeError, ConnectionResetError):  # it may have read enough
                connection.sendall(data)
            return parse(read_all(connection))

    def memory(self, name: str = "VmRSS") -> float:
        """Megabytes."""
        status = Path(f"/proc/{self.worker}/status").read_text()
        found = re.search(rf"{name}:\s+(\d+) kB", status)
        assert found
        return int(found[1]) / 1024


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hostile]:
    root = tmp_path_factory.mktemp("models")
    tiny.write_ensemble(root)
    tiny.write_picture_ensemble(root)
    tiny.write_table_ensemble(root)
    command = [sys.executable, "-m", "server", "--port", "0", "--models", str(root), "--default", "tiny"]
    limits = [
        "--grpc-port",
        "off",
        "--workers",
        "1",
        "--header-timeout",
        "1",
        "--body-timeout",
        "1",
        "--write-timeout",
        "1",
    ]
    process = subprocess.Popen([*command, *limits], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        lines = iter(process.stderr.readline, "")
        port = next(int(m[1]) for line in lines if (m := re.search(r"listening on 127\.0\.0\.1:(\d+)", line)))
        ready = next(json.loads(line) for line in lines if "ready to serve" in line)
        yield Hostile(port, ready["pid"])
    finally:
        process.terminate()
        _, log = process.communicate(timeout=30)
    assert process.returncode == 0
    assert not [line for line in log.splitlines() if '"level": "info"' not in line], "clients fill the log"


@pytest.fixture(autouse=True)
def _alive_afterwards(server: Hostile) -> Iterator[None]:
    before = server.memory()
    yield
    [answer] = server.send(get(LIVE, close=True))
    assert answer.status == 200
    assert server.memory() - before < MEMORY_MB


def refused(answers: list[Answer], *statuses: int) -> Answer:
    """The first answer, of one of these statuses, says why in the one form that errors have."""
    assert answers, "nothing was said"
    answer = answers[0]
    assert answer.status in statuses, answer
    assert answer.json().keys() == {"error", "code", "request_id"}
    said = answer.json()["error"]
    assert 0 < len(said) < 2000
    assert not re.search(r"Traceback|/site-packages/|\.py\b|/tmp/|uvicorn|onnxruntime", said)
    return answer


def raw(*lines: str | bytes, body: bytes = b"", method: str = "POST", path: str = "/predict") -> bytes:
    """A request whose headers are as they are given."""
    encoded = [line if isinstance(line, bytes) else line.encode("latin-1") for line in lines]
    return b"\r\n".join([f"{method} {path} HTTP/1.1".encode(), *encoded, b"", body])


def ask(body: bytes | str, *headers: tuple[str, str], path: str = "/predict", type: str = JSON[1]) -> bytes:  # noqa: A002
    data = body if isinstance(body, bytes) else body.encode("utf-8", "surrogatepass")
    return post(path, data, [("Content-Type", type), *headers], close=True)


def instances(text: str, more: str = "") -> str:
    return f'{{"instances":[{text}]{more}}}'


NEXT = get("/v1/ensembles")
"""A request that must never be read out of a body."""
CHUNKS = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
FRAMING: dict[str, bytes] = {
    "length and chunks": raw("Host: x", "Content-Length: 5", "Transfer-Encoding: chunked", body=b"0\r\n\r\n" + NEXT),
    "chunks and length": raw("Host: x", "Transfer-Encoding: chunked", "Content-Length: 5", body=b"0\r\n\r\n" + NEXT),
    "two lengths": raw("Host: x", "Content-Length: 0", "Content-Length: 4", body=NEXT),
    "two equal lengths": raw("Host: x", "Content-Length: 4", "Content-Length: 4", body=b"null" + NEXT),
    "a list of lengths": raw("Host: x", "Content-Length: 4, 4", body=b"null" + NEXT),
    "a signed length": raw("Host: x", "Content-Length: +4", body=b"null" + NEXT),
    "a negative length": raw("Host: x", "Content-Length: -4", body=NEXT),
    "a length in hex": raw("Host: x", "Content-Length: 0x4", body=b"null" + NEXT),
    "a length with a gap": raw("Host: x", "Content-Length: 1 0", body=NEXT),
    "a length that overflows": raw("Host: x", f"Content-Length: {2**64}", body=NEXT),
    "a coding before a control character": raw("Host: x", b"Transfer-Encoding: \x0bchunked", body=b"0\r\n\r\n" + NEXT),
    "chunked, then another": raw("Host: x", "Transfer-Encoding: chunked, identity", body=b"0\r\n\r\n" + NEXT),
    "chunked twice": raw("Host: x", "Transfer-Encoding: chunked", "Transfer-Encoding: x", body=b"0\r\n\r\n" + NEXT),
    "nothing, then chunked": raw("Host: x", ": ".join(JSON), "Transfer-Encoding: ,chunked", body=CHUNKS + NEXT),
    "gzip, then chunked": raw("Host: x", ": ".join(JSON), "Transfer-Encoding: gzip, chunked", body=CHUNKS + NEXT),
    "chunked in two lines": raw("Host: x", ": ".join(JSON), *["Transfer-Encoding: chunked"] * 2, body=CHUNKS + NEXT),
    "chunks of HTTP/1.0": raw("Host: x", ": ".join(JSON), "Transfer-Encoding: chunked", body=CHUNKS + NEXT).replace(
        b"HTTP/1.1", b"HTTP/1.0", 1
    ),
    "a folded length": raw("Host: x", "Content-Length:\r\n 4", body=b"null" + NEXT),
    "lines without CR": raw("Host: x", "Content-Length: 4", body=b"null" + NEXT).replace(b"\r\n", b"\n"),
    "a line without CR": b"POST /predict HTTP/1.1\r\nHost: x\nContent-Length: 4\r\n\r\nnull" + NEXT,
    "a chunk whose size ends without CR": raw("Host: x", "Transfer-Encoding: chunked", body=b"4\nnull\r\n0\r\n\r\n"),
    "an extension with LF": raw("Host: x", "Transfer-Encoding: chunked", body=b"4;a\nb\r\nnull\r\n0\r\n\r\n" + NEXT),
    "a chunk of a size in C": raw("Host: x", "Transfer-Encoding: chunked", body=b"0x4\r\nnull\r\n0\r\n\r\n" + NEXT),
    "a tunnel": b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n" + NEXT,
    "a space before the colon": raw("Host: x", "Content-Length : 4", body=b"null" + NEXT),
    "a name with a space": raw("Host: x", "Content Length: 4", body=NEXT),
    "a name that is empty": raw("Host: x", ": x", body=NEXT),
    "a name with NUL": raw("Host: x", b"X\0: y", body=NEXT),
    "a value with NUL": raw("Host: x", b"X: a\0b", body=NEXT),
    "a value with a bare CR": raw("Host: x", b"X: a\rTransfer-Encoding: chunked", body=NEXT),
    "a folded line": raw("Host: x", "X: a", " Content-Length: 4", body=NEXT),
    "a folded first line": raw(" Host: x", body=NEXT),
    "a chunk of no size": raw("Host: x", "Transfer-Encoding: chunked", body=b"\r\n\r\n" + NEXT),
    "a chunk of a negative size": raw("Host: x", "Transfer-Encoding: chunked", body=b"-1\r\n\r\n" + NEXT),
    "a chunk of an endless size": raw("Host: x", "Transfer-Encoding: chunked", body=b"f" * 17 + b"\r\nx" + NEXT),
    "a chunk that is longer than it says": raw("Host: x", "Transfer-Encoding: chunked", body=b"2\r\nabcd\r\n0\r\n\r\n"),
    "a chunk without an end": raw("Host: x", "Transfer-Encoding: chunked", body=b"2\r\nab0\r\n\r\n" + NEXT),
    "extensions without an end": raw("Host: x", "Transfer-Encoding: chunked", body=b"2;" + b"x=y;" * 300_000),
    "no host": raw("Content-Length: 0"),
    "two hosts": raw("Host: x", "Host: y", "Content-Length: 0"),
    "an empty host": raw("Host: ", "Content-Length: 0"),
    "a host with a user": raw("Host: x@y", "Content-Length: 0"),
    "a host with a path": raw("Host: x/../y", "Content-Length: 0"),
    "a list of hosts": raw("Host: x, y", "Content-Length: 0"),
    "a host of 5 kB": raw(f"Host: {'x' * 5000}", "Content-Length: 0"),
    "another host in the URL": raw("Host: x", "Content-Length: 0", path="http://y/predict"),
    "no version": b"GET /\r\n\r\n",
    "a version that is none": b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
    "a tab in the first line": b"GET\t/ HTTP/1.1\r\nHost: x\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
    "a prefix of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(100),
    "small letters": b"get / http/1.1\r\nhost: x\r\n\r\n",
    "nonsense": b"\xff\xfe" * 1000,
}


@pytest.mark.parametrize("name", FRAMING)
def test_framing(server: Hostile, name: str) -> None:
    """Nothing that comes behind is read as a request."""
    answers = server.send(FRAMING[name])
    assert refused(answers, 400).header("connection") == "close"
    assert len(answers) == 1


@pytest.mark.parametrize("wish", ["h2c", "websocket", "TLS/1.0"])
def test_nobody_is_upgraded(server: Hostile, wish: str) -> None:
    """The request and the one behind it are answered as if nothing had been wished."""
    request = post(body=BODY, headers=[JSON, ("Connection", "Upgrade"), ("Upgrade", wish)])
    answers = server.send(request + get(LIVE, close=True))
    assert [answer.status for answer in answers] == [200, 200]
    assert answers[0].json()["predictions"]


@pytest.mark.parametrize("value", [3.4e38, -3.4e38])
def test_rows_that_no_member_can_answer_keep_nobody_else_from_answers(server: Hostile, value: float) -> None:
    for _ in range(10):
        refused(server.send(ask(json.dumps({"instances": [[value] * 4]}))), 503)
    for _ in range(10):
        assert server.send(ask(BODY))[0].status == 200


SIZES: dict[str, tuple[bytes, int]] = {
    "a URL": (get("/" + "x" * 10_000), 414),
    "a URL without an end": (b"GET /" + b"x" * 1_000_000, 414),
    "a query": (ask(BODY, path=f"/predict?strategy={'x' * 9000}"), 414),
    "a header": (raw("Host: x", f"X: {'x' * 70_000}"), 431),
    "a header's name": (raw("Host: x", f"{'x' * 70_000}: y"), 431),
    "a header without an end": (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 1_000_000, 431),
    "headers": (raw("Host: x", *(f"X-{i}: y" for i in range(20_000))), 431),
    "trailers": (
        raw("Host: x", "Transfer-Encoding: chunked", body=b"0\r\n" + b"".join(b"X-%d: y\r\n" % i for i in range(2000))),
        431,
    ),
    "a body": (raw("Host: x", ": ".join(JSON), f"Content-Length: {10 * MANY}"), 413),
    "a body in chunks": (
        raw(
            "Host: x",
            ": ".join(JSON),
            "Transfer-Encoding: chunked",
            body=(b"100000\r\n" + bytes(1 << 20) + b"\r\n") * 18,
        ),
        413,
    ),
    "rows": (ask(json.dumps({"instances": [ROW] * 4097})), 413),
    "empty rows": (ask(b'{"instances":[' + b"[]," * (MANY // 3 - 10) + b"[]]}"), 413),
    "keys": (ask("{" + ",".join(f'"{i}":1' for i in range(300_000)) + "}"), 413),
    "depth": (ask(b'{"a":' * 1_000_000), 413),
    "objects": (ask(b'{"instances":[' + b"{}," * (MANY // 3 - 10) + b"{}]}", path=TABLE), 413),
    "a gzip bomb": (ask(gzip.compress(bytes(10 * MANY)), ("Content-Encoding", "gzip")), 413),
    "rows of CSV": (ask(b"1,2,3,4\n" * 5000, type="text/csv"), 413),
    "rows of bytes": (ask(bytes(16 * 5000), type="application/octet-stream"), 413),
}


@pytest.mark.parametrize("name", SIZES)
def test_sizes(server: Hostile, name: str) -> None:
    data, status = SIZES[name]
    refused(server.send(data), status)


BAD_JSON: dict[str, bytes | str] = {
    "nothing": b"",
    "an array": "[[1,2,3,4]]",
    "null": "null",
    "NaN": instances("[NaN,2,3,4]"),
    "Infinity": instances("[-Infinity,2,3,4]"),
    "NaN as text": instances('["NaN",2,3,4]'),
    "a number as text": instances('["1",2,3,4]'),
    "a boolean": instances("[true,2,3,4]"),
    "null as a number": instances("[null,2,3,4]"),
    "an object as a number": instances('[{"a":1},2,3,4]'),
    "beyond float32": instances("[1e39,2,3,4]"),
    "beyond float64": instances("[1e999,2,3,4]"),
    "an integer of 400 digits": instances(f"[{'9' * 400},2,3,4]"),
    "an integer of a million digits": instances(f"[{'9' * 1_000_000},2,3,4]"),
    "a hexadecimal number": instances("[0x1,2,3,4]"),
    "a leading zero": instances("[01,2,3,4]"),
    "a plus": instances("[+1,2,3,4]"),
    "a row too short": instances("[1,2,3]"),
    "a row too long": instances("[1,2,3,4,5]"),
    "rows of two lengths": instances("[1,2,3,4],[1,2,3]"),
    "a row nested too deep": instances("[[1,2,3,4]]"),
    "no row": '{"instances":[]}',
    "rows that are none": '{"instances":"1,2,3,4"}',
    "rows twice": '{"instances":[[1,2,3,4]],"instances":[[5,6,7,8]]}',
    "rows twice, by an escape": '{"instances":[[1,2,3,4]],"inst\\u0061nces":[[5,6,7,8]]}',
    "an unknown field": instances("[1,2,3,4]", ',"__proto__":{}'),
    "a path": instances("[1,2,3,4]", ',"model_path":"/etc/passwd"'),
    "a field in capitals": '{"INSTANCES":[[1,2,3,4]]}',
    "an option twice": instances("[1,2,3,4]", ',"strategy":"vote","strategy":"max"'),
    "a weight twice": instances("[1,2,3,4]", ',"strategy":"weighted","weights":{"m1":1,"m1":2,"m2":1,"m3":1}'),
    "weights of NaN": instances("[1,2,3,4]", ',"strategy":"weighted","weights":{"m1":NaN,"m2":1,"m3":1}'),
    "weights below 0": instances("[1,2,3,4]", ',"strategy":"weighted","weights":{"m1":-1,"m2":1,"m3":1}'),
    "weights of 0": instances("[1,2,3,4]", ',"strategy":"weighted","weights":{"m1":0,"m2":0,"m3":0}'),
    "weights as text": instances("[1,2,3,4]", ',"strategy":"weighted","weights":{"m1":"1","m2":1,"m3":1}'),
    "weights of null": instances("[1,2,3,4]", ',"strategy":"weighted","weights":{"m1":null,"m2":1,"m3":1}'),
    "weights as an array": instances("[1,2,3,4]", ',"strategy":"weighted","weights":[1,1,1]'),
    "a strategy of another type": instances("[1,2,3,4]", ',"strategy":["vote"]'),
    "a strategy of a megabyte": instances("[1,2,3,4]", f',"strategy":"{"s" * 1_000_000}"'),
    "a strategy with NUL": instances("[1,2,3,4]", ',"strategy":"vote\\u0000"'),
    "a strategy with a template": instances("[1,2,3,4]", ',"strategy":"{{7*7}}${7*7}%s%n"'),
    "members that are none": instances("[1,2,3,4]", ',"members":["m9"]'),
    "a member twice": instances("[1,2,3,4]", ',"members":["m1","m1"]'),
    "no members": instances("[1,2,3,4]", ',"members":[]'),
    "a deadline of 0": instances("[1,2,3,4]", ',"deadline_ms":0'),
    "a deadline of true": instances("[1,2,3,4]", ',"deadline_ms":true'),
    "a quorum of 1.0": instances("[1,2,3,4]", ',"quorum":1.0'),
    "an id that is a number": instances("[1,2,3,4]", ',"id":5'),
    "an id too long": instances("[1,2,3,4]", f',"id":"{"i" * 129}"'),
    "half a surrogate": instances("[1,2,3,4]", ',"id":"\\ud800"'),
    "bytes that are no UTF-8": b'{"instances":[[1,2,3,4]],"id":"\xff"}',
    "a byte order mark": b"\xef\xbb\xbf" + BODY,
    "UTF-16": BODY.decode().encode("utf-16"),
    "a comment": '{"instances":[[1,2,3,4]]}// x',
    "a comma too many": '{"instances":[[1,2,3,4],]}',
    "cut short": BODY[:-1],
    "more behind": BODY + b"{}",
    "NUL behind": BODY + b"\0",
    "17 deep": '{"instances":' + "[" * 17 + "]" * 17 + "}",
    "100,000 deep": '{"instances":' + "[" * 100_000,
    "100,000 objects deep": '{"a":' * 100_000,
    "a string without an end": b'{"instances":"' + b"x" * 1_000_000,
    "3,000 keys": "{" + ",".join(f'"{i}":1' for i in range(3000)) + "}",
}


@pytest.mark.parametrize("name", BAD_JSON)
def test_json(server: Hostile, name: str) -> None:
    refused(server.send(ask(BAD_JSON[name])), 400)


QUERIES = [
    *("strategy=vote&strategy=max", "strategy=vote&strategy=vote", "strategy=", "strategy=%00", "strategy=vote%00"),
    *(
        "=",
        "x=1",
        "Strategy=vote",
        "strategy[]=vote",
        "strategy=%ff",
        "weights=nan,1",
        "weights=m1:inf",
        "weights=m1:-1",
    ),
    *("strategy=weighted&weights=m1:1,m1:2", "members=m1,m1", "members=m1,-m2", "members=%2e%2e", "quorum=01"),
    *("deadline_ms=1e999", "deadline_ms=NaN", "abstain_below=2", "detail=all", "on_failure=maybe", "strategy=vote;x=1"),
    "weights=" + ",".join(f"m{i}:1" for i in range(1000)),
]


@pytest.mark.parametrize("query", QUERIES, ids=[query[:30] for query in QUERIES])
def test_queries(server: Hostile, query: str) -> None:
    refused(server.send(ask(BODY, path=f"/predict?{query}")), 400)


def test_what_query_and_body_say_differently(server: Hostile) -> None:
    body = instances("[1,2,3,4]", ',"strategy":"max"')
    refused(server.send(ask(body, path="/predict?strategy=vote")), 400)


@pytest.mark.parametrize("name", ["X-Request-Deadline-Ms", "X-Request-Timeout-Ms"])
@pytest.mark.parametrize("value", ["abc", "-1", "0", "nan", "1e999", "5s", "", "1,2"])
def test_deadlines(server: Hostile, name: str, value: str) -> None:
    refused(server.send(ask(BODY, (name, value))), 400)


@pytest.mark.parametrize(
    "type_",
    [
        *("", "text/plain", "application/xml", "application/json; charset=utf-16", "application/json; charset=bogus"),
        *("application/x-www-form-urlencoded", "*/*", "application/json, text/csv", "application/x-python-pickle"),
        *("image/svg+xml", "image/gif", "image/tiff", "x" * 5000, "application/" + "a;" * 3000, "application/json\x80"),
    ],
)
def test_media_types(server: Hostile, type_: str) -> None:
    began = time.monotonic()
    refused(server.send(ask(BODY, type=type_)), 415)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("coding", ["compress", "br", "zstd", "gzip, gzip", "gzip;q=1", "x" * 1000])
def test_codings(server: Hostile, coding: str) -> None:
    refused(server.send(ask(zlib.compress(BODY), ("Content-Encoding", coding))), 415)


GZIPPED = {
    "plain": BODY,
    "zlib": zlib.compress(BODY),
    "cut short": gzip.compress(BODY)[:-4],
    "a wrong sum": gzip.compress(BODY)[:-8] + bytes(8),
    "two members": gzip.compress(BODY) + gzip.compress(BODY),
    "more behind": gzip.compress(BODY) + b"x",
    "of gzip": gzip.compress(gzip.compress(BODY)),
    "nothing": b"",
}


@pytest.mark.parametrize("name", GZIPPED)
def test_gzip(server: Hostile, name: str) -> None:
    refused(server.send(ask(GZIPPED[name], ("Content-Encoding", "gzip"))), 400)


def npy(header: str, data: bytes = bytes(16), *, version: int = 1, size: int | None = None) -> bytes:
    text = header.encode("latin-1") + b"\n"
    return (
        b"\x93NUMPY" + bytes([version, 0]) + (len(text) if size is None else size).to_bytes(2, "little") + text + data
    )


def dtype(descr: str, shape: str = "(1, 4)", order: str = "False") -> str:
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}"


NPY = {
    "a pickle": npy(dtype("'|O'"), b"\x80\x04cos\nsystem\n(S'true'\ntR."),
    "code in the header": npy("__import__('os').system('true')"),
    "code in the shape": npy(dtype("'<f4'", "(1, __import__('os').getpid())")),
    "a structure": npy(dtype("[('a', '<f4')]")),
    "text": npy(dtype("'<U4'")),
    "booleans": npy(dtype("'|b1'"), bytes(4)),
    "complex numbers": npy(dtype("'<c8'")),
    "dates": npy(dtype("'<M8[s]'")),
    "a shape that overflows": npy(dtype("'<f4'", f"({2**32}, {2**32})")),
    "a shape whose product is 0": npy(dtype("'<f4'", "(0, 4)"), b""),
    "a shape without a comma": npy(dtype("'<f4'", "(1 4,)")),
    "a shape of 4,000 digits": npy(dtype("'<f4'", f"({'9' * 3900},)")),
    "a negative shape": npy(dtype("'<f4'", "(-1, 4)")),
    "a shape of a thousand": npy(dtype("'<f4'", "(" + "1, " * 1000 + ")")),
    "data that are missing": npy(dtype("'<f4'"), bytes(15)),
    "data too many": npy(dtype("'<f4'"), bytes(17)),
    "a header that is longer than the file": npy(dtype("'<f4'"), size=60_000),
    "a header of another version": npy(dtype("'<f4'"), version=9),
    "a header cut short": b"\x93NUMPY\x01",
    "NaN": npy(dtype("'<f4'"), np.full(4, np.nan, "<f4").tobytes()),
    "infinity": npy(dtype("'<f8'"), np.full(4, np.inf, "<f8").tobytes()),
    "beyond float32": npy(dtype("'<f8'"), np.full(4, 1e300, "<f8").tobytes()),
}


@pytest.mark.parametrize("name", NPY)
def test_npy(server: Hostile, name: str) -> None:
    refused(server.send(ask(NPY[name], type="application/x-npy")), 400)


def picture(format_: str, size: tuple[int, int] = (2, 2), **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", size).save(buffer, format_, **options)
    return buffer.getvalue()


def claiming(width: int, height: int) -> bytes:
    """A PNG of 2 by 2 pixels whose header says that it is larger."""
    data = bytearray(picture("PNG"))
    data[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


BAD_PICTURES: dict[str, tuple[bytes, str, int]] = {
    "a bomb": (picture("PNG", (6000, 6000)), "image/png", 413),
    "a claim of a bomb": (claiming(60_000, 60_000), "image/png", 413),
    "a claim of 2³¹ pixels a side": (claiming(2**31 - 1, 1), "image/png", 413),
    "a claim of a few more": (claiming(3, 3), "image/png", 400),
    "no pixels": (claiming(0, 0), "image/png", 400),
    "scans": (
        picture("JPEG", (64, 64), progressive=True).replace(b"\xff\xd9", b"\xff\xda\0\x08" * 60 + b"\xff\xd9"),
        "image/jpeg",
        413,
    ),
    "cut short": (picture("PNG")[:-26], "image/png", 400),
    "another type": (picture("PNG"), "image/jpeg", 400),
    "a gif": (picture("GIF"), "image/png", 400),
    "a pdf": (b"%PDF-1.4\n" * 100, "image/png", 400),
    "postscript": (b"%!PS-Adobe\n(r) file\n" * 100, "image/png", 400),
    "nothing": (b"", "image/webp", 400),
    "a frame of nothing": (b"RIFF\xff\xff\xff\xffWEBPVP8X\n\0\0\0" + bytes(10), "image/webp", 400),
}


@pytest.mark.parametrize("name", BAD_PICTURES)
def test_pictures(server: Hostile, name: str) -> None:
    data, type_, status = BAD_PICTURES[name]
    refused(server.send(ask(data, type=type_, path=PICTURES)), status)


CSV: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "/predict"),
    "a header line": (b"a,b,c,d\n1,2,3,4\n", "/predict"),
    "a field too few": (b"1,2,3\n", "/predict"),
    "NaN": (b"nan,2,3,4\n", "/predict"),
    "a formula": (b"=1+1,2,3,4\n", "/predict"),
    "an integer of 400 digits": (b"9" * 400 + b",2,3,4\n", "/predict"),
    "an integer of 5,000 digits": (b"-" + b"9" * 5000 + b",2,3,4\n", "/predict"),
    "a quote without an end": (b'"1,2,3,4\n' * 1000, "/predict"),
    "a field of a megabyte": (b"1" * 1_000_000 + b",2,3,4\n", "/predict"),
    "a million fields": (b"1," * 1_000_000, "/predict"),
    "bytes that are no UTF-8": (b"\xff,2,3,4\n", "/predict"),
    "NUL": (b"1\0,2,3,4\n", "/predict"),
    "an unknown column": (b"age,evil\n1,2\n", TABLE),
    "a column twice": (b"age,age\n1,2\n", TABLE),
    "fields too many": (b"age,job\n" + b"41,nurse,x\n", TABLE),
    "another category": (b"age,job\n41,hacker\n", TABLE),
    "another domain": (b"age,job\n999,nurse\n", TABLE),
}


@pytest.mark.parametrize("name", CSV)
def test_csv(server: Hostile, name: str) -> None:
    data, path = CSV[name]
    refused(server.send(ask(data, type="text/csv", path=path)), 400)


def part(head: str, data: bytes = b"1,2,3,4\n") -> bytes:
    return b"--b\r\n" + head.encode("latin-1") + b"\r\n\r\n" + data + b"\r\n"


FILE = 'Content-Disposition: form-data; name="f"; filename="rows.csv"'
FORMS: dict[str, bytes] = {
    "nothing": b"",
    "no file": part('Content-Disposition: form-data; name="strategy"', b"vote") + b"--b--\r\n",
    "no end": part(FILE),
    "no name": part("Content-Disposition: form-data") + b"--b--\r\n",
    "another disposition": part('Content-Disposition: attachment; filename="rows.csv"') + b"--b--\r\n",
    "a disposition twice": part(f"{FILE}\r\n{FILE}") + b"--b--\r\n",
    "an encoding": part(f"{FILE}\r\nContent-Transfer-Encoding: base64") + b"--b--\r\n",
    "an unknown option": part(FILE) + part('Content-Disposition: form-data; name="x"', b"y") + b"--b--\r\n",
    "an option twice": part(FILE) + part('Content-Disposition: form-data; name="strategy"', b"max") * 2 + b"--b--\r\n",
    "a name with NUL": part('Content-Disposition: form-data; name="f\0"; filename="a/../../etc/passwd"') + b"--b--\r\n",
    "a file that is none": part(FILE.replace(".csv", ".exe"), b"MZ" + bytes(100)) + b"--b--\r\n",
}


@pytest.mark.parametrize("name", FORMS)
def test_forms(server: Hostile, name: str) -> None:
    refused(server.send(ask(FORMS[name], type="multipart/form-data; boundary=b")), 400)


@pytest.mark.parametrize(
    ("type_", "status"),
    [("multipart/form-data", 400), ("multipart/form-data; boundary=", 415), ("multipart/mixed", 415)],
)
def test_boundaries(server: Hostile, type_: str, status: int) -> None:
    refused(server.send(ask(part(FILE) + b"--b--\r\n", type=type_)), status, 400)


def test_too_many_parts(server: Hostile) -> None:
    refused(server.send(ask(part(FILE) * 9000 + b"--b--\r\n", type="multipart/form-data; boundary=b")), 413)


TABLES = {
    "a row that is none": "[41]",
    "an unknown column": '{"age":41,"job":"nurse","evil":1}',
    "a column twice": '{"age":41,"age":42,"job":"nurse"}',
    "text as a number": '{"age":"41","job":"nurse"}',
    "a number as text": '{"age":41,"job":5}',
    "text of 5 kB": f'{{"age":41,"job":"{"x" * 5000}"}}',
    "another category": '{"age":41,"job":"\\u0000nurse"}',
    "NaN": '{"age":NaN,"job":"nurse"}',
}


@pytest.mark.parametrize("name", TABLES)
def test_tables(server: Hostile, name: str) -> None:
    refused(server.send(ask(instances(TABLES[name]), path=TABLE)), 400)


@pytest.mark.parametrize(
    ("path", "statuses"),
    [
        ("/v1/ensembles/ghost/predict", (404,)),
        ("/v1/ensembles/../predict", (400, 404)),
        ("/v1/ensembles/..%2f..%2fetc%2fpasswd/predict", (400, 404)),
        ("/v1/ensembles/tiny%00/predict", (400, 404)),
        ("/v1/ensembles/tiny/versions/0/predict", (400, 404)),
        ("/v1/ensembles/tiny/versions/-1/predict", (400, 404)),
        (f"/v1/ensembles/tiny/versions/{'9' * 5000}/predict", (400, 404)),
        ("/v1/ensembles/" + "a" * 65 + "/predict", (400, 404)),
        ("/predict/", (404,)),
        ("//predict", (404,)),
        ("/predict%2f", (404,)),
        ("/.git/config", (404, 405)),
    ],
)
def test_paths(server: Hostile, path: str, statuses: tuple[int, ...]) -> None:
    refused(server.send(ask(BODY, path=path)), *statuses)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "TRACE", "OPTIONS", "PROPFIND"])
def test_methods(server: Hostile, method: str) -> None:
    """Nothing is echoed, and no other origin is let in."""
    [answer] = server.send(
        get("/predict", method=method, close=True).replace(b"\r\n\r\n", b"\r\nOrigin: http://evil\r\n\r\n")
    )
    assert answer.status == 405
    assert answer.header("allow") == "POST"
    assert b"evil" not in answer.body
    assert not [name for name, _ in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize("id_", ["x" * 129, "a b", "a\x80", "<script>", "a;b", ""])
def test_ids_are_not_echoed(server: Hostile, id_: str) -> None:
    [answer] = server.send(ask(BODY, ("X-Request-Id", id_)))
    assert answer.status == 200
    assert answer.header("x-request-id") != id_


@pytest.mark.parametrize(
    "data", [b"", b"P", b"POST /predict HTTP/1.1\r\nHost: x\r\n", post(body=BODY)[:-1], b"\r\n" * 1000]
)
def test_those_who_stop_sending(server: Hostile, data: bytes) -> None:
    began = time.monotonic()
    answers = server.send(data)
    assert [answer.status for answer in answers] in ([], [408])
    assert time.monotonic() - began < 20


def test_those_who_send_a_byte_a_time(server: Hostile) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(raw("Host: x", ": ".join(JSON), "Content-Length: 100000"))
        began = time.monotonic()
        connection.settimeout(0.1)
        said = b""
        while not said and time.monotonic() - began < 20:
            connection.send(b" ")
            try:
                said = connection.recv(65536)
            except TimeoutError:
                continue
        assert said.startswith(b"HTTP/1.1 408 ")


def test_those_who_read_nothing(server: Hostile) -> None:
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", server.port))
        body = json.dumps({"instances": [ROW] * 4096, "detail": ["members", "contributions"]}).encode()
        connection.setblocking(False)
        data, gone = post(body=body) * 40, False
        began = time.monotonic()
        while not gone and time.monotonic() - began < 30:
            try:
                data = data[connection.send(data) :] or data
            except BlockingIOError:
                time.sleep(0.05)
            except (BrokenPipeError, ConnectionResetError):
                gone = True
        assert gone


def test_many_large_bodies_at_once(server: Hostile) -> None:
    """Some are told to come again; memory stays under twelve bodies."""
    if not os.access(f"/proc/{server.worker}/clear_refs", os.W_OK):
        pytest.skip("the peak of memory cannot be reset")
    Path(f"/proc/{server.worker}/clear_refs").write_text("5")
    before = server.memory()
    data = post(body=BODY + b" " * (MANY - len(BODY)))

    def status() -> int:
        with socket.create_connection(("127.0.0.1", server.port), timeout=40) as connection:
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(data)
            return int(connection.recv(65536)[9:12])

    with ThreadPoolExecutor(12) as pool:
        statuses = {future.result() for future in [pool.submit(status) for _ in range(12)]}
    assert statuses <= {200, 503, 408}
    assert server.memory("VmHWM") - before < MEMORY_MB


def test_whoever_goes_at_once(server: Hostile) -> None:
    for data in (b"", b"GET", post(body=BODY), post(body=BODY)[:-1], get(LIVE)):
        for _ in range(50):
            with socket.create_connection(("127.0.0.1", server.port)) as connection:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                connection.sendall(data)
    until(lambda: server.send(get(LIVE, close=True))[0].status == 200)
