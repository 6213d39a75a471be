"""Forms, `multipart/form-data`: taken apart in memory, with limits on everything."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from server.errors import InvalidInput, TooLarge

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A field of a form, or a file if it has a file name."""

    name: str
    filename: str | None
    type: str
    """Its Content-Type as it came; empty if it has none."""
    data: bytes


def parse_form(body: bytes, boundary: str, *, max_parts: int) -> list[Part]:
    """The parts, in order. Raises InvalidInput for what is no form or is cut short, TooLarge for too many parts."""
    reader = _Reader(max_parts)
    try:
        parser = MultipartParser(boundary.encode("latin-1", "replace"), reader.callbacks())
        parser.write(body)
        parser.finalize()
    except FormParserError as exc:
        raise InvalidInput(f"body: expected a form as the boundary divides it; {str(exc)[:100]}") from exc
    if not reader.ended:
        raise InvalidInput("body: expected a form that ends with its boundary; got one that does not")
    return reader.parts


class _Reader:
    """Collects what the parser calls out: pieces of headers and of data."""

    def __init__(self, max_parts: int) -> None:
        self.parts: list[Part] = []
        self.ended = False
        self._max_parts = max_parts
        self._headers: dict[str, str] = {}
        self._name = self._value = self._data = b""
        self._pieces: list[bytes] = []

    def callbacks(self) -> "MultipartCallbacks":
        return {
            "on_part_begin": self._begin,
            "on_header_begin": self._begin_header,
            "on_header_field": self._add_name,
            "on_header_value": self._add_value,
            "on_header_end": self._end_header,
            "on_part_data": self._add_data,
            "on_part_end": self._end,
            "on_end": self._finish,
        }

    def _begin(self) -> None:
        if len(self.parts) == self._max_parts:
            raise TooLarge(f"body: expected a form of at most {self._max_parts} parts; got more")
        self._headers, self._pieces = {}, []

    def _begin_header(self) -> None:
        self._name = self._value = b""

    def _add_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _add_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        name = self._name.decode("latin-1").lower()
        if name in self._headers:
            raise InvalidInput(f"body: part {len(self.parts)}: expected each header once; got {name[:64]!r} twice")
        self._headers[name] = self._value.decode("latin-1").strip()

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        self._pieces.append(data[start:end])

    def _end(self) -> None:
        where = f"body: part {len(self.parts)}"
        kind, options = parse_options_header(self._headers.get("content-disposition"))
        if kind != b"form-data" or b"name" not in options:
            raise InvalidInput(f"{where}: expected Content-Disposition: form-data with a name; got another")
        encoding = self._headers.get("content-transfer-encoding", "binary").lower()
        if encoding not in ("binary", "8bit", "7bit"):
            raise InvalidInput(f"{where}: expected no Content-Transfer-Encoding; got {encoding[:64]!r}")
        filename = options.get(b"filename")
        self.parts.append(
            Part(
                name=options[b"name"].decode(errors="replace"),
                filename=None if filename is None else filename.decode(errors="replace"),
                type=self._headers.get("content-type", ""),
                data=b"".join(self._pieces),
            )
        )

    def _finish(self) -> None:
        self.ended = True
