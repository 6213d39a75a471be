"""Damaged requests to a server of two workers, over real sockets: on connections that are kept, and pipelined.

Most are framed well and damaged within: their head, query, or body of every kind that there is. A quarter is damaged as
bytes. Behind each few of them comes a good request, whose answer has to be right; no worker may end.
"""

import asyncio
import gzip
import io
import json
import struct
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image

from tests import tiny
from tests.fuzz.answers import read_statuses
from tests.fuzz.mutate import mutate
from tests.fuzz.requests import Requests
from tests.fuzz.targets import CORPUS, Bodies, Queries
from tests.server.processes import Server, children, running

FRAMED, RAW = 24, 24
"""Connections at once: those whose requests are framed well; and of those that are not, a new one for each."""
PIPELINED = 12
"""Requests of a batch, beside the good one at its end."""
SECONDS = 30.0
"""Within which whatever is asked is answered, or given up."""
TIMEOUT, KEEP_ALIVE = "0.5", "5"
"""Seconds that the server waits for what a damaged length promises, and for a next request that nobody will send."""
LOOK_EVERY = 2000
"""Requests after which the workers are counted."""
ROW = [1.0, 2.0, 3.0, 4.0]


@dataclass(frozen=True, slots=True)
class Seed:
    """A request that is answered well."""

    path: bytes
    type: bytes
    body: bytes
    headers: tuple[bytes, ...] = ()


def make_seeds() -> list[Seed]:
    """One of each form of a request, over each kind of inputs."""
    json_, raw = b"application/json", b"application/octet-stream"
    rows, row = {"instances": [ROW, ROW]}, np.array(ROW, "<f4").tobytes()
    told = {**rows, "strategy": "weighted", "weights": {"m1": 1, "m2": 2, "m3": 0.5}, "detail": ["members"], "id": "a"}
    tensor = {"name": "X", "shape": [1, 4], "datatype": "FP32"}
    person = {"instances": [{"age": 41, "job": "nurse"}]}
    infer = {"inputs": [{**tensor, "data": ROW}], "outputs": [{"name": "probabilities"}], "parameters": {"quorum": 2}}
    binary = json.dumps({"inputs": [{**tensor, "parameters": {"binary_data_size": 16}}]}).encode()
    people = json.dumps(
        {
            "inputs": [
                {"name": "age", "shape": [1, 1], "datatype": "FP32", "parameters": {"binary_data_size": 4}},
                {"name": "job", "shape": [1, 1], "datatype": "BYTES", "parameters": {"binary_data_size": 9}},
            ]
        }
    ).encode()
    tail = struct.pack("<fI", 41, 5) + b"nurse"
    form = b'--b\r\nContent-Disposition: form-data; name="f"; filename="a.csv"\r\n\r\n1,2,3,4\r\n--b--\r\n'
    length = b"Inference-Header-Content-Length: %d"
    packed, zipped = json.dumps(rows).encode(), (b"Content-Encoding: gzip",)
    return [
        *(Seed(b"/predict", json_, json.dumps(body).encode()) for body in (rows, told)),
        Seed(b"/v1/ensembles/tiny/versions/1/predict?strategy=vote&detail=uncertainty", json_, packed),
        Seed(b"/predict", json_, gzip.compress(packed, mtime=0), zipped),
        Seed(b"/predict", json_, zlib.compress(packed), (b"Content-Encoding: deflate",)),
        Seed(b"/predict?members=-m1", b"text/csv", b"1,2,3,4\n5,6,7,8\n", (b"Accept: application/x-npy",)),
        Seed(b"/predict", raw, row, (b"Accept: application/octet-stream", b"X-Request-Deadline-Ms: 5000")),
        Seed(b"/predict", b"application/x-npy", _npy()),
        Seed(b"/predict?strategy=max", b"multipart/form-data; boundary=b", form),
        *(
            Seed(b"/v1/ensembles/pictures/predict", b"image/" + kind, _picture(kind))
            for kind in (b"png", b"jpeg", b"webp")
        ),
        Seed(b"/v1/ensembles/people/predict", json_, json.dumps(person).encode()),
        Seed(b"/v1/ensembles/people/predict", b"text/csv", b"age,job\n41,nurse\n"),
        Seed(b"/v1/ensembles/regression/predict", json_, packed),
        Seed(b"/v2/models/tiny/infer", json_, json.dumps(infer).encode()),
        Seed(b"/v2/models/tiny.m1/infer", raw, binary + row, (length % len(binary),)),
        Seed(b"/v2/models/people/infer", raw, people + tail, (length % len(people),)),
        Seed(b"/v2/models/tiny/versions/1/infer", raw, row, (length % 0,)),
        Seed(b"/v1/models/tiny:predict", json_, packed),
        Seed(b"/v1/models/tiny/versions/1:predict", json_, b'{"inputs": [[1, 2, 3, 4]], "signature_name": ""}'),
    ]


