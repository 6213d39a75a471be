"""How much memory a worker takes at most while hostile bodies are in flight: `python -m bench.memory`.

A server of one worker; of each kind of body, `CLIENTS` come at once, twice, each as long as `max_body_bytes` allows.
What counts is the worker's proportional share of memory (PSS), looked at all the while, above what it was at rest.
"""

import argparse
import gzip
import io
import itertools
import json
import socket
import struct
import sys
import tempfile
import threading
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console

from bench.peers.machine import memory_mb
from server.bounds import Bounds
from tests import tiny
from tests.server.processes import Server, children, running
from tests.server.served_http import post

CLIENTS = 24
ROUNDS = 2
LIMIT = Bounds().max_body_bytes
MOST = 12
"""Times `max_body_bytes`: what a worker may take above what it takes at rest."""
LOOK_SECONDS = 0.01
SECONDS = 120.0
PREDICT, PEOPLE, PICTURES = (f"/v1/ensembles/{name}/predict" for name in ("tiny", "people", "pictures"))
INFER = "/v2/models/tiny/infer"
JSON, RAW = "application/json", "application/octet-stream"


@dataclass(frozen=True)
class Case:
    """A request that is sent over and over."""

    path: str
    type: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()

    def request(self) -> bytes:
        return post(self.path, self.body, [("Content-Type", self.type), *self.headers], close=True)


