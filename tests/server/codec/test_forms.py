import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.codec.forms import Part, parse_form
from server.errors import TooLarge
from tests.server.codec.specs import refusal, refused


def form(*parts: tuple[str, str | None, str, bytes]) -> bytes:
    """A form with the boundary `b`: of each part the name, the file's name, the media type, the data."""
    pieces = []
    for name, filename, type_, data in parts:
        disposition = f'form-data; name="{name}"' + ("" if filename is None else f'; filename="{filename}"')
        headers = f"Content-Disposition: {disposition}\r\n" + (f"Content-Type: {type_}\r\n" if type_ else "")
        pieces.append(b"--b\r\n" + headers.encode() + b"\r\n" + data + b"\r\n")
    return b"".join(pieces) + b"--b--\r\n"


def part(headers: str, data: bytes = b"x") -> bytes:
    return b"--b\r\n" + headers.encode() + b"\r\n\r\n" + data + b"\r\n--b--\r\n"


def test_parts() -> None:
    body = form(("strategy", None, "", b"vote"), ("f", "bööt.png", "image/png", b"\r\n--\r\n\0"), ("g", "", "", b""))
    assert parse_form(body, "b", max_parts=3) == [
        Part(name="strategy", filename=None, type="", data=b"vote"),
        Part(name="f", filename="bööt.png", type="image/png", data=b"\r\n--\r\n\0"),
        Part(name="g", filename="", type="", data=b""),
    ]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "body: expected a form that ends with its boundary"),
        (b"x", "body: expected a form as the boundary divides it"),
        (form(("a", None, "", b"1"))[:-6], "body: expected a form that ends with its boundary"),
        (form(("a", None, "", b"1")).replace(b"--b", b"--c"), "body: expected a form as the boundary divides it"),
        (part("Content-Type: image/png"), "body: part 0: expected Content-Disposition: form-data with a name"),
        (part("Content-Disposition: attachment; name=a"), "body: part 0: expected Content-Disposition: form-data"),
        (part("Content-Disposition: form-data; filename=a"), "body: part 0: expected Content-Disposition: form-data"),
        (
            part("Content-Disposition: form-data; name=a\r\nContent-Transfer-Encoding: base64"),
            "body: part 0: expected no Content-Transfer-Encoding; got 'base64'",
        ),
        (
            part("Content-Disposition: form-data; name=a\r\ncontent-disposition: form-data; name=b"),
            "body: part 0: expected each header once; got 'content-disposition' twice",
        ),
        (part("A: " + "x" * 10_000), "body: expected a form as the boundary divides it"),
        (part("\r\n".join(f"H{i}: x" for i in range(50))), "body: expected a form as the boundary divides it"),
    ],
)
def test_refused(body: bytes, said: str) -> None:
    assert refusal(lambda: parse_form(body, "b", max_parts=3)).startswith(said)


def test_odd_boundaries() -> None:
    assert "boundary" in refusal(lambda: parse_form(b"x", "b" * 1000, max_parts=3))
    assert "boundary" in refusal(lambda: parse_form(form(("a", None, "", b"1")), "ü中", max_parts=3))


def test_too_many_parts() -> None:
    body = form(*[("a", None, "", b"1")] * 10_000)
    said = refusal(lambda: parse_form(body, "b", max_parts=3), TooLarge)
    assert said == "body: expected a form of at most 3 parts; got more"


@settings(deadline=None)
@given(st.lists(st.binary(max_size=30).filter(lambda data: b"--b" not in data), min_size=1, max_size=4))
def test_data_come_through(data: list[bytes]) -> None:
    parts = parse_form(form(*[("f", "n", "", piece) for piece in data]), "b", max_parts=4)
    assert [part.data for part in parts] == data


@settings(deadline=None)
@given(st.text(st.sampled_from("--b\r\n:;= form-data"), max_size=80).map(str.encode))
def test_whatever_comes_is_read_or_refused(body: bytes) -> None:
    assert len(refused(lambda: parse_form(body, "b", max_parts=4)) or "") < 200
