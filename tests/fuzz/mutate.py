"""Changes to inputs that were good, or nearly: most stay near enough to get past the first check."""

from collections.abc import Callable, Sequence
from random import Random

NUMBERS = (b"0", b"-1", b"1", b"16777217", b"4294967296", b"18446744073709551616", b"9" * 40, b"1e999", b"0x10", b"+5")
SIGNS = (
    b"\0",
    b"\r",
    b"\n",
    b"\r\n",
    b"\t",
    b" ",
    b'"',
    b"'",
    b"%",
    b"\\",
    b"\xff",
    b"\xc3\x28",
    b"\xe2\x80\xae",
    b"{",
    b"[",
)
MOST_CHANGES = 6
LONGEST = 1 << 16


def mutate(
    random: Random,
    data: bytes,
    *,
    others: Sequence[bytes],
    tokens: Sequence[bytes],
    most: int = MOST_CHANGES,
    longest: int = LONGEST,
) -> bytes:
    """A few changes, each at a random place. `tokens` mean something to what reads this."""
    for _ in range(random.randint(1, most)):
        change = random.choice(_CHANGES)
        data = change(random, data, random.choice(others), random.choice(tokens))
    return data[:longest]


def _place(random: Random, data: bytes) -> int:
    return random.randint(0, len(data))


def _span(random: Random, data: bytes) -> tuple[int, int]:
    begin = _place(random, data)
    return begin, min(len(data), begin + random.choice((1, 1, 2, 4, 16, 64, 256)))


def _flip(random: Random, data: bytes, *_: bytes) -> bytes:
    if not data:
        return data
    at = random.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << random.randrange(8)]) + data[at + 1 :]


def _delete(random: Random, data: bytes, *_: bytes) -> bytes:
    begin, end = _span(random, data)
    return data[:begin] + data[end:]


def _repeat(random: Random, data: bytes, *_: bytes) -> bytes:
    begin, end = _span(random, data)
    return data[:end] + data[begin:end] * random.choice((1, 1, 2, 10, 100)) + data[end:]


def _insert(random: Random, data: bytes, _: bytes, token: bytes) -> bytes:
    at = _place(random, data)
    return data[:at] + random.choice((token, random.choice(SIGNS), random.choice(NUMBERS))) + data[at:]


def _replace(random: Random, data: bytes, _: bytes, token: bytes) -> bytes:
    begin, end = _span(random, data)
    return data[:begin] + random.choice((token, random.choice(SIGNS), random.choice(NUMBERS))) + data[end:]


def _splice(random: Random, data: bytes, other: bytes, _: bytes) -> bytes:
    return data[: _place(random, data)] + other[_place(random, other) :]


def _cut(random: Random, data: bytes, *_: bytes) -> bytes:
    return data[: _place(random, data)]


def _double_line(random: Random, data: bytes, *_: bytes) -> bytes:
    """A line comes twice: a header, a field, a key."""
    lines = data.split(b"\n")
    at = random.randrange(len(lines))
    return b"\n".join([*lines[: at + 1], lines[at], *lines[at + 1 :]])


_CHANGES: tuple[Callable[..., bytes], ...] = (
    *(_flip, _flip, _delete, _repeat, _insert, _insert, _replace, _replace, _splice, _cut, _double_line),
)
