import tracemalloc

import pytest

from server.bounds import Bounds
from server.codec.json_text import LIGHT, check_weight, parse_object
from server.errors import InvalidInput, TooLarge

BOUNDS = Bounds()


def test_an_object() -> None:
    assert parse_object(b'{"a": [1, 2.5, null, {"b": "c"}]}', BOUNDS) == {"a": [1, 2.5, None, {"b": "c"}]}


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"[1]", b"{", b'{"a":1}{', b'{"a":NaN}', b'{"a":Infinity}', b'{"a":1,"a":1}', b'{"a":{"b":1,"b":2}}'),
        *(b"\xef\xbb\xbf{}", b'{"a":"\xff"}', b'{"a":"\\ud800"}', b'{"a":01}', b'{"a":+1}', b"{'a':1}", b'{"a":1,}'),
        *('{"a":1}'.encode("utf-16"), b'{"a":' + b"9" * 5000 + b"}", b"null", b'{"a":1}\0'),
    ],
)
def test_what_is_none(body: bytes) -> None:
    with pytest.raises(InvalidInput, match="body: expected "):
        parse_object(body, BOUNDS)


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}"), ('[1,{"b":2,"a":[', "]}]")])
def test_depth(opening: str, closing: str) -> None:
    n = opening.count("[") + opening.count("{")
    for times, good in ((15 // n, True), (15 // n + 1, False), (500, False), (100_000, False)):
        body = ('{"x":' + opening * times + "1" + closing * times + "}").encode()
        if good:
            parse_object(body, BOUNDS)
            continue
        with pytest.raises(InvalidInput, match=r"at most 16 deep \(max_json_depth\); got deeper"):
            parse_object(body, BOUNDS)


def test_many_that_are_not_deep() -> None:
    parse_object(b'{"a":[' + b"[]," * 1000 + b"[]]}", BOUNDS)


@pytest.mark.parametrize("piece", [b"[],", b"{},", b"[[]],", b'"ab",', b"-9,", b"0.1,", b"1e1,", b"257,", b'{"a":1},'])
def test_what_it_weighs_is_what_it_takes(piece: bytes) -> None:
    """Half of it at least, or it is less than fifteen times the body: numbers that are written in four bytes."""
    body = b'{"instances":[' + piece * (2 * LIGHT // len(piece)) + b"0]}"
    tracemalloc.start()
    parse_object(body, BOUNDS)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    if peak > 15 * len(body):
        with pytest.raises(TooLarge, match=r"\(max_json_memory\)"):
            check_weight(body, Bounds(max_json_memory=peak // 2))


def test_light_ones_are_not_weighed() -> None:
    check_weight(b"[" * LIGHT, Bounds(max_json_memory=1))


def test_common_ones_are_let_through() -> None:
    """A body as large as may be, of pixels, or of numbers with a digit behind the point."""
    for piece in (b"10,", b"255,", b"0.125,", b"-0.25,"):
        check_weight(b'{"instances":[[' + piece * ((BOUNDS.max_body_bytes - 100) // len(piece)) + b"0]]}", BOUNDS)


@pytest.mark.parametrize("piece", [b"[],", b"{},", b"[1],", b'{"a":[]},', b'"a",'])
def test_what_would_become_thirty_times_as_large_is_not_parsed(piece: bytes) -> None:
    body = b'{"instances":[' + piece * ((BOUNDS.max_body_bytes - 100) // len(piece)) + b"0]}"
    with pytest.raises(TooLarge, match="send fewer rows"):
        parse_object(body, BOUNDS)
