"""An answer as it goes out, whichever road the request has come by."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from starlette.responses import Response

Headers = Sequence[tuple[bytes, bytes]]
"""Of a request or an answer, names in lower case, in their order."""


@dataclass(slots=True)  # not frozen: that takes three times as long to make
class Reply:
    """All but what the connection adds: its date, the request's id, whether it closes."""

    status: int
    headers: Headers
    body: bytes

    def response(self) -> Response:
        """The same for Starlette."""
        response = Response(self.body, self.status)
        response.raw_headers = list(self.headers)
        return response


def make_reply(body: bytes, media_type: str, status: int = 200, *, headers: Mapping[str, str] | None = None) -> Reply:
    """In the order in which Starlette has them: its own, then the length and the type."""
    raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in (headers or {}).items()]
    raw += ((b"content-length", b"%d" % len(body)), (b"content-type", media_type.encode("latin-1")))
    return Reply(status, raw, body)


def values_of(headers: Headers, name: bytes) -> list[str]:
    """Of all the headers of this name, which is in lower case."""
    return [value.decode("latin-1") for key, value in headers if key == name]
