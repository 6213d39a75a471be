import pytest

from server.codec.media import JSON, NPY, RAW
from server.rest.answer import choose_form


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ([], JSON),
        ([""], JSON),
        (["*/*"], JSON),
        (["application/*"], JSON),
        (["application/json"], JSON),
        (["APPLICATION/JSON; charset=utf-8"], JSON),
        (["application/octet-stream"], RAW),
        (["application/x-npy"], NPY),
        (["text/html", "application/x-npy"], NPY),
        (["text/html,application/xhtml+xml,application/xml;q=0.9,image/webp,*/*;q=0.8"], JSON),
        (["application/x-npy, */*"], NPY),
        (["*/*, application/x-npy"], NPY),
        (["application/x-npy, application/octet-stream, application/json"], NPY),
        (["application/json;q=0.5, application/octet-stream;q=0.6"], RAW),
        (["application/json; q=0.5 , application/x-npy ;q=0.4"], JSON),
        (["*/*;q=0.9, application/json;q=0.1"], RAW),
        (["application/json;q=0, */*"], RAW),
        (["application/json;q=0, application/octet-stream;q=0.000, application/*;q=0.001"], NPY),
        (["application/json;q=2, application/x-npy;q=0.1"], NPY),
        (["application/json;q=0.1234, application/x-npy;q=0.1"], NPY),
        (["application/json;q=, application/x-npy;q=0.1"], NPY),
        (["application/x-npy;level=1;q=0.2;x=y, application/json;q=0.1"], NPY),
        (["application, application/x-npy"], NPY),
        (["text/html"], None),
        (["text/*, image/png"], None),
        (["application/json;q=0"], None),
        (["*/*;q=0"], None),
        (["*/*;q=0", "text/plain"], None),
        (["*"], None),
        (["application/json application/x-npy"], None),
        ([","], None),
        (["é/é"], None),
    ],
)
def test_choose_form(accept: list[str], form: str | None) -> None:
    assert choose_form(accept) == form
