"""The cheap way of reading JSON against the careful one: the same rows to the bit, the same words of a refusal."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from server.codec import bodies, fast_json
from server.codec.bodies import PredictBody, decode_json
from server.codec.fast_json import read_numbers
from server.codec.options import OPTIONS, RequestOptions
from server.errors import InvalidInput
from server.manifest import InputSpec
from tests.server.codec.specs import FOUR, GAPPY, IMAGE

ONE = InputSpec(name="X", shape=[1])
COLUMN = InputSpec(name="X", shape=[3, 1])
SQUARE = InputSpec(name="X", shape=[2, 2], low=-3.5)
SPECS = [FOUR, GAPPY, ONE, COLUMN, SQUARE, InputSpec(name="X", shape=[9, 1], low=0.1, high=3e38)]
MAX_ROWS = 4

Outcome = tuple[Any, ...]


def outcome(body: bytes, spec: InputSpec) -> Outcome:
    """All that a caller can see of it: the bytes of the rows and what else was read, or the error."""
    try:
        read = decode_json(body, [spec], max_rows=MAX_ROWS)
    except InvalidInput as exc:
        return type(exc), exc.message
    assert read.rows.dtype == np.float32
    return read.rows.tobytes(), read.rows.shape, read.id, read.options, _types(read.options)


def _types(options: RequestOptions) -> list[type]:
    values = [getattr(options, name) for name in OPTIONS]
    return [type(item) for value in values for item in (value.values() if isinstance(value, dict) else [value])]


def careful(body: bytes, spec: InputSpec) -> Outcome:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bodies, "read_numbers", lambda *_, **__: None)
        return outcome(body, spec)


def is_read(body: bytes, spec: InputSpec = FOUR) -> bool:
    return read_numbers(body, spec, max_rows=MAX_ROWS) is not None


# ---- Whatever comes -------------------------------------------------------------------------------------------------

ODD = [
    *("-0", "-0.0", "0e0", "1E5", "1e-400", "5e-324", "3.4028235e38", "3.4028235677973366e38", "-1e39", "1e400"),
    *("9007199254740993", "16777217", "16777217.0000000001", "18446744073709551615", "18446744073709551616"),
    *("-9223372036854775809", "9" * 38, "9" * 39, "9" * 400, "9" * 5000, f"0.{'0' * 400}1", f"1{'0' * 30}.5e-30"),
    *("255", "256", "-1", "01", "-01", "1.", ".5", "+1", "1e", "-", "1_0", "0x1", "NaN", "Infinity", "-Infinity"),
    *("true", "false", "null", '"1"', '"u"', "[]", "[1]", "{}", '{"a": 1}', '{"a": 1, "a": 2}', "", "1 2", "nul"),
    *('"\\u0031"', '"\\ud800"', '"\x01"', '"é"', "[[[1]]]", "/**/1"),
]
SINGLE = st.floats(width=32, allow_nan=False, allow_infinity=False)
NUMBERS = (
    st.integers(0, 255).map(str)
    | st.integers(-(2**70), 2**70).map(str)
    | SINGLE.map(repr)
    | st.floats(allow_nan=False, allow_infinity=False).map(repr)
    | st.from_regex(r"-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,2})?", fullmatch=True)
)
TOKENS = NUMBERS | st.sampled_from(ODD)
SPACES = ["", " ", "\n", "\t\r "]
FIELDS = [
    *('"id": "é"', '"id": "x\\u0041"', '"id": "true"', '"id": null', '"id": 5', '"strategy": "vote"', '"strategy": ""'),
    *('"weights": {"m1": 1, "m2": 0.5}', '"weights": {"m1": 1, "m1": 2}', '"weights": {"m1": 18446744073709551616}'),
    *(
        '"weights": {"m1": true}',
        '"weights": {"a": {"b": 1, "b": 2}}',
        '"members": ["m1", "m2"]',
        '"members": [1, "a"]',
    ),
    *(
        '"detail": ["uncertainty"]',
        '"quorum": 2',
        '"quorum": 2.0',
        '"quorum": 18446744073709551617',
        '"deadline_ms": -0',
    ),
    *(
        '"cascade_threshold": 1e400',
        '"abstain_below": 0.1',
        '"on_failure": "degrade"',
        '"strange": 1',
        '"instances": 1',
    ),
    *('"instances": [[1, 2, 3, 4]]', '"strategy": "instances"', '"\\u0069d": "x"', '"id": "\\ud800"', "1: 2", '"id"'),
]


@st.composite
def bodies_of(draw: st.DrawFn, spec: InputSpec, tokens: st.SearchStrategy[str]) -> bytes:
    """A body for this input, as a client may send it: in one of its forms or nearly, with options or none."""

    neat = draw(st.booleans())
    spaces = st.sampled_from(SPACES if neat else [*SPACES * 8, "\x0c", "\u00a0"])
    slips = st.just(0) if neat else st.sampled_from([0] * 30 + [-1, 1])

    def array(sizes: list[int]) -> str:
        if not sizes:
            return draw(tokens)
        return f"[{','.join(draw(spaces) + array(sizes[1:]) for _ in range(max(0, sizes[0] + draw(slips))))}]"

    flat = [int(np.prod(spec.shape))]
    form = draw(st.sampled_from([flat, spec.shape] if neat else [flat, spec.shape, spec.shape[:1], [1, *spec.shape]]))
    mixed = draw(st.sampled_from([form, form, form, flat]))
    count = draw(st.integers(1, MAX_ROWS if neat else MAX_ROWS + 1))
    rows = [array(mixed if place == 1 else form) for place in range(count)]
    fields = [f'"instances":{draw(spaces)}[{", ".join(rows)}]', *draw(st.lists(st.sampled_from(FIELDS), max_size=2))]
    text = f"{draw(spaces)}{{{', '.join(draw(st.permutations(fields)))}}}{draw(spaces)}"
    return text.encode(errors="surrogatepass")


@st.composite
def broken(draw: st.DrawFn, body: bytes) -> bytes:
    """With a few bytes out, in or changed."""
    for _ in range(draw(st.integers(1, 2))):
        at = draw(st.integers(0, len(body)))
        junk = draw(
            st.sampled_from([b"", b",", b"]", b"[", b'"', b"\\", b"\xff", b"\x00", b"}", b"{", b"e", b"0", b"null"])
        )
        body = body[:at] + junk + body[at + draw(st.integers(0, 1)) :]
    return draw(st.sampled_from([b"", b"", b"\xef\xbb\xbf"])) + body


@settings(max_examples=300, deadline=None)
@given(data=st.data(), spec=st.sampled_from(SPECS), jiter=st.booleans())
def test_as_the_careful_way(data: st.DataObject, spec: InputSpec, jiter: bool) -> None:
    tokens = data.draw(st.sampled_from([TOKENS, NUMBERS, NUMBERS, SINGLE.map(repr), st.integers(0, 255).map(str)]))
    body = data.draw(bodies_of(spec, tokens))
    with pytest.MonkeyPatch.context() as patch:
        if jiter:
            patch.setattr(fast_json, "LARGE", 0)
        assert outcome(body, spec) == careful(body, spec)
        changed = data.draw(broken(body))
        assert outcome(changed, spec) == careful(changed, spec)


@pytest.mark.parametrize("large", [0, 1 << 21], ids=["jiter", "orjson"])
@pytest.mark.parametrize("place", [0, 2, 3])
@pytest.mark.parametrize("token", ODD)
def test_each_oddity(monkeypatch: pytest.MonkeyPatch, token: str, place: int, large: int) -> None:
    monkeypatch.setattr(fast_json, "LARGE", large)
    for others in ("1", "0.5"):
        row = ",".join(token if index == place else others for index in range(4))
        body = f'{{"instances": [[{row}], [1,2,3,4]]}}'.encode(errors="surrogatepass")
        for spec in (FOUR, GAPPY):
            assert outcome(body, spec) == careful(body, spec)


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("other", ["", *FIELDS])
def test_each_field(field: str, other: str) -> None:
    for fields in ([field, '"instances": [[1,2,3,4]]', other], ['"instances": [[1,2,3,4.5]]', other, field]):
        body = f"{{{', '.join(filter(None, fields))}}}".encode()
        assert outcome(body, FOUR) == careful(body, FOUR)


@given(st.lists(st.floats(width=64, allow_nan=False, allow_infinity=False), min_size=4, max_size=4))
@example([1 + 2**-24, 1 + 2**-24 + 2**-52, 1 + 3 * 2**-24, 2**-149])
def test_the_nearest_float32(values: list[float]) -> None:
    """By way of the nearest float64, as always: what lies half-way between two of float32 goes to the even one."""
    if all(abs(value) < 3.4e38 for value in values):
        read = decode_json(json.dumps({"instances": [values]}).encode(), [FOUR], max_rows=1)
        assert read.rows.tobytes() == np.array([values], dtype=np.float64).astype(np.float32).tobytes()


# ---- What it takes by itself ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{}, {"id": "é", "strategy": "vote", "weights": {"m1": 1, "u": 2}, "detail": ["members"]}]
)
@pytest.mark.parametrize("shape", [(784,), (28, 28), (28, 28, 1)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float64])
def test_the_common_body_is_read_at_once(dtype: type[Any], shape: tuple[int, ...], options: dict[str, Any]) -> None:
    rows = (np.arange(2 * 784) % 256).astype(dtype).reshape(2, *shape)
    body = json.dumps({"instances": rows.tolist(), **options}, ensure_ascii=False).encode()
    assert is_read(body, IMAGE)
    assert outcome(body, IMAGE) == careful(body, IMAGE)


@pytest.mark.parametrize("large", [0, 1 << 21], ids=["jiter", "orjson"])
@pytest.mark.parametrize(
    "body",
    [
        b'{"instances": [[1,2,3,4]], "instances": [[1,2,3,4]]}',
        b'{"instances": [[1,2,3,4]], "weights": {"a": 1, "a": 2}}',
        b'{"instances": [[1,2,3,4]], "id": "a", "id": "b"}',
        b'{"instances": [[1,2,3,4]], "\\u0069nstances": [[1,2,3,4]]}',
        b'{"instances": [[1,2,3,true]]}',
        b'{"instances": [[1,2,3,null]]}',
        b'{"instances": [[1,2,3,"4"]]}',
        b'{"instances": [[1,2,3,4]], "quorum": true}',
        b'{"instances": [[1,2,3,4]], "members": [' + b",".join([b'"m"'] * 600) + b"]}",
        b'{"instances": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
)
def test_left_to_the_careful_way(monkeypatch: pytest.MonkeyPatch, body: bytes, large: int) -> None:
    monkeypatch.setattr(fast_json, "LARGE", large)
    assert not is_read(body)


def test_rows_are_the_callers_own() -> None:
    """A batch may be written to."""
    for body in (b'{"instances": [[1,2,3,4]]}', b'{"instances": [[1,2,3,4.5]]}'):
        read: PredictBody = decode_json(body, [FOUR], max_rows=1)
        assert read.rows.flags.writeable
        assert read.rows.flags.aligned
        assert read.rows.flags.c_contiguous
