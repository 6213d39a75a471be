import pytest

from server.codec.media import CSV, FORM, JSON, NPY, PICTURES, RAW, Media, is_picture, parse_media, types_for
from server.errors import UnsupportedMediaType
from server.manifest import InputSpec
from tests.server.codec.specs import AGE, FOUR, IMAGE, NOTE, TABLE


@pytest.mark.parametrize(
    ("text", "media"),
    [
        ("application/json", Media(JSON)),
        (" APPLICATION/JSON ; ", Media(JSON)),
        ('application/json;charset="UTF-8"', Media(JSON, {"charset": "utf-8"})),
        ("application/octet-stream; DType=uint8", Media(RAW, {"dtype": "uint8"})),
        ("multipart/form-data; boundary=aB-1", Media(FORM, {"boundary": "aB-1"})),
        ("text/csv; charset=utf-8", Media(CSV, {"charset": "utf-8"})),
        ("application/x-npy", Media(NPY)),
    ],
)
def test_parse(text: str, media: Media) -> None:
    assert parse_media(text) == media


@pytest.mark.parametrize(
    "text",
    [
        "",
        "json",
        "text/plain",
        "application/jsonx",
        "application/json, text/plain",
        "application/json charset=utf-8",
        "application/json; charset=utf-16",
        "application/json; charset=utf-8; charset=utf-8",
        "application/json; dtype=uint8",
        "application/octet-stream; dtype=float64",
        "image/png; charset=utf-8",
        "image/jpg",
        'application/json; charset="utf-8',
        "application/json; =",
        "application/json;" + "a" * 5000,
    ],
)
def test_refused(text: str) -> None:
    with pytest.raises(UnsupportedMediaType) as caught:
        parse_media(text)
    assert len(caught.value.message) < 300


def test_says_what_is_wrong_with_a_parameter() -> None:
    with pytest.raises(UnsupportedMediaType, match=r"expected application/octet-stream; dtype=float32 or uint8; got"):
        parse_media("application/octet-stream; dtype=int8")


@pytest.mark.parametrize(
    ("shape", "low", "high", "is_one"),
    [
        ([28, 28], 0, 255, True),
        ([28, 28, 1], 0, 255, True),
        ([28, 28, 3], 0, 255, True),
        ([28, 28, 4], 0, 255, False),
        ([784], 0, 255, False),
        ([28, 28, 1, 1], 0, 255, False),
        ([8, 8], 0, 16, False),
        ([8, 8], 0, 1, False),
        ([8, 8], None, None, False),
        ([8, 8], 1, 255, False),
    ],
)
def test_pictures(shape: list[int], low: float | None, high: float | None, is_one: bool) -> None:
    spec = InputSpec(name="X", shape=shape, low=low, high=high)
    assert is_picture([spec]) == is_one
    assert (set(PICTURES) <= set(types_for([spec]))) == is_one
    assert not is_picture([spec, AGE])


def test_types() -> None:
    assert types_for(TABLE) == types_for([NOTE]) == (JSON, CSV, FORM)
    assert types_for([FOUR]) == (JSON, FORM, RAW, NPY, CSV)
    assert types_for([IMAGE]) == (JSON, *PICTURES, FORM, RAW, NPY, CSV)
