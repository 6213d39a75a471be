import json
from collections.abc import Sequence

import numpy as np
import pytest

from server.codec.bodies import FIELD_BYTES, PredictBody, decode_json, decode_predict
from server.codec.media import CSV, FORM, JSON, NPY, PNG, RAW, Media
from server.codec.options import RequestOptions
from server.errors import InvalidInput, TooLarge, UnsupportedMediaType
from server.manifest import InputSpec
from tests.server.codec import specs
from tests.server.codec.specs import FOUR, IMAGE, TABLE
from tests.server.codec.test_arrays import npy
from tests.server.codec.test_forms import form
from tests.server.codec.test_pictures import png


def decode(body: object, max_rows: int = 8) -> PredictBody:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return decode_json(data, [FOUR], max_rows=max_rows)


def refusal(body: object) -> str:
    return specs.refusal(lambda: decode(body))


class TestJson:
    @pytest.mark.parametrize(
        ("body", "said"),
        [
            (b"", "EOF while parsing a value"),
            (b"{", "EOF while parsing an object"),
            (b"[1]", "body: expected a JSON object; got an array of 1"),
            (b"null", "body: expected a JSON object; got null"),
            (b'{"instances": [[1,2,3,4],]}', "trailing comma"),
            (b'{"instances": [[NaN,2,3,4]]}', "no NaN"),
            (b'{"instances": [[1,2,3,-Infinity]]}', "no NaN"),
            (b'{"instances": [[01,2,3,4]]}', "expected JSON"),
            (b'{"instances": [[1,2,3,4]]} {}', "trailing characters"),
            (b'{"instances": [[1,2,3,4]], "instances": [[1,2,3,4]]}', 'duplicate key "instances"'),
            (b'{"instances": [[1,2,3,4]], "weights": {"a": 1, "a": 2}}', 'duplicate key "a"'),
            (b'{"instances": [[1,2,3,4]], "id": "\xff"}', "invalid unicode"),
            (b'{"instances": [[1,2,3,4]], "id": "\\ud800"}', "expected JSON"),
            (b'\xef\xbb\xbf{"instances": [[1,2,3,4]]}', "expected JSON"),
            ('{"instances": [[1,2,3,4]]}'.encode("utf-16"), "expected JSON"),
            (b'{"instances": [[' + b"9" * 5000 + b",2,3,4]]}", "number out of range"),
            (b"{}", 'body: expected a field "instances", an array of rows; got none'),
            (b'{"instance": [[1,2,3,4]]}', "got the string 'instance'"),
            (b'{"instances": [[1,2,3,4]], "wieghts": {}}', "got the string 'wieghts'"),
            (b'{"instances": [[1,2,3,4]], "' + b"k" * 100_000 + b'": 1}', "got a string of 100000 characters"),
        ],
    )
    def test_refused(self, body: bytes, said: str) -> None:
        assert said in refusal(body)

    def test_infinite_by_its_exponent(self) -> None:
        assert refusal(b'{"instances": [[1,2,3,1e999]]}').endswith("got inf")


