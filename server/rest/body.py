"""Reading a request's body: never more bytes than the limit, of one media type, decoded beside the event loop."""

import asyncio
from functools import partial

from fastapi import Request
from starlette.requests import ClientDisconnect

from server.codec.bodies import PredictBody, decode_predict
from server.codec.media import FORM, JSON, PICTURES, Media, parse_media
from server.errors import InvalidInput, TooLarge, UnsupportedMediaType
from server.manifest import Manifest

MAX_BODY_BYTES = 16 << 20
INLINE_BYTES = 1 << 18
"""What is no longer is decoded at once, in about a millisecond; a thread would take as long to be asked."""


async def read_body(request: Request, *, limit: int = MAX_BODY_BYTES) -> tuple[bytes, Media]:
    """The bytes of the body, and what they are.

    Raises UnsupportedMediaType, and TooLarge: before anything is read if Content-Length says so, else as soon as more
    than `limit` bytes have come.
    """
    _check_length(request, limit)
    chunks: list[bytes] = []
    size = 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > limit:
                raise TooLarge(f"body: expected at most {limit} bytes; got more")
            chunks.append(chunk)
    except ClientDisconnect as exc:
        raise InvalidInput("body: the connection closed before its end") from exc
    return b"".join(chunks), _media_of(request)


async def decode(request: Request, body: bytes, media: Media, manifest: Manifest) -> PredictBody:
    """As `decode_predict`, which it calls: in a thread if it may take long."""
    call = partial(decode_predict, body, media, manifest.inputs, max_rows=manifest.max_batch_size)
    if media.type == JSON or (len(body) <= INLINE_BYTES and media.type not in (*PICTURES, FORM)):
        return call()  # a thread would be no help with JSON: its parser lets no other run
    return await asyncio.get_running_loop().run_in_executor(request.app.state.decoding, call)


def _media_of(request: Request) -> Media:
    encoding = ", ".join(request.headers.getlist("content-encoding"))
    if encoding and encoding.strip().lower() != "identity":
        raise UnsupportedMediaType(f"Content-Encoding: expected none; got {encoding[:64]!r}")
    # Two of them are no type that there is; none is the same as an empty one.
    return parse_media(", ".join(request.headers.getlist("content-type")))


def _check_length(request: Request, limit: int) -> None:
    given = request.headers.get("content-length")
    if given is None:
        return
    if not (given.isascii() and given.isdigit()):
        raise InvalidInput(f"Content-Length: expected a number of bytes; got {given[:64]!r}")
    if len(given) > 18 or int(given) > limit:
        raise TooLarge(f"body: expected at most {limit} bytes; got {given[:64]}")
