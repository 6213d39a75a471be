import csv
import io
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.codec.csv_rows import decode_csv_table, decode_csv_tensor
from server.codec.tables import decode_objects
from server.errors import TooLarge
from server.manifest import InputSpec
from server.rows import Rows
from tests.server.codec.specs import FOUR, GAPPY, IMAGE, TABLE, WIDE, refusal, refused
from tests.tiny import JOBS


def table(text: str | bytes, inputs: list[InputSpec] = TABLE, max_rows: int = 8) -> Rows:
    body = text if isinstance(text, bytes) else text.encode()
    return decode_csv_table(body, inputs, max_rows=max_rows)


def tensor(text: str, spec: InputSpec = FOUR, max_rows: int = 8) -> Rows:
    return decode_csv_tensor(text.encode(), spec, max_rows=max_rows)


class TestTable:
    @pytest.mark.parametrize("line_break", ["\n", "\r\n", "\r"])
    @pytest.mark.parametrize("end", [True, False])
    @pytest.mark.parametrize("mark", ["", "\ufeff"])
    def test_columns_in_any_order(self, line_break: str, end: bool, mark: str) -> None:
        rows = table(mark + line_break.join(['job,"age"', "nurse,41", 'cook,""', "pilot,1.5e1"]) + line_break * end)
        assert rows["job"].ravel().tolist() == ["nurse", "cook", "pilot"]
        np.testing.assert_array_equal(rows["age"].ravel(), [41, np.nan, 15])

    def test_quotes(self) -> None:
        rows = table('age,job,note,height\n1,cook,"a ""b"", c\nd",2\n,cook,,3\n', WIDE)
        assert rows["note"].ravel().tolist() == ['a "b", c\nd', ""]

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("", "line 1: expected the columns 'age', 'job'; got none named 'age'"),
            ("\n", "line 1: expected the columns 'age', 'job'; got none named 'age'"),
            ("41,nurse\n", "line 1: expected the columns 'age', 'job'; got '41'"),
            ("age\n41\n", "line 1: expected the columns 'age', 'job'; got none named 'job'"),
            ("age,job,sex\n", "line 1: expected the columns 'age', 'job'; got 'sex'"),
            ("age, job\n", "line 1: expected the columns 'age', 'job'; got ' job'"),
            ("age,job,age\n", "line 1: expected each column once; got 'age' twice"),
            ("age,job\n", "body: expected at least one row; got none"),
            ("age,job\n1\n", "line 2: expected 2 fields; got 1"),
            ("age,job\n1,cook,\n", "line 2: expected 2 fields; got 3"),
            ("age,job\n1,cook\n\n", "line 3: expected 2 fields; got 0"),
            ("age,job\n1,cook\n2,", "line 3: column 'job': expected text of 1 to 1024 characters; got the string ''"),
            ("age,job\n1,baker\n", "line 2: column 'job': expected one of 'cook', 'nurse', 'pilot'; got the string 'b"),
            ("age,job\n121,cook\n", "line 2: column 'age': expected a number from 0 to 120; got 121"),
            ("age,job\n1e39,cook\n", "line 2: column 'age': expected a number that float32 holds; got 1e+39"),
            ('age,job\n1,"cook\n', "line 2: expected CSV; unexpected end of data"),
            ('age,job\n1,"cook"x\n', "line 2: expected CSV; ',' expected after '\"'"),
        ],
    )
    def test_refused(self, text: str, said: str) -> None:
        assert refusal(lambda: table(text)).startswith(said)

    @pytest.mark.parametrize(
        "number", [" 1", "1 ", "+1", ".5", "5.", "01", "1_0", "nan", "NaN", "inf", "NA", "null", "0x1", "1,5", "١", "-"]
    )
    def test_numbers_are_written_as_in_json(self, number: str) -> None:
        said = refusal(lambda: table(f'age,job\n1,cook\n"{number}",cook\n'))
        assert said == f"line 3: column 'age': expected a number that float32 holds; got the string {number!r}"

    def test_a_line_that_is_broken_in_quotes_counts_as_it_ends(self) -> None:
        said = refusal(lambda: table('age,job,note,height\n1,cook,"a\nb",2\n1,cook,c,x\n', WIDE))
        assert said.startswith("line 4: column 'height'")

    def test_a_number_that_may_not_be_missing(self) -> None:
        said = refusal(lambda: table("age,job,note,height\n1,cook,c,\n", WIDE))
        assert said == "line 2: expected a value for column 'height'; got none"

    def test_several_numbers_in_a_column(self) -> None:
        inputs = [InputSpec(name="v", shape=[2]), *TABLE]
        assert refusal(lambda: table("v,age,job\n1,2,cook\n", inputs)).startswith("column 'v': expected JSON")

    def test_only_utf_8(self) -> None:
        assert refusal(lambda: table("age,job\n1,café\n".encode("latin-1"))).startswith("body: expected CSV in UTF-8")

    def test_too_many(self) -> None:
        assert (
            refusal(lambda: table("age,job\n" + "1,cook\n" * 9), TooLarge) == "body: expected at most 8 rows; got more"
        )

    @pytest.mark.parametrize("text", ["," * 10**6, "age,job\n" + "1," * 10**6, 'age,job\n"' + "1" * 10**6])
    def test_long_lines(self, text: str) -> None:
        assert "characters; got" in refusal(lambda: table(text))

    def test_a_header_of_many_columns(self) -> None:
        inputs = [InputSpec(name=f"c{i}", shape=[1]) for i in range(4000)]
        header = ",".join(spec.name for spec in inputs)
        began = time.perf_counter()
        assert "twice" in refusal(lambda: table(f"{header},{header}\n", inputs))
        assert time.perf_counter() - began < 2