class TestJsonOptions:
    def test_all(self) -> None:
        body = decode(
            {
                "instances": [[1, 2, 3, 4]],
                "id": "é" * 128,
                "strategy": "weighted",
                "weights": {"m1": 1, "m2": 0.5},
                "members": ["m1", "m2"],
                "detail": ["members", "uncertainty"],
                "cascade_threshold": 1,
                "deadline_ms": 0.5,
                "quorum": 256,
                "on_failure": "degrade",
                "abstain_below": 0,
            }
        )
        assert body.id == "é" * 128
        assert body.options == RequestOptions(
            strategy="weighted",
            weights={"m1": 1.0, "m2": 0.5},
            members=("m1", "m2"),
            detail=("members", "uncertainty"),
            cascade_threshold=1.0,
            deadline_ms=0.5,
            quorum=256,
            on_failure="degrade",
            abstain_below=0.0,
        )

    @pytest.mark.parametrize(
        ("field", "value", "said"),
        [
            ("id", None, "id: expected a string of at most 128 characters; got null"),
            ("id", 5, "got 5"),
            ("id", "x" * 129, "got a string of 129 characters"),
            ("strategy", None, "strategy: expected a string that is not empty; got null"),
            ("strategy", "", "got the string ''"),
            ("strategy", ["vote"], "got an array of 1"),
            ("weights", [1, 2], "weights: expected an object with a number for each member; got an array of 2"),
            ("weights", {}, "got an object of 0 fields"),
            ("weights", {"m1": "1"}, "weights: expected numbers that are not negative; got the string '1' for 'm1'"),
            ("weights", {"m1": True}, "got true for 'm1'"),
            ("weights", {"m1": None}, "got null for 'm1'"),
            ("weights", {"m1": -0.5}, "got -0.5 for 'm1'"),
            ("weights", {"m1": 1e39}, "got 1e+39 for 'm1'"),
            ("weights", {"m1": 10**400}, "got an integer of 1329 bits for 'm1'"),
            ("members", "m1", "members: expected an array of at least one string; got the string 'm1'"),
            ("members", [], "got an array of 0"),
            ("members", ["m1", 2], "members[1]: expected a string that is not empty; got 2"),
            ("detail", [], "detail: expected an array of at least one string; got an array of 0"),
            ("detail", ["all"], "detail: expected some of members, uncertainty, contributions; got the string 'all'"),
            ("detail", [["members"]], "got an array of 1"),
            ("detail", ["members", "members"], "detail: expected each detail once; got one twice"),
            ("cascade_threshold", None, "cascade_threshold: expected a number from 0 to 1; got null"),
            ("cascade_threshold", 1.0000001, "got 1.0000001"),
            ("abstain_below", -1e-9, "abstain_below: expected a number from 0 to 1; got -1e-09"),
            ("abstain_below", False, "got false"),
            ("abstain_below", "0.5", "got the string '0.5'"),
            ("deadline_ms", 0, "deadline_ms: expected milliseconds, above 0 and at most 3600000; got 0"),
            ("deadline_ms", 3_600_000.5, "got 3600000.5"),
            ("deadline_ms", True, "got true"),
            ("deadline_ms", 10**400, "got an integer of 1329 bits"),
            ("quorum", 0, "quorum: expected a whole number from 1 to 256; got 0"),
            ("quorum", 257, "got 257"),
            ("quorum", 1.0, "got 1.0"),
            ("quorum", True, "got true"),
            ("on_failure", "raise", "on_failure: expected fail or degrade; got the string 'raise'"),
            ("on_failure", ["fail"], "got an array of 1"),
        ],
    )
    def test_refused(self, field: str, value: object, said: str) -> None:
        assert said in refusal({"instances": [[1, 2, 3, 4]], field: value})


PIXELS = np.arange(784, dtype=np.uint8).reshape(28, 28)


