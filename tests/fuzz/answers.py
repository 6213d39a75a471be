"""What an answer has to be, whatever was asked."""

import json
import re

MEANT = frozenset({200, 400, 404, 405, 406, 408, 413, 414, 415, 421, 431, 503, 504})
_HEAD = re.compile(rb"HTTP/1\.1 (\d{3}) [^\r\n]*\r\n((?:[a-z0-9-]+: [^\r\n]*\r\n)*)\r\n")
_LENGTH = re.compile(rb"^content-length: (\d+)\r$", re.MULTILINE)
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def read_statuses(written: bytes) -> list[int]:
    """Of all answers that a server has written. Raises AssertionError if one is none, or is not meant."""
    statuses = []
    while written:
        if written.startswith(_CONTINUE):
            written = written[len(_CONTINUE) :]
            continue
        head = _HEAD.match(written)
        assert head, written[:200]
        status, length = int(head[1]), _LENGTH.search(head[2])
        assert status in MEANT, written[:300]
        behind = written[head.end() :]
        # A HEAD is answered with the length of what it does not send.
        body = b"" if behind.startswith(b"HTTP/1.1 ") or length is None else behind[: int(length[1])]
        if status >= 400 and body:
            assert json.loads(body).keys() == {"error", "code", "request_id"}
        statuses.append(status)
        written = behind[len(body) :]
    return statuses
