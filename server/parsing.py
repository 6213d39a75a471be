"""uvicorn's parsing, but that a client cannot ask for another protocol: it is answered in this one, as HTTP has it.

The parser stops at the end of headers that ask for an upgrade, and reads no body; uvicorn would leave it at that. Some
clients, Java's own among them, ask for HTTP/2 in every first request.
"""

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

Headers = list[tuple[bytes, bytes]]


class Parsing(HttpToolsProtocol):
    """The calls of the parser may ask `upgrading`: the same message comes again, from its begin, without that wish."""

    _n_begun: int
    """Requests of which something has come."""

    @property
    def upgrading(self) -> bool:
        return bool(self.parser.should_upgrade())

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        self._parse(data)

    def _parse(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.send_400_response("expected HTTP/1.1; got something else")
        except httptools.HttpParserUpgrade as upgrade:
            self._parse_anew(data[upgrade.args[0] :])

    def _parse_anew(self, rest: bytes) -> None:
        """The headers without the wish, and what follows them."""
        head = plain_head(self.parser.get_method(), self.url, self.parser.get_http_version(), self.headers)
        self._n_begun -= 1
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn has it
        self._parse(head + rest)


def plain_head(method: bytes, url: bytes, version: str, headers: Headers) -> bytes:
    """The head of a request but for its wish of another protocol."""
    lines = [method + b" " + url + b" HTTP/" + version.encode()]
    lines += [name + b": " + value for name, value in headers if name != b"upgrade"]
    return b"\r\n".join([*lines, b"", b""])
