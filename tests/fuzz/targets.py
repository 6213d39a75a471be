"""What is fuzzed: each target takes bytes, and says in a word what became of them; anything unexpected is an error."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from random import Random
from types import TracebackType
from typing import ClassVar, Self

from starlette.datastructures import QueryParams

from server.bounds import Bounds
from server.codec.bodies import decode_predict
from server.codec.compressed import Decompressor
from server.codec.media import TYPES, Media
from server.codec.options import parse_options
from server.errors import CommitteeError, InvalidInput, InvalidRepository
from server.handmade import is_hand_made, parse_draft
from server.manifest import parse_manifest
from tests.fuzz.mutate import mutate
from tests.server.codec.specs import FOUR, GAPPY, IMAGE, TABLE, WIDE

CORPUS = Path(__file__).parent / "corpus"
LONGEST_MESSAGE = 4000


class Target(ABC):
    """Entered before the first input, left after the last one."""

    name: ClassVar[str]
    tokens: ClassVar[Sequence[bytes]] = (b",",)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def seeds(self) -> list[bytes]:
        """What is known to be worth a try, every one of which has to pass."""
        return [path.read_bytes() for path in sorted((CORPUS / self.name).iterdir())]

    def damage(self, random: Random, seeds: Sequence[bytes]) -> bytes:
        """Something made of a seed."""
        return mutate(random, random.choice(seeds), others=seeds, tokens=self.tokens)

    @abstractmethod
    def run(self, data: bytes) -> str:
        """A word for what became of it. Raises AssertionError, or whatever else the code raised."""


def _judged(exc: CommitteeError) -> str:
    """The code of an error whose message fits into an answer, or a line of the log."""
    assert len(exc.message) < LONGEST_MESSAGE, exc.message
    assert "\n" not in exc.message, exc.message
    return exc.code


class Bodies(Target):
    """The first byte chooses a media type, the second the inputs of an ensemble."""

    name = "bodies"
    tokens = (
        *(b'"instances":', b"null", b"true", b"NaN", b"Infinity", b'{"weights":{"m1":1}}', b"\\ud800", b'""', b"]]]]"),
        *(b"\x93NUMPY", b"'shape': (", b"'descr': '<f8'", b"--b\r\n", b"Content-Disposition: form-data; ", b"IHDR"),
    )
    INPUTS = ([FOUR], [GAPPY], [IMAGE], TABLE, WIDE)
    BOUNDS = Bounds(max_body_bytes=1 << 18, max_json_memory=1 << 20, max_pixels=10_000)

    def run(self, data: bytes) -> str:
        kind, inputs, body = data[:1] or b"\0", data[1:2] or b"\0", data[2:]
        type_ = (*TYPES, "gzip")[kind[0] % (len(TYPES) + 1)]
        try:
            if type_ == "gzip":
                Decompressor(body, "gzip", self.BOUNDS.max_body_bytes).read_all()
                return "gzip read"
            media = Media(type_, {"boundary": "b"} if type_.startswith("multipart") else {})
            rows = decode_predict(
                body, media, self.INPUTS[inputs[0] % len(self.INPUTS)], max_rows=8, bounds=self.BOUNDS
            ).rows
        except InvalidInput as exc:
            return _judged(exc)
        assert 1 <= len(rows) <= 8
        return "read"


class Queries(Target):
    name = "queries"
    tokens = (
        b"&",
        b"=",
        b"%00",
        b"%ff",
        b"+",
        b";",
        b"strategy=",
        b"weights=m1:",
        b"nan",
        b"inf",
        b"members=-",
        b"1e400",
    )

    def run(self, data: bytes) -> str:
        try:
            parse_options(QueryParams(data).multi_items(), where="query")
        except InvalidInput as exc:
            return _judged(exc)
        return "read"


class Manifests(Target):
    name = "manifests"
    tokens = (
        b"[[members]]\n",
        b"[[files]]\n",
        b'file = "../x"',
        b"= nan\n",
        b"= 1e999\n",
        b'"""',
        b"[" * 300,
        b"classes = ",
    )

    def run(self, data: bytes) -> str:
        try:
            if is_hand_made(data):
                parse_draft(data, where="ensemble.toml")
            else:
                parse_manifest(data, where="ensemble.toml")
        except InvalidRepository as exc:
            return _judged(exc)
        return "read"
