import asyncio
from collections.abc import Iterable
from typing import Any

import pytest
from starlette.requests import Request

from server.bounds import Bounds
from server.budget import Budget, Share
from server.errors import InvalidInput, TooLarge
from server.rest.body import length_of, media_of, read_body

BOUNDS = Bounds(max_body_bytes=8)


def read(messages: Iterable[dict[str, Any]], *, length: int | None = None) -> tuple[bytes, int]:
    """The body, and how many messages were left unread."""
    left = list(messages)

    async def receive() -> dict[str, Any]:
        return left.pop(0)

    headers = [(b"content-type", b"application/json")]
    if length is not None:
        headers.append((b"content-length", b"%d" % length))
    request = Request({"type": "http", "method": "POST", "headers": headers}, receive)
    try:
        length_of(headers, BOUNDS)
        body = asyncio.run(read_body(request, BOUNDS, Share(Budget(1 << 20))))
        assert media_of(headers).type == "application/json"
    finally:
        Left.messages = len(left)
    return body, len(left)


class Left:
    messages = 0


def chunks(*parts: bytes) -> list[dict[str, Any]]:
    return [{"type": "http.request", "body": part, "more_body": True} for part in parts] + [
        {"type": "http.request", "body": b"", "more_body": False}
    ]


def test_joins_chunks() -> None:
    assert read(chunks(b"1234", b"5678")) == (b"12345678", 0)


def test_stops_at_the_limit() -> None:
    with pytest.raises(TooLarge, match=r"expected at most 8 bytes \(max_body_bytes\); got more"):
        read(chunks(b"1234", b"56789", b"never read"))
    assert Left.messages == 2


def test_refuses_a_declared_length_unread() -> None:
    with pytest.raises(TooLarge, match=r"expected at most 8 bytes \(max_body_bytes\); got 9"):
        read(chunks(b"1"), length=9)
    assert Left.messages == 2


def test_the_client_may_go() -> None:
    with pytest.raises(InvalidInput, match="closed before its end"):
        read([{"type": "http.request", "body": b"12", "more_body": True}, {"type": "http.disconnect"}])
