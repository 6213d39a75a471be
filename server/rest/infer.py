"""A request of the Open Inference Protocol from bytes to bytes, as `server.rest.exchange` has it for others."""

import asyncio
import zlib
from concurrent.futures import Executor
from time import perf_counter

from server import telemetry
from server.codec.media import JSON, RAW
from server.codec.options import join, parse_deadline
from server.engine import Engine
from server.errors import InvalidInput, UnsupportedMediaType
from server.oip.bodies import InferBody, read_infer, write_infer
from server.oip.infer import infer as ask
from server.oip.models import find_model
from server.rest.body import INLINE_BYTES, MAX_BODY_BYTES, too_large
from server.rest.exchange import Asked, parse_query
from server.rest.reply import Headers, Reply, make_reply, values_of

JSON_LENGTH = "Inference-Header-Content-Length"
_WINDOWS = {"gzip": 31, "deflate": 15}
"""What zlib calls them."""


async def infer(asked: Asked, body: bytes, engine: Engine, decoding: Executor, *, began: float) -> Reply:
    """The answer; `began`, of the loop's clock, is when the request came. Raises CommitteeError.

    What the body is, its headers need not say: clients of Triton send none, or any.
    """
    model = find_model(engine, asked.name or engine.default, asked.version)
    json_length = _parse_length(asked.headers)
    queried = parse_query(asked.query)
    deadline = parse_deadline(values_of(asked.headers, b"x-request-deadline-ms"))
    encoding = ", ".join(values_of(asked.headers, b"content-encoding")).strip().lower()

    def read(body: bytes = body) -> InferBody:
        return read_infer(_decompress(body, encoding), model, json_length=json_length)

    clock = perf_counter()
    apart = encoding or (json_length is not None and len(body) > INLINE_BYTES)
    content = await asyncio.get_running_loop().run_in_executor(decoding, read) if apart else read()
    telemetry.observe_part("decode", perf_counter() - clock)
    envelope = content.envelope
    options = envelope.options if queried is None else join(queried, envelope.options)
    at_most = min((said for said in (deadline, envelope.timeout) if said is not None), default=None)
    response = await ask(engine, content.request(model, options), at_most_ms=at_most, began=began)
    clock = perf_counter()
    answer, length = write_infer(response, envelope)
    telemetry.observe_part("encode", perf_counter() - clock)
    if length is None:
        return make_reply(answer, JSON)
    return make_reply(answer, RAW, headers={JSON_LENGTH: str(length)})


def _parse_length(headers: Headers) -> int | None:
    given = values_of(headers, JSON_LENGTH.lower().encode())
    if not given:
        return None
    if len(given) > 1 or not (given[0].isascii() and given[0].isdigit()) or len(given[0]) > 18:
        raise InvalidInput(f"{JSON_LENGTH}: expected a number of bytes, once; got {', '.join(given)[:64]!r}")
    return int(given[0])


def _decompress(body: bytes, encoding: str) -> bytes:
    """As Triton's clients may compress it. Raises UnsupportedMediaType, InvalidInput and TooLarge."""
    if encoding in ("", "identity"):
        return body
    if encoding not in _WINDOWS:
        raise UnsupportedMediaType(
            f"Content-Encoding: expected {' or '.join(_WINDOWS)}, or none; got {encoding[:64]!r}"
        )
    stream = zlib.decompressobj(_WINDOWS[encoding])
    try:
        plain = stream.decompress(body, MAX_BODY_BYTES + 1)
    except zlib.error as exc:
        raise InvalidInput(f"body: expected {encoding}, as Content-Encoding says; {exc}") from exc
    if len(plain) > MAX_BODY_BYTES:
        raise too_large()
    if not stream.eof or stream.unused_data:
        raise InvalidInput(f"body: expected one whole stream of {encoding}; got {'more' if stream.eof else 'less'}")
    return plain