class TestForm:
    def decode(self, *parts: tuple[str, str | None, str, bytes], max_rows: int = 8) -> PredictBody:
        media = Media(FORM, {"boundary": "b"})
        return decode_predict(form(*parts), media, [IMAGE], max_rows=max_rows)

    def test_files_in_order_and_options(self) -> None:
        more = np.stack([PIXELS + 1, PIXELS + 2])
        body = self.decode(
            ("strategy", None, "", b"weighted"),
            ("a", "a.png", PNG, png(PIXELS)),
            ("weights", None, "", b"m1:1,m2:0.5"),
            ("b", "b.npy", RAW, npy(more)),
            ("b", "c.CSV", "application/vnd.ms-excel", (",".join(["3"] * 784)).encode()),
            ("c", "no name of a type", "", png(PIXELS)),
            ("quorum", None, "", b"1"),
            ("on_failure", None, "", b"fail"),
            ("abstain_below", None, "", b"0.5"),
            ("deadline_ms", None, "", b"50"),
            ("members", None, "", b"-m3"),
            ("detail", None, "", b"contributions"),
        )
        expected = np.stack([PIXELS, *more, np.full((28, 28), 3), PIXELS]).reshape(-1, 28, 28, 1)
        np.testing.assert_array_equal(body.rows, expected.astype(np.float32))
        assert body.rows.dtype == np.float32
        assert body.options == RequestOptions(
            strategy="weighted",
            weights={"m1": 1.0, "m2": 0.5},
            members=("-m3",),
            detail=("contributions",),
            deadline_ms=50.0,
            quorum=1,
            on_failure="fail",
            abstain_below=0.5,
        )
        assert body.id is None

    @pytest.mark.parametrize(
        ("parts", "said"),
        [
            ([("strategy", None, "", b"vote")], "form: expected at least one file; got none"),
            (
                [("id", None, "", b"x")],
                "form: expected no parameters but strategy, weights, members, detail, cascade_threshold, deadline_ms, "
                "quorum, on_failure, abstain_below; got the string 'id'",
            ),
            ([("strategy", None, "", b"vote"), ("strategy", None, "", b"max")], "form: expected strategy once"),
            ([("quorum", None, "", b"0")], "form: quorum: expected a whole number from 1 to 256; got the string '0'"),
            (
                [("on_failure", None, "", b"\xff")],
                "form: on_failure: expected fail or degrade; got the string '\ufffd'",
            ),
            ([("f", "a.png", PNG, b"")], "file 'a.png': picture: expected image/png; got bytes that do not begin"),
            ([("f", "a.png", PNG, npy(PIXELS))], "file 'a.png': picture: expected image/png; got bytes that do not"),
            ([("f", "a.npy", NPY, npy(PIXELS[:5]))], "file 'a.npy': npy: expected rows, each 784 numbers, or [28, 28]"),
            ([("f", "x" * 99, CSV, b"1,2")], f"file '{'x' * 63}…': line 1: expected 784 numbers; got 2 fields"),
            ([("f", "a.gif", "image/gif", b"GIF89a")], "file 'a.gif': expected a PNG, JPEG or WebP picture, an .npy"),
            ([("f", "", RAW, b"")], "file '': expected a PNG"),
        ],
    )
    def test_refused(self, parts: Sequence[tuple[str, str | None, str, bytes]], said: str) -> None:
        assert specs.refusal(lambda: self.decode(*parts)).startswith(said)

    def test_too_much(self) -> None:
        pictures = [("f", f"{i}.png", PNG, png(PIXELS)) for i in range(14)]
        said = specs.refusal(lambda: self.decode(*pictures, max_rows=4), TooLarge)
        assert said == "body: expected a form of at most 13 parts; got more"
        two = ("f", "b.npy", NPY, npy(np.stack([PIXELS] * 2)))
        said = specs.refusal(lambda: self.decode(pictures[0], two, max_rows=2), TooLarge)
        assert said == "file 'b.npy': body: expected at most 1 rows; got 2"
        said = specs.refusal(lambda: self.decode(*pictures[:2], max_rows=1), TooLarge)
        assert said == "form: expected at most 1 rows; got more"
        field = ("strategy", None, "", b"x" * (FIELD_BYTES + 1))
        assert specs.refusal(lambda: self.decode(field), TooLarge).startswith(
            "form: field 'strategy': expected at most"
        )

    def test_needs_a_boundary(self) -> None:
        said = specs.refusal(lambda: decode_predict(b"", Media(FORM), [IMAGE], max_rows=8))
        assert said == "Content-Type: expected multipart/form-data with its boundary; got none"

    def test_of_a_table(self) -> None:
        data = form(("f", "a.csv", CSV, b"age,job\n41,nurse\n"), ("f", "b.csv", "", b"job,age\ncook,\n"))
        rows = decode_predict(data, Media(FORM, {"boundary": "b"}), TABLE, max_rows=8).rows
        assert rows["job"].ravel().tolist() == ["nurse", "cook"]
        picture = form(("f", "a.png", PNG, png(PIXELS)))
        call = lambda: decode_predict(picture, Media(FORM, {"boundary": "b"}), TABLE, max_rows=8)  # noqa: E731
        said = specs.refusal(call, UnsupportedMediaType)
        assert said.startswith("file 'a.png': its type: the ensemble's input is a table; expected one of")


class TestTypes:
    def test_npy_is_told_from_raw_bytes_unless_a_dtype_is_named(self) -> None:
        row = np.arange(4, dtype=np.float32)
        for media in (Media(NPY), Media(RAW)):
            np.testing.assert_array_equal(decode_predict(npy(row), media, [FOUR], max_rows=1).rows, [row])
        same = np.frombuffer(npy(np.arange(32, dtype=np.uint8)), np.uint8)
        spec = InputSpec(name="X", shape=[same.size])
        body = decode_predict(same.tobytes(), Media(RAW, {"dtype": "uint8"}), [spec], max_rows=1)
        np.testing.assert_array_equal(body.rows, [same])

    def test_those_that_the_inputs_do_not_take(self) -> None:
        said = specs.refusal(lambda: decode_predict(b"", Media(PNG), [FOUR], max_rows=1), UnsupportedMediaType)
        assert said == (
            "Content-Type: the ensemble's input is no picture with values from 0 to 255; expected one of "
            "application/json, multipart/form-data, application/octet-stream, application/x-npy, text/csv; "
            "got image/png"
        )
        with pytest.raises(
            UnsupportedMediaType, match="is a table; expected one of application/json, text/csv, multip"
        ):
            decode_predict(b"", Media(RAW), TABLE, max_rows=1)

    def test_json(self) -> None:
        with pytest.raises(InvalidInput, match="EOF"):
            decode_predict(b"", Media(JSON), [FOUR], max_rows=1)


def test_more_numbers_than_rows_are_not_parsed() -> None:
    body = b'{"instances":[[' + b"1," * (1 << 20) + b"1]]}"
    said = specs.refusal(lambda: decode_json(body, [FOUR], max_rows=8), TooLarge)
    assert said == "instances: expected at most 8 rows of 4 numbers; got more numbers"
    spaces = b'{"instances":[[1,2,3,4]]}' + b" " * (1 << 21)
    assert decode_json(spaces, [FOUR], max_rows=1).rows.shape == (1, 4)
