"""What is no request that can be told from the next one, and what is said of it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

from server.bounds import Bounds

VERSIONS = frozenset({"1.0", "1.1"})
"""The parser takes 0.9 too, of which no header can be told."""
HOST_BYTES = 300
"""Of a Host: a name has 255 at most."""

_HOST = re.compile(rb"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+)(?::[0-9]{0,5})?")
_ABSOLUTE = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*://([^/?#]*)")


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
    retry: bool = False
    """Whether the same may be answered a second later."""


NO_HTTP = Refused(400, "invalid_input", "expected HTTP/1.1; got something else")


def find_fault(headers: Sequence[tuple[bytes, bytes]], version: str, url: bytes) -> Refused | None:
    """What makes it uncertain, to this server or to one before it, whose the request is or where it ends."""
    if version not in VERSIONS:
        return NO_HTTP
    names = [name for name, _ in headers]
    hosts, lengths = names.count(b"host"), names.count(b"content-length")
    if hosts > 1:
        return _invalid("Host: expected one; got several")
    if not hosts and version == "1.1":
        return _invalid("Host: expected one; got none")
    if lengths > 1:
        return _invalid("Content-Length: expected one; got several")
    if (codings := [value for name, value in headers if name == b"transfer-encoding"]) and (
        fault := _find_coding_fault(codings, lengths, version)
    ):
        return fault
    return _find_host_fault(headers[names.index(b"host")][1], url) if hosts else None


def _find_coding_fault(codings: Sequence[bytes], lengths: int, version: str) -> Refused | None:
    """The parser takes whatever ends in chunks, and undoes no other coding."""
    if lengths:
        return _invalid("Content-Length: expected none with Transfer-Encoding; got one")
    if version == "1.0":
        return _invalid("Transfer-Encoding: expected none with HTTP/1.0; got one")
    if len(codings) > 1 or codings[0].lower() != b"chunked":
        return _invalid(f"Transfer-Encoding: expected chunked; got {b', '.join(codings)[:64].decode('latin-1')!r}")
    return None


def _find_host_fault(host: bytes, url: bytes) -> Refused | None:
    if len(host) > HOST_BYTES or not _is_host(host):
        return _invalid(f"Host: expected a name or an address; got {host[:64].decode('latin-1')!r}")
    if url[:1] != b"/" and (match := _ABSOLUTE.match(url)) and match[1].lower() != host.lower():
        return _invalid("Host: expected that of the URL; got another")
    return None


@lru_cache(maxsize=256)
def _is_host(host: bytes) -> bool:
    return _HOST.fullmatch(host) is not None


def url_too_long(bounds: Bounds) -> Refused:
    return Refused(414, "uri_too_long", f"URL: expected at most {bounds.max_url_bytes} bytes (max_url_bytes); got more")


def headers_too_large(bounds: Bounds) -> Refused:
    return Refused(
        431,
        "headers_too_large",
        f"headers: expected at most {bounds.max_headers} (max_headers) of {bounds.max_header_bytes} bytes in all "
        "(max_header_bytes); got more",
    )


def chunks_too_small(bounds: Bounds) -> Refused:
    return _invalid(
        f"body: expected chunks, framed by {bounds.max_header_bytes} bytes more than they hold at most "
        "(max_header_bytes); got more"
    )


def too_many_connections(bounds: Bounds) -> Refused:
    message = (
        f"connections: expected at most {bounds.max_connections} of a worker (max_connections); got more: try again"
    )
    return Refused(503, "overloaded", message, retry=True)


def too_late(stage: Stage, bounds: Bounds) -> Refused:
    part, name = ("body", "body_timeout") if stage is Stage.BODY else ("headers", "header_timeout")
    seconds = getattr(bounds, name)
    return Refused(408, "request_timeout", f"{part}: expected all of it within {seconds:g} seconds ({name}); got less")


def _invalid(message: str) -> Refused:
    return Refused(400, "invalid_input", message)
