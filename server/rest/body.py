"""Reading a request's body: the right media type, and never more bytes than the limit."""

import re

from fastapi import Request
from starlette.requests import ClientDisconnect

from server.errors import InvalidInput, TooLarge, UnsupportedMediaType

MAX_BODY_BYTES = 16 << 20

_JSON = re.compile(r'application/json[ \t]*(;[ \t]*charset="?utf-8"?[ \t]*)?', re.IGNORECASE)


async def read_json(request: Request, *, limit: int = MAX_BODY_BYTES) -> bytes:
    """The bytes of a JSON body.

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
    _check_media_type(request)
    return b"".join(chunks)


def _check_media_type(request: Request) -> None:
    given = request.headers.getlist("content-type")
    if len(given) != 1 or not _JSON.fullmatch(given[0].strip()):
        came = repr(", ".join(given)[:64]) if given else "none"
        raise UnsupportedMediaType(f"Content-Type: expected application/json; got {came}")
    encoding = ", ".join(request.headers.getlist("content-encoding"))
    if encoding and encoding.strip().lower() != "identity":
        raise UnsupportedMediaType(f"Content-Encoding: expected none; got {encoding[:64]!r}")


def _check_length(request: Request, limit: int) -> None:
    given = request.headers.get("content-length")
    if given is None:
        return
    if not (given.isascii() and given.isdigit()):
        raise InvalidInput(f"Content-Length: expected a number of bytes; got {given[:64]!r}")
    if len(given) > 18 or int(given) > limit:
        raise TooLarge(f"body: expected at most {limit} bytes; got {given[:64]}")
