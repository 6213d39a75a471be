import numpy as np
import pytest

from bench.codec import FORMS, IMAGE, body_of, contenders


@pytest.mark.parametrize("kind", ["integers", "floats"])
@pytest.mark.parametrize("form", FORMS)
def test_what_is_compared_does_the_same_work(form: tuple[int, ...], kind: str) -> None:
    body = body_of(2, form, kind)
    rows = {name: decode(body) for name, decode in contenders(form, IMAGE).items()}
    expected = rows["jiter, numpy"]
    assert expected.shape == (2, 784)
    for name, decoded in rows.items():
        assert decoded.dtype == np.float32, name
        np.testing.assert_array_equal(decoded, expected, err_msg=name)