class TestTensor:
    def test_lines_are_rows(self) -> None:
        rows = tensor('1,2.5,-3,1e-3\r\n"0",-0,7,8')
        np.testing.assert_array_equal(rows, np.array([[1, 2.5, -3, 1e-3], [0, 0, 7, 8]], dtype=np.float32))
        assert rows.dtype == np.float32

    def test_of_any_shape(self) -> None:
        pixels = np.arange(784) % 256
        np.testing.assert_array_equal(tensor(",".join(map(str, pixels)), IMAGE), pixels.reshape(1, 28, 28, 1))

    def test_missing(self) -> None:
        np.testing.assert_array_equal(tensor("1,,2,\n", GAPPY), [[1, np.nan, 2, np.nan]])
        assert (
            refusal(lambda: tensor("0,0,0,0\n1,,2,3\n")) == "line 2: expected a number as field 2; got the string ''."
        )

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("", "body: expected at least one row; got none"),
            (
                "a,b,c,d\n1,2,3,4\n",
                "line 1: expected a number as field 1; got the string 'a'. There is no header line.",
            ),
            ("1,2,3,4\n1, 2,3,4\n", "line 2: expected a number as field 2; got the string ' 2'."),
            ('1,2,3,4\n1,"2,3",4,5\n', "line 2: expected a number as field 2; got the string '2,3'."),
            ("1,2,3\n", "line 1: expected 4 numbers; got 3 fields"),
            ("1,2,3,4\n\n", "line 2: expected 4 numbers; got 0 fields"),
            ("1,2,3,4\n1,2,3,1e39", "line 2: expected numbers that float32 holds; number 3 is inf"),
            ("1,2,3,1e999", "line 1: expected numbers that float32 holds; number 3 is inf"),
            (f"1,2,3,{'9' * 400}", "line 1: expected numbers that float32 holds; number 3 is inf"),
            (f"1,-{'9' * 5000},3,4", "line 1: expected numbers that float32 holds; number 1 is -inf"),
        ],
    )
    def test_refused(self, text: str, said: str) -> None:
        assert refusal(lambda: tensor(text)) == said

    def test_domain(self) -> None:
        assert refusal(lambda: tensor("1,,2,11\n", GAPPY)) == "line 1: expected numbers from -10 to 10; number 3 is 11"

    def test_too_many(self) -> None:
        assert refusal(lambda: tensor("1,2,3,4\n" * 9), TooLarge) == "body: expected at most 8 rows; got more"


ages = st.one_of(st.none(), st.integers(0, 120), st.floats(0, 120))
notes = st.text(st.characters(codec="utf-8"), max_size=8)


@settings(deadline=None)
@given(st.lists(st.tuples(ages, st.sampled_from(JOBS), notes, st.floats(-1e38, 1e38)), min_size=1, max_size=8))
def test_csv_and_json_say_the_same(cells: list[tuple[float | None, str, str, float]]) -> None:
    names = [spec.name for spec in WIDE]
    text = io.StringIO(newline="")
    csv.writer(text).writerows([names, *cells])
    rows = table(text.getvalue(), WIDE)
    objects = decode_objects([dict(zip(names, row, strict=True)) for row in cells], WIDE, str)
    for name in names:
        np.testing.assert_array_equal(rows[name], objects[name])


@settings(deadline=None)
@given(st.text(st.sampled_from('01-.eE,"\n\r ageजob'), max_size=40))
def test_whatever_comes_is_read_or_refused(text: str) -> None:
    refused(lambda: table(f"age,job\n{text}"))
    refused(lambda: tensor(text, InputSpec(name="X", shape=[2])))
