import json
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from server.codec.bodies import PredictBody, decode_json
from server.codec.options import RequestOptions
from server.errors import TooLarge
from server.manifest import InputSpec
from tests.server.codec import specs
from tests.server.codec.specs import FOUR, GAPPY, IMAGE

PIXELS = np.arange(784, dtype=np.float32) % 256


def decode(body: object, spec: InputSpec = FOUR, max_rows: int = 8) -> PredictBody:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return decode_json(data, [spec], max_rows=max_rows)


def refusal(body: object, spec: InputSpec = FOUR) -> str:
    return specs.refusal(lambda: decode(body, spec))


class TestRows:
    def test_numbers(self) -> None:
        body = decode({"instances": [[1, 2.5, -3, 1e-3], [0, -0.0, 7, 8]]})
        assert body.rows.dtype == np.float32
        expected = np.array([[1, 2.5, -3, 1e-3], [0, 0, 7, 8]], dtype=np.float32)
        np.testing.assert_array_equal(body.rows, expected)
        assert body.id is None
        assert body.options == RequestOptions()

    @pytest.mark.parametrize("extra", [{}, {"strategy": "vote"}], ids=["plain", "with options"])
    @pytest.mark.parametrize("shape", [(784,), (28, 28), (28, 28, 1)])
    def test_an_image_in_each_of_its_forms(self, shape: tuple[int, ...], extra: dict[str, Any]) -> None:
        rows = np.stack([PIXELS, PIXELS[::-1]])
        body = decode({"instances": rows.reshape(2, *shape).tolist(), **extra}, IMAGE)
        np.testing.assert_array_equal(body.rows, rows.reshape(2, 28, 28, 1))

    def test_forms_may_be_mixed(self) -> None:
        body = decode({"instances": [PIXELS.tolist(), PIXELS.reshape(28, 28).tolist()]}, IMAGE)
        np.testing.assert_array_equal(body.rows, np.stack([PIXELS, PIXELS]).reshape(2, 28, 28, 1))

    @pytest.mark.parametrize(
        ("shape", "row"),
        [([1], [5]), ([1, 1], [5]), ([1, 1], [[5]]), ([2, 1], [5, 6]), ([2, 1], [[5], [6]]), ([1, 2], [[5, 6]])],
    )
    def test_small_shapes(self, shape: list[int], row: list[Any]) -> None:
        body = decode({"instances": [row]}, InputSpec(name="X", shape=shape))
        assert body.rows.shape == (1, *shape)
        assert body.rows.ravel().tolist() == list(range(5, 5 + body.rows.size))

    def test_integers_beyond_64_bits(self) -> None:
        np.testing.assert_array_equal(decode({"instances": [[2**70, 0, 0, 2**53 + 1]]}).rows[0, [0, 3]], [2**70, 2**53])

    @pytest.mark.parametrize("largest", [3.4028235e38, -3.4028235e38])
    def test_the_largest_float32(self, largest: float) -> None:
        assert decode({"instances": [[largest, 0, 0, 0]]}).rows[0, 0] == np.float32(largest)

    @pytest.mark.parametrize(
        ("instances", "said"),
        [
            (None, "instances: expected an array of at least one row; got null"),
            ([], "instances: expected an array of at least one row; got an array of 0"),
            ({}, "instances: expected an array of at least one row; got an object of 0 fields"),
            (5, "instances: expected an array of at least one row; got 5"),
            ("1,2", "instances: expected an array of at least one row; got the string '1,2'"),
            ([1, 2, 3, 4], "instances[0]: expected 4 numbers; got 1"),
            ([[]], "instances[0]: expected 4 numbers; got 0"),
            ([[1, 2, 3]], "instances[0]: expected 4 numbers; got 3"),
            ([[1, 2, 3, 4], [1, 2, 3, 4, 5]], "instances[1]: expected 4 numbers; got 5"),
            ([[1, 2, 3, 4], 7], "instances[1]: expected 4 numbers; got 7"),
            ([[[1, 2, 3, 4]]], "instances[0]: expected 4 numbers; got 1 arrays, nested 2 deep"),
            ([[1, 2, 3, None]], "instances[0][3]: expected a number that float32 holds; got null"),
            ([[1, True, 3, 4]], "instances[0][1]: expected a number that float32 holds; got true"),
            ([[1, 2, False, 4]], "instances[0][2]: expected a number that float32 holds; got false"),
            ([["1.5", 2, 3, 4]], "instances[0][0]: expected a number that float32 holds; got the string '1.5'"),
            ([[1, 2, {}, 4]], "instances[0][2]: expected a number that float32 holds; got an object of 0 fields"),
            ([[1, 2, [3], 4]], "instances[0][2]: expected a number that float32 holds; got an array of 1"),
            ([[1, 2, 3, 1e39]], "instances[0][3]: expected a number that float32 holds; got 1e+39"),
            ([[0, -1e39, 0, 0]], "instances[0][1]: expected a number that float32 holds; got -1e+39"),
        ],
    )
    @pytest.mark.parametrize("extra", [{}, {"strategy": "vote"}], ids=["plain", "with options"])
    def test_refused(self, instances: object, said: str, extra: dict[str, Any]) -> None:
        assert refusal({"instances": instances, **extra}) == said

    @pytest.mark.parametrize("extra", [{}, {"strategy": "vote"}], ids=["plain", "with options"])
    @pytest.mark.parametrize("number", [10**39, -(10**39), 10**400])
    def test_integers_beyond_float32(self, number: int, extra: dict[str, Any]) -> None:
        assert "expected a number" in refusal({"instances": [[0, 0, 0, number]], **extra}).replace(
            "numbers", "a number"
        )

    @pytest.mark.parametrize(
        ("row", "said"),
        [
            (PIXELS[:783], "instances[1]: expected 784 numbers, or [28, 28], or [28, 28, 1]; got 783"),
            (
                np.zeros((28, 27)),
                "instances[1][0]: expected 28 numbers; got 27",
            ),
            (
                np.zeros((27, 28)),
                "instances[1]: expected 784 numbers, or [28, 28], or [28, 28, 1]; got 27 arrays, nested 2 deep",
            ),
            (
                np.zeros((28, 28, 1, 1)),
                "instances[1]: expected 784 numbers, or [28, 28], or [28, 28, 1]; got 28 arrays, nested 4 deep",
            ),
            (np.zeros((28, 27, 1)), "instances[1][0]: expected [28, 1]; got 27 arrays, nested 2 deep"),
            (PIXELS - 1, "instances[1]: expected numbers from 0 to 255; number 0 is -1"),
            (PIXELS + 1, "instances[1]: expected numbers from 0 to 255; number 255 is 256"),
        ],
    )
    def test_refused_images(self, row: NDArray[np.float32], said: str) -> None:
        assert refusal({"instances": [PIXELS.tolist(), row.tolist()]}, IMAGE) == said

    def test_ragged_rows(self) -> None:
        image: list[Any] = PIXELS.reshape(28, 28).tolist()
        image[5] = image[5][:-1]
        assert refusal({"instances": [image]}, IMAGE) == "instances[0][5]: expected 28 numbers; got 27"
        image[5] = 3
        assert refusal({"instances": [image]}, IMAGE) == "instances[0][5]: expected 28 numbers; got 3"

    def test_too_many(self) -> None:
        with pytest.raises(TooLarge, match=r"^instances: expected at most 8 rows; got 9$"):
            decode({"instances": [[1, 2, 3, 4]] * 9})

    def test_a_long_string_makes_no_long_array(self) -> None:
        """Numpy would give every element the room of the longest string."""
        message = refusal({"instances": [["9" * 10**6, 2, 3, 4]] * 8})
        assert message.endswith("got a string of 1000000 characters")

    def test_depth(self) -> None:
        assert "nested 14 deep" in refusal(b'{"instances":' + b"[" * 15 + b"]" * 15 + b"}")
        for depth in (16, 150, 100_000):
            said = refusal(b'{"instances":' + b"[" * depth + b"]" * depth + b"}")
            assert said == "body: expected JSON at most 16 deep (max_json_depth); got deeper"


