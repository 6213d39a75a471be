"""The body of a request: never more bytes than the limit, of one media type, decoded beside the event loop."""

import asyncio
from concurrent.futures import Executor
from functools import partial
from time import perf_counter

from fastapi import Request
from starlette.requests import ClientDisconnect

from server import telemetry
from server.codec.bodies import PredictBody, decode_predict
from server.codec.media import FORM, JSON, PICTURES, Media, parse_media
from server.errors import InvalidInput, TooLarge, UnsupportedMediaType
from server.manifest import Manifest
from server.rest.reply import Headers, values_of

MAX_BODY_BYTES = 16 << 20
INLINE_BYTES = 1 << 18
"""What is no longer is decoded at once, in about a millisecond; a thread would take as long to be asked."""


async def read_body(request: Request, *, limit: int = MAX_BODY_BYTES) -> bytes:
    """The bytes of the body. Raises TooLarge as soon as more than `limit` bytes have come."""
    clock = perf_counter()
    chunks: list[bytes] = []
    size = 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > limit:
                raise too_large(limit)
            chunks.append(chunk)
    except ClientDisconnect as exc:
        raise InvalidInput("body: the connection closed before its end") from exc
    telemetry.observe_part("receive", perf_counter() - clock)
    return b"".join(chunks)


def check_length(headers: Headers, limit: int = MAX_BODY_BYTES) -> None:
    """Refuse a body unread if Content-Length says that it is too long. Raises InvalidInput, TooLarge."""
    for given in values_of(headers, b"content-length")[:1]:
        if not (given.isascii() and given.isdigit()):
            raise InvalidInput(f"Content-Length: expected a number of bytes; got {given[:64]!r}")
        if len(given) > 18 or int(given) > limit:
            raise TooLarge(f"body: expected at most {limit} bytes; got {given[:64]}")


def too_large(limit: int = MAX_BODY_BYTES) -> TooLarge:
    """Of a body that goes on beyond the limit."""
    return TooLarge(f"body: expected at most {limit} bytes; got more")


def media_of(headers: Headers) -> Media:
    """What the body is. Raises UnsupportedMediaType."""
    encoding = ", ".join(values_of(headers, b"content-encoding"))
    if encoding and encoding.strip().lower() != "identity":
        raise UnsupportedMediaType(f"Content-Encoding: expected none; got {encoding[:64]!r}")
    # Two of them are no type that there is; none is the same as an empty one.
    return parse_media(", ".join(values_of(headers, b"content-type")))


async def decode(decoding: Executor, body: bytes, media: Media, manifest: Manifest) -> PredictBody:
    """As `decode_predict`, which it calls: in the executor if it may take long."""
    call = partial(decode_predict, body, media, manifest.inputs, max_rows=manifest.max_batch_size)
    if media.type == JSON or (len(body) <= INLINE_BYTES and media.type not in (*PICTURES, FORM)):
        return call()  # a thread would be no help with JSON: its parser lets no other run
    return await asyncio.get_running_loop().run_in_executor(decoding, call)
