import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.codec.compressed import Decompressor
from server.errors import InvalidInput, TooLarge
from tests.server.codec.specs import refusal

LIMIT = 10_000


def read(data: bytes, most: int = LIMIT + 1, coding: str = "gzip") -> bytes:
    stream = Decompressor(data, coding, LIMIT)
    whole = stream.read(most)
    return stream.read_all() if whole is None else whole


@given(st.binary(max_size=LIMIT), st.integers(1, LIMIT + 1), st.integers(0, 9))
def test_whatever_was_compressed(data: bytes, most: int, level: int) -> None:
    assert read(gzip.compress(data, level), most) == data
    assert read(gzip.compress(data, level), most, "x-gzip") == data
    assert read(zlib.compress(data, level), most, "deflate") == data


@pytest.mark.parametrize("most", [1, 100, LIMIT, LIMIT + 1])
def test_a_bomb(most: int) -> None:
    assert read(gzip.compress(bytes(LIMIT)), most) == bytes(LIMIT)
    for size in (LIMIT + 1, 100 * LIMIT, 5000 * LIMIT):
        said = refusal(lambda size=size: read(gzip.compress(bytes(size)), most), TooLarge)  # type: ignore[misc]
        assert said == "body: expected at most 10000 bytes decompressed (max_body_bytes); got more"


@pytest.mark.parametrize("data", [b"", b"{}", zlib.compress(b"{}"), b"\x1f\x8b", gzip.compress(b"{}" * 99)[:-1]])
@pytest.mark.parametrize("most", [1, LIMIT])
def test_what_is_none(data: bytes, most: int) -> None:
    assert refusal(lambda: read(data, most), InvalidInput).startswith("body: expected ")


def test_a_wrong_checksum() -> None:
    data = bytearray(gzip.compress(b"{}" * 99))
    data[-5] ^= 1
    assert "incorrect data check" in refusal(lambda: read(bytes(data)))


@pytest.mark.parametrize("more", [b"x", gzip.compress(b"{}")])
def test_what_comes_behind(more: bytes) -> None:
    assert "got more bytes" in refusal(lambda: read(gzip.compress(b"{}") + more))


@given(st.binary(max_size=200), st.data())
def test_whatever_comes_is_read_or_refused(plain: bytes, data: st.DataObject) -> None:
    packed = bytearray(gzip.compress(plain))
    for _ in range(data.draw(st.integers(1, 4))):
        packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert read(bytes(packed)) == plain
    except InvalidInput:
        return
