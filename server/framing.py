"""What is no request that can be told from the next one, and what is said of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum


class Stage(Enum):
    """Where in a message the parser is."""

    BETWEEN = 0
    HEAD = 1
    BODY = 2


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a connection is given up. No error of `server.errors`: it is about bytes, and no other transport has it."""

    status: int
    code: str
    message: str


NO_HTTP = Refused(400, "invalid_input", "expected HTTP/1.1; got something else")


def find_fault(headers: Sequence[tuple[bytes, bytes]], version: str) -> Refused | None:
    """What makes it uncertain, to this server or to one before it, whose the request is or where it ends."""
    names = [name for name, _ in headers]
    hosts, lengths = names.count(b"host"), names.count(b"content-length")
    if hosts > 1:
        return _invalid("Host: expected one; got several")
    if not hosts and version == "1.1":
        return _invalid("Host: expected one; got none")
    if lengths > 1:
        return _invalid("Content-Length: expected one; got several")
    if lengths and b"transfer-encoding" in names:
        return _invalid("Content-Length: expected none with Transfer-Encoding; got one")
    return None


def url_too_long(limit: int) -> Refused:
    return Refused(414, "uri_too_long", f"URL: expected at most {limit} bytes; got more")


def headers_too_large(most: int, limit: int) -> Refused:
    return Refused(431, "headers_too_large", f"headers: expected at most {most} of {limit} bytes in all; got more")


def too_late(stage: Stage, seconds: float) -> Refused:
    part = "body" if stage is Stage.BODY else "headers"
    return Refused(408, "request_timeout", f"{part}: expected all of it within {seconds:g} seconds; got less")


def _invalid(message: str) -> Refused:
    return Refused(400, "invalid_input", message)
