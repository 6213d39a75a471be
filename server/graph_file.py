"""What an ONNX file may hold, told from its bytes before anything loads it.

Only the shape of the file is read, no tensor. ONNX is protocol buffers: a message is a row of fields, each with its
number and either a number or so many bytes, which may be a message in turn. ONNX Runtime itself would open the files
that a graph says its weights are in, or take an offset for an address in memory, and reads a format of its own besides.
"""

import re
from collections.abc import Iterator, Mapping

from server.errors import InvalidRepository

DOMAINS = frozenset({b"", b"ai.onnx", b"ai.onnx.ml", b"com.microsoft"})
"""Of operators that ONNX Runtime has by itself; a graph may bring functions of its own, made of these."""
DEPTH = 64
"""Messages inside one another: a graph in a branch of a graph takes three."""
DOMAIN_BYTES = 256

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
# By message: its fields that are messages of interest, all others being skipped.
_MESSAGES: dict[str, dict[int, str]] = {
    "model": {7: "graph", 8: "opset", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 9: "opset", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
    "opset": {},
}
_DOMAIN_FIELDS = {"node": 7, "opset": 1}
_OWN_DOMAIN = 10
"""Of a function: the domain by which the graph's nodes call it."""
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14
"""Of a tensor."""
_SHORT_TEXT = b"|".join(b"\\x%02x.{%d}" % (size, size) for size in range(32))
_RUNS = {
    0x3D: re.compile(rb"(?:\x3d.{4})+", re.DOTALL),
    0x40: re.compile(rb"(?:\x40[\x80-\xff]{0,9}[\x00-\x7f])+"),
    0x4A: re.compile(rb"(?:\x4a(?:" + _SHORT_TEXT + rb"))+", re.DOTALL),
}
"""Of an attribute: floats, integers and short texts, each a field; trees have one for every node. Skipped without a
step of Python."""


def check_graph(data: bytes, *, where: str) -> None:
    """Raise InvalidRepository, naming `where`, unless the file is ONNX whose weights and operators are all its own.

    Refused: ONNX Runtime's own format, tensors in other files, operators of other libraries, and what is cut short.
    """
    if data[4:8] == b"ORTM":
        raise InvalidRepository(f"{where}: expected an ONNX file; got one of ONNX Runtime's own format")
    wanted: set[bytes] = set()
    own: set[bytes] = set()
    try:
        _walk(data, where, wanted, own)
    except _Malformed as exc:
        raise InvalidRepository(f"{where}: expected an ONNX file; got bytes that are none: {exc}") from exc
    if strange := sorted(wanted - own - DOMAINS):
        raise InvalidRepository(
            f"{where}: expected operators of ONNX and ONNX Runtime; got some of {strange[0].decode('latin-1')!r}"
        )


class _Malformed(Exception):
    """No protocol buffer, or none that anybody would make."""


def _walk(data: bytes, where: str, wanted: set[bytes], own: set[bytes]) -> None:
    """Collect the domains that are used, and those of the file's own functions; raise at tensors in other files."""
    todo = [("model", 0, len(data), 0)]
    while todo:
        kind, begin, end, depth = todo.pop()
        if depth > DEPTH:
            raise _Malformed(f"nested more than {DEPTH} deep")
        inside = _MESSAGES[kind]
        for number, value, at in _fields(data, begin, end, _RUNS if kind == "attribute" else {}):
            if kind == "tensor":
                if number == _EXTERNAL_DATA or (number == _DATA_LOCATION and value):
                    raise InvalidRepository(f"{where}: expected all weights in the graph; got some in another file")
            elif at is None:
                continue
            elif number in inside:
                todo.append((inside[number], at, at + value, depth + 1))
            elif number == _DOMAIN_FIELDS.get(kind):
                wanted.add(data[at : at + min(value, DOMAIN_BYTES)])
            elif kind == "function" and number == _OWN_DOMAIN:
                own.add(data[at : at + min(value, DOMAIN_BYTES)])


def _fields(
    data: bytes, at: int, end: int, runs: Mapping[int, re.Pattern[bytes]]
) -> Iterator[tuple[int, int, int | None]]:
    """Each field's number; its value, or its size in bytes and where they begin. What `runs` match is left out.

    Raises _Malformed.
    """
    while at < end:
        if (run := runs.get(data[at])) and (match := run.match(data, at, end)):
            at = match.end()
            continue
        key, at = _varint(data, at, end)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, at = _varint(data, at, end)
            yield number, value, None
        elif wire == _BYTES:
            size, at = _varint(data, at, end)
            if size > end - at:
                raise _Malformed(f"{size} bytes at {at}, of which {end - at} are there")
            yield number, size, at
            at += size
        elif wire in (_FIXED64, _FIXED32):
            at += 8 if wire == _FIXED64 else 4
        else:
            raise _Malformed(f"a field of kind {wire} at {at}")
    if at > end:
        raise _Malformed("a number that is cut short")


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise _Malformed(f"a number without an end at {at}")