def make_cases() -> dict[str, Case]:
    gzipped = (("Content-Encoding", "gzip"),)
    head = _infer_head()
    return {
        "JSON: rows of numbers": Case(PREDICT, JSON, _fill(b'{"instances":[', b"[1.5,2.5,3.5,4.5],", b"[1,2,3,4]]}")),
        "JSON: a row of short numbers": Case(PREDICT, JSON, _fill(b'{"instances":[[', b"1,", b"1]]}")),
        "JSON: a row of floats": Case(PREDICT, JSON, _fill(b'{"instances":[[', b".1e1,", b"1]]}")),
        "JSON: empty arrays": Case(PREDICT, JSON, _fill(b'{"instances":[', b"[],", b"[]]}")),
        "JSON: empty objects": Case(PEOPLE, JSON, _fill(b'{"instances":[', b"{},", b"{}]}")),
        "JSON: short texts": Case(PEOPLE, JSON, _fill(b'{"instances":[', b'"a",', b'""]}')),
        "JSON: one text": Case(PREDICT, JSON, _fill(b'{"id":"', b"x", b'"}')),
        "JSON: escapes": Case(PREDICT, JSON, _fill(b'{"id":"', b"\\u4e00", b'"}')),
        "JSON: keys": Case(PREDICT, JSON, _keys()),
        "JSON: blanks": Case(PREDICT, JSON, _fill(b'{"instances":[[1,2,3,4]]', b" ", b"}")),
        "JSON: deep": Case(PREDICT, JSON, _fill(b'{"instances":', b"[", b"")),
        "TensorFlow's JSON": Case(
            "/v1/models/tiny:predict", JSON, _fill(b'{"instances":[', b"[1,2,3,4],", b"[1,2,3,4]]}")
        ),
        "OIP: JSON": Case(INFER, JSON, _fill(head(4_000_000, None)[:-3] + b',"data":[', b"1,", b"1]}]}")),
        "OIP: nested JSON": Case(
            INFER, JSON, _fill(head(4_000_000, None)[:-3] + b',"data":[', b"[1,2,3,4],", b"[1,2,3,4]]}]}")
        ),
        "OIP: bytes": _binary(head),
        "OIP: nothing but bytes": Case(INFER, RAW, bytes(LIMIT), (("Inference-Header-Content-Length", "0"),)),
        "OIP: four million texts": _texts(),
        "float32": Case(PREDICT, RAW, bytes(LIMIT)),
        "npy of float64": Case(PREDICT, "application/x-npy", _npy()),
        "CSV": Case(PREDICT, "text/csv", _fill(b"", b"1,2,3,4\n", b"")),
        "CSV: commas": Case(PREDICT, "text/csv", _fill(b"", b",", b"\n")),
        "CSV: of a table": Case(PEOPLE, "text/csv", _fill(b"age,job\n", b"1,nurse\n", b"")),
        "gzip: rows": Case(
            PREDICT, JSON, gzip.compress(_fill(b'{"instances":[', b"[1,2,3,4],", b"[1,2,3,4]]}"), 1), gzipped
        ),
        "gzip: nothing else": Case(PREDICT, JSON, gzip.compress(bytes(LIMIT - 1), 9), gzipped),
        "gzip: a bomb": Case(PREDICT, JSON, gzip.compress(bytes(64 * LIMIT), 9), gzipped),
        "a picture of 12 million pixels": Case(PICTURES, "image/png", _picture("PNG", 4000, 3125)),
        "a JPEG of 12 million pixels": Case(PICTURES, "image/jpeg", _picture("JPEG", 4000, 3125, progressive=True)),
        "a WebP of 6 million pixels": Case(PICTURES, "image/webp", _picture("WEBP", 2500, 2500)),
        "a progressive JPEG of full colours": Case(
            PICTURES, "image/jpeg", _picture("JPEG", 4000, 3125, progressive=True, subsampling=0)
        ),
        "a picture with transparency": Case(PICTURES, "image/png", _picture("PNG", 4000, 3125, mode="RGBA")),
        "a picture with a palette": Case(PICTURES, "image/png", _picture("PNG", 4000, 3125, mode="P", transparency=0)),
        "a picture with a text of gigabytes": Case(PICTURES, "image/png", _with_text()),
        "pictures of a form": Case(
            PICTURES, "multipart/form-data; boundary=b", _form(_picture("PNG", 64, 64), "image/png")
        ),
        "a form of many parts": Case(
            PREDICT, "multipart/form-data; boundary=b", _fill(b"", _part(b"1,2,3,4", "text/csv"), b"--b--\r\n")
        ),
        "chunks": Case(PREDICT, JSON, bytes(LIMIT)),
        "long answers": Case(f"{PREDICT}?detail=members,contributions,uncertainty", RAW, bytes(16 * 4096)),
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.memory", description=__doc__)
    parser.add_argument("kind", nargs="?", default="", help="only the bodies whose name holds this (default: all)")
    wanted = parser.parse_args().kind
    over, say = 0, Console(soft_wrap=True, highlight=False, markup=False).print
    kinds = make_cases()
    every = {name: [case] for name, case in kinds.items()} | {"one of each": list(kinds.values())}
    cases = {name: case for name, case in every.items() if wanted in name}
    if not cases:
        parser.error(f"expected a part of one of {', '.join(every)}; got {wanted!r}")
    with tempfile.TemporaryDirectory() as folder:
        for write in (tiny.write_ensemble, tiny.write_picture_ensemble, tiny.write_table_ensemble):
            write(Path(folder) / "models", max_batch_size=4096)
        say("| bodies | answers | MiB above rest, at most | times max_body_bytes |\n|---|---|---|---|")
        for name, case in cases.items():
            with running(Path(folder), "--workers", "1") as server:
                statuses, taken = flood(server, case)
            over += taken > MOST * LIMIT
            told = ", ".join(f"{status} {count}" for status, count in sorted(statuses.items()))
            say(f"| {name} | {told} | {taken / 2**20:.0f} | {taken / LIMIT:.1f} |")
    say(f"\n{over} over {MOST} times max_body_bytes")
    return 1 if over else 0


def flood(server: Server, cases: Sequence[Case]) -> tuple[Counter[str], int]:
    """What was answered, and how many bytes the worker took at most beyond what it took at rest."""
    (worker,) = children(server)
    for case in cases:
        ask(server.port, post(case.path, b"x", [("Content-Type", case.type)], close=True))
    rest = pss(worker)
    kinds = [chunked(case) if case.type == JSON and not any(case.body[:64]) else case.request() for case in cases]
    requests = itertools.islice(itertools.cycle(kinds), ROUNDS * CLIENTS)
    with watching(worker) as most, ThreadPoolExecutor(CLIENTS) as pool:
        statuses = Counter(pool.map(lambda request: ask(server.port, request), requests))
    return statuses, most() - rest


def chunked(case: Case) -> bytes:
    """In chunks that go on beyond the limit."""
    head = f"POST {case.path} HTTP/1.1\r\nHost: x\r\nContent-Type: {case.type}\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head.encode() + (b"10000\r\n" + bytes(1 << 16) + b"\r\n") * (LIMIT >> 16) + b"1\r\nx\r\n"


def ask(port: int, request: bytes) -> str:
    """The status, or how it ended without one."""
    with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as connection:
        with suppress(BrokenPipeError, ConnectionResetError):  # it may have read enough
            connection.sendall(request)
        try:
            data = connection.recv(1 << 16)
            while connection.recv(1 << 16):
                pass
        except ConnectionResetError:
            data = b""
    return data[9:12].decode() or "none"


def pss(pid: int) -> int:
    """Bytes."""
    return int(memory_mb((pid,)) * 2**20)


@contextmanager
def watching(pid: int) -> Iterator[Callable[[], int]]:
    """Look at a process from another thread; what it yields tells the most that it has taken."""
    most, ended = [pss(pid)], threading.Event()

    def look() -> None:
        while not ended.wait(LOOK_SECONDS):
            most[0] = max(most[0], pss(pid))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield lambda: most[0]
    finally:
        ended.set()
        thread.join()


# ---- Bodies ---------------------------------------------------------------------------------------------------------


def _fill(begin: bytes, part: bytes, end: bytes) -> bytes:
    """As many parts as fit."""
    return begin + part * ((LIMIT - len(begin) - len(end)) // len(part)) + end


def _keys() -> bytes:
    return b"{" + b",".join(b'"%x":1' % number for number in range(LIMIT // 12)) + b"}"


def _infer_head() -> Callable[[int, int | None], bytes]:
    def head(n_rows: int, size: int | None) -> bytes:
        tensor = {"name": "X", "shape": [n_rows, 4], "datatype": "FP32"}
        more = {} if size is None else {"parameters": {"binary_data_size": size}}
        return json.dumps({"inputs": [{**tensor, **more}]}).encode()

    return head


def _binary(head: Callable[[int, int | None], bytes]) -> Case:
    n_rows = LIMIT // 16 - 100
    json_ = head(n_rows, 16 * n_rows)
    return Case(INFER, RAW, json_ + bytes(16 * n_rows), (("Inference-Header-Content-Length", str(len(json_))),))


def _texts() -> Case:
    n_rows = LIMIT // 4 - 1000
    tensor = {"name": "job", "shape": [n_rows, 1], "datatype": "BYTES", "parameters": {"binary_data_size": 4 * n_rows}}
    json_ = json.dumps({"inputs": [tensor]}).encode()
    headers = (("Inference-Header-Content-Length", str(len(json_))),)
    return Case("/v2/models/people/infer", RAW, json_ + bytes(4 * n_rows), headers)


def _npy() -> bytes:
    file = io.BytesIO()
    np.save(file, np.ones((LIMIT // 32 - 100, 4)))
    return file.getvalue()


def _picture(kind: str, width: int, height: int, *, mode: str = "RGB", **options: int) -> bytes:
    file = io.BytesIO()
    Image.new(mode, (width, height), 200).save(file, kind, **options)
    return file.getvalue()


def _with_text() -> bytes:
    """A picture whose compressed text would become gigabytes."""
    data = b"k\0\0" + zlib.compress(bytes(1 << 30), 9)
    chunk = struct.pack(">I", len(data)) + b"zTXt" + data + struct.pack(">I", zlib.crc32(b"zTXt" + data))
    plain = _picture("PNG", 64, 64)
    return plain[:33] + chunk + plain[33:]


def _part(data: bytes, type_: str) -> bytes:
    head = f'--b\r\nContent-Disposition: form-data; name="f"; filename="f"\r\nContent-Type: {type_}\r\n\r\n'
    return head.encode() + data + b"\r\n"


def _form(data: bytes, type_: str) -> bytes:
    return _part(data, type_) * min(4000, LIMIT // (len(data) + 200)) + b"--b--\r\n"


if __name__ == "__main__":
    sys.exit(main())
