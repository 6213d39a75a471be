"""The body of a request: never more bytes than the limits, of one media type, decoded beside the event loop."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from time import perf_counter
from typing import TypeVar

from fastapi import Request
from starlette.requests import ClientDisconnect

from server import telemetry
from server.bounds import Bounds
from server.budget import Share
from server.codec.bodies import INLINE_BYTES, PredictBody, decode_predict
from server.codec.compressed import WINDOWS, Decompressor
from server.codec.media import FORM, JSON, PICTURES, Media, parse_media
from server.errors import InvalidInput, TooLarge, UnsupportedMediaType
from server.manifest import Manifest
from server.rest.reply import Headers, values_of

T = TypeVar("T")

MOST_RATIO = 1032
"""Of what deflate can make of a byte."""
INLINE_JSON_BYTES = 1 << 20
"""A thread is no help with JSON, whose parser lets no other run: but what takes much memory is read one at a time."""
IDENTITY = frozenset({"", "identity"})


async def read_body(request: Request, bounds: Bounds, share: Share) -> bytes:
    """The bytes of the body. Raises TooLarge as soon as more than the limit has come, Overloaded as `share` does."""
    clock = perf_counter()
    chunks: list[bytes] = []
    size = 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > bounds.max_body_bytes:
                raise too_large(bounds)
            share.hold(size)
            chunks.append(chunk)
    except ClientDisconnect as exc:
        raise InvalidInput("body: the connection closed before its end") from exc
    telemetry.observe_part("receive", perf_counter() - clock)
    return b"".join(chunks)


def length_of(headers: Headers, bounds: Bounds) -> int:
    """As Content-Length says, 0 if it is not there. Raises InvalidInput; TooLarge, so that it is refused unread."""
    for given in values_of(headers, b"content-length")[:1]:
        if not (given.isascii() and given.isdigit()):
            raise InvalidInput(f"Content-Length: expected a number of bytes; got {given[:64]!r}")
        if len(given) > 18 or int(given) > bounds.max_body_bytes:
            raise too_large(bounds, given[:64])
        return int(given)
    return 0


def too_large(bounds: Bounds, got: str = "more") -> TooLarge:
    """Of a body that is, or goes on, beyond the limit."""
    return TooLarge(f"body: expected at most {bounds.max_body_bytes} bytes (max_body_bytes); got {got}")


def media_of(headers: Headers) -> Media:
    """What the body is. Raises UnsupportedMediaType."""
    # Two of them are no type that there is; none is the same as an empty one.
    return parse_media(", ".join(values_of(headers, b"content-type")))


def coding_of(headers: Headers) -> str | None:
    """By what the body is compressed; None if it is not. Raises UnsupportedMediaType if that is unknown, or several."""
    encoding = ", ".join(values_of(headers, b"content-encoding"))
    if not encoding or (name := encoding.strip().lower()) in IDENTITY:
        return None
    if name not in WINDOWS:
        raise UnsupportedMediaType(f"Content-Encoding: expected gzip, deflate, or none; got {encoding[:64]!r}")
    return name


def most_of(body: bytes, bounds: Bounds) -> int:
    """Bytes that a compressed body may become."""
    return min(len(body) * MOST_RATIO, bounds.max_body_bytes)


async def decompress(decoding: Executor, body: bytes, coding: str, bounds: Bounds) -> bytes:
    """What a compressed body becomes. A long one is read in the executor. Raises InvalidInput, TooLarge."""
    stream = Decompressor(body, coding, bounds.max_body_bytes)
    if (whole := stream.read(INLINE_BYTES)) is not None:
        return whole
    return await asyncio.get_running_loop().run_in_executor(decoding, stream.read_all)


async def decode(decoding: Executor, body: bytes, media: Media, manifest: Manifest, bounds: Bounds) -> PredictBody:
    """As `decode_predict`, which it calls: in the executor if it may take long."""
    most = min(manifest.max_batch_size, bounds.max_rows)
    call = partial(decode_predict, body, media, manifest.inputs, max_rows=most, bounds=bounds)
    inline = 0 if media.type in (*PICTURES, FORM) else INLINE_JSON_BYTES if media.type == JSON else INLINE_BYTES
    return await read_in_turn(decoding, call, apart=len(body) > inline)


async def read_in_turn(decoding: Executor, call: Callable[[], T], *, apart: bool) -> T:
    """Here and now; `apart`: in the executor, whose thread reads one body at a time."""
    return await asyncio.get_running_loop().run_in_executor(decoding, call) if apart else call()