def _npy() -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([ROW], "<f8"))
    return file.getvalue()


def _picture(kind: bytes) -> bytes:
    file = io.BytesIO()
    Image.new("L", (2, 2), 200).save(file, kind.decode())
    return file.getvalue()


@dataclass
class Storm:
    """Damages requests, and sends them. `words` counts what became of them, by status."""

    server: Server
    random: Random
    goes_on: Callable[[int], bool]
    """Told how many were answered; whether there are to be more."""
    seeds: Sequence[Seed] = field(default_factory=make_seeds)
    words: Counter[str] = field(default_factory=Counter)
    n_good: int = 0
    n_raw: int = 0
    """Of those that are counted, how many were damaged as bytes."""
    failed: bytes = b""
    """What the connection had sent whose answers are wrong."""

    def __post_init__(self) -> None:
        self._workers = children(self.server)
        self._looked = 0
        self._raws = [path.read_bytes() for path in sorted((CORPUS / Requests.name).iterdir())]
        self._queries = [path.read_bytes() for path in sorted((CORPUS / Queries.name).iterdir())]
        self._bodies = [seed.body for seed in self.seeds]
        self._good = json.dumps({"instances": [ROW]}).encode()
        expected = tiny.answers(np.array([ROW], np.float32), 3).mean(axis=0)[0]
        self._expected = expected.tolist()

    async def rage(self) -> None:
        """Until so many are answered. Raises AssertionError."""
        lanes = [asyncio.create_task(self._lane(lane, raw=lane >= FRAMED)) for lane in range(FRAMED + RAW)]
        try:
            await asyncio.gather(*lanes)
        finally:
            for lane in lanes:
                lane.cancel()
        self._look()

    async def _lane(self, lane: int, *, raw: bool) -> None:
        while self.goes_on(self.words.total()):
            streams = await asyncio.open_connection("127.0.0.1", self.server.port)
            try:
                kept = True
                while kept and self.goes_on(self.words.total()):
                    async with asyncio.timeout(SECONDS):
                        kept = await self._batch(lane, *streams, raw=raw) and not raw
            finally:
                streams[1].transport.abort()
            if self.words.total() - self._looked > LOOK_EVERY:
                self._look()

    async def _batch(self, lane: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, raw: bool) -> bool:
        """Whether the connection is kept."""
        id_ = b"good-%d-%d" % (lane, self.random.getrandbits(60))
        if raw:
            requests = [mutate(self.random, self.random.choice(self._raws), others=self._raws, tokens=Requests.tokens)]
        else:
            requests = [self._damage(self.random.choice(self.seeds)) for _ in range(PIPELINED)]
        good = _compose(b"POST", b"/predict", [b"X-Request-Id: " + id_, b"Content-Type: application/json"], self._good)
        data = b"".join(requests)
        writer.write(data + good)
        if raw:
            writer.write(b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        written, ended = b"", False
        try:
            while not ended and (raw or not self._is_answered(written, id_)):
                more = await self._read(reader)
                ended, written = not more, written + more
            self._judge(written, id_, len(requests), raw=raw)
        except Exception:
            self.failed = self.failed or data
            raise
        return not ended

    @staticmethod
    async def _read(reader: asyncio.StreamReader) -> bytes:
        try:
            return await reader.read(1 << 16)
        except ConnectionResetError:
            return b""

    @staticmethod
    def _is_answered(written: bytes, id_: bytes) -> bool:
        """Whether the last answer, to the good request, is all there: it is the only JSON that ends so."""
        at = written.find(b"x-request-id: " + id_ + b"\r\n")
        return at >= 0 and written.endswith(b"]}]}")

    def _judge(self, written: bytes, id_: bytes, n_requests: int, *, raw: bool) -> None:
        statuses = read_statuses(written)
        # Of raw ones the good request may have become a part.
        answered = not raw and b"x-request-id: " + id_ + b"\r\n" in written
        if answered:
            body = written[written.index(b"x-request-id: " + id_) :].partition(b"\r\n\r\n")[2]
            said = json.JSONDecoder().raw_decode(body.decode())[0]
            assert np.allclose(said["predictions"][0]["probabilities"], self._expected, atol=1e-5), said
            self.n_good += 1
        if not raw:
            assert statuses, "nothing was answered"
            assert len(statuses) <= n_requests + answered, statuses
            assert not answered or len(statuses) == n_requests + 1, statuses
        damaged = statuses[:-1] if answered and not raw else statuses[:1]
        self.words.update(map(str, damaged if damaged else ["closed"]))
        self.n_raw += raw

    def _look(self) -> None:
        self._looked = self.words.total()
        assert children(self.server) == self._workers, "a worker has ended"

    # ---- Damage ------------------------------------------------------------------------------------------------------

    def _damage(self, seed: Seed) -> bytes:
        """One part of it, or two; what frames it stays right."""
        random, (path, query) = self.random, seed.path.partition(b"?")[::2]
        headers, body, method = [b"Content-Type: " + seed.type, *seed.headers], seed.body, b"POST"
        for _ in range(random.choice((1, 1, 1, 2))):
            match random.choice("bbbbbbqqhpm"):
                case "b":
                    body = mutate(random, body, others=self._bodies, tokens=Bodies.tokens, most=2)
                case "q":
                    query = mutate(
                        random, query or random.choice(self._queries), others=self._queries, tokens=Queries.tokens
                    )
                case "h":
                    at = random.randrange(len(headers))
                    headers[at] = mutate(random, headers[at], others=headers, tokens=(b"gzip", b"close", b"q=1e9"))
                case "p":
                    path = b"/" + mutate(
                        random, path, others=[path], tokens=(b"%2f", b"..", b":predict", b"/versions/")
                    )
                case "m":
                    method = random.choice((b"GET", b"PUT", b"DELETE", b"PATCH", b"OPTIONS"))
        target = path + b"?" + query if query else path
        return _compose(method, _clean(target, b" #"), [_clean(header) for header in headers], body)


def _clean(part: bytes, more: bytes = b"") -> bytes:
    """Without what would frame the request otherwise than its length says."""
    return bytes(byte for byte in part if 32 <= byte < 127 and byte not in more)


def _compose(method: bytes, target: bytes, headers: Sequence[bytes], body: bytes) -> bytes:
    framing = (b"content-length", b"transfer-encoding", b"host", b"expect")
    kept = [header for header in headers if header and not header.lower().startswith(framing)]
    lines = [method + b" " + target + b" HTTP/1.1", b"Host: x", *kept, b"Content-Length: %d" % len(body)]
    return b"\r\n".join([*lines, b"", body])


@contextmanager
def serving() -> Iterator[Server]:
    """A server of two workers, and an ensemble of each kind; it has to end well, and to have logged no error."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for write in (
            tiny.write_ensemble,
            tiny.write_picture_ensemble,
            tiny.write_table_ensemble,
            tiny.write_regression,
        ):
            write(root / "models")
        limits = ("--header-timeout", TIMEOUT, "--body-timeout", TIMEOUT, "--keep-alive", KEEP_ALIVE, "--workers", "2")
        with running(root, *limits) as server:
            yield server
            assert server.stop() == 0
        wrong = [entry for entry in server.entries() if entry["level"] not in ("info", "warning")]
        assert not wrong, wrong[0]


def memory_of(server: Server) -> str:
    """The resident memory of the workers, in MiB, and the most that there was."""
    sizes = []
    for pid in sorted(children(server)):
        fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        sizes.append("/".join(str(int(fields[name].split()[0]) >> 10) for name in ("VmRSS", "VmHWM")))
    return ", ".join(sizes)
