"""Bodies that come compressed: never more of them than the limit, however little came."""

import zlib

from server.errors import InvalidInput, TooLarge

WINDOWS = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
"""By name of a content coding, one of which a body may have: what zlib calls it."""


class Decompressor:
    """Decompresses one body piece by piece, so that a long one can be left to another thread."""

    def __init__(self, body: bytes, coding: str, limit: int) -> None:
        self._stream = zlib.decompressobj(WINDOWS[coding])
        self._coding = coding
        self._rest = body
        self._limit = limit
        self._pieces: list[bytes] = []
        self._size = 0

    def read(self, most: int) -> bytes | None:
        """Decompress `most` bytes more at most; the whole body if that was its end.

        Raises TooLarge for more than the limit, InvalidInput for what is not one stream of the coding, whole and alone.
        """
        try:
            piece = self._stream.decompress(self._rest, min(most, self._limit + 1 - self._size))
        except zlib.error as exc:
            raise InvalidInput(f"body: expected {self._coding}, as Content-Encoding says; {str(exc)[:100]}") from exc
        self._rest = self._stream.unconsumed_tail
        self._pieces.append(piece)
        self._size += len(piece)
        if self._size > self._limit:
            raise TooLarge(f"body: expected at most {self._limit} bytes decompressed (max_body_bytes); got more")
        if self._stream.eof:
            if self._stream.unused_data:
                raise InvalidInput(f"body: expected its end where the {self._coding} ends; got more bytes")
            return b"".join(self._pieces)
        if not self._rest and len(piece) < most:
            raise InvalidInput(f"body: expected the whole of the {self._coding}; got a part of it")
        return None

    def read_all(self) -> bytes:
        """What `read` has not reached yet, and all before it."""
        while (body := self.read(self._limit + 1)) is None:
            pass
        return body