class TestMissing:
    @pytest.mark.parametrize("extra", [{}, {"strategy": "vote"}], ids=["plain", "with options"])
    def test_null_is_nan(self, extra: dict[str, Any]) -> None:
        rows = decode({"instances": [[1, None, 2**70 // 2**70, -2.5], [None] * 4], **extra}, GAPPY).rows
        np.testing.assert_array_equal(rows, np.array([[1, np.nan, 1, -2.5], [np.nan] * 4], dtype=np.float32))

    @pytest.mark.parametrize(
        ("row", "said"),
        [
            ([None, 11, 0, 0], "instances[1]: expected numbers from -10 to 10; number 1 is 11"),
            ([None, 0, "", 0], "instances[1][2]: expected a number that float32 holds; got the string ''"),
            ([None, 0, 0, 1e39], "instances[1][3]: expected a number that float32 holds; got 1e+39"),
            (None, "instances[1]: expected 4 numbers; got null"),
        ],
    )
    def test_all_else_is_still_refused(self, row: object, said: str) -> None:
        assert refusal({"instances": [[0, 0, 0, 0], row]}, GAPPY) == said


def test_objects_for_a_tensor() -> None:
    said = refusal({"instances": [{"a": 1, "b": 2}]})
    assert said == "instances[0]: expected 4 numbers; got an object of 2 fields"
