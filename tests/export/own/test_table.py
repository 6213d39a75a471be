from pathlib import Path

import numpy as np
import pytest

from export.errors import InvalidData
from export.own.table import read_table
from server.manifest import InputSpec

TABLE = """\
age,city,fare,survived
22,Bern,7.25,no
,Zürich,1e2,yes
38.5,,NA,yes
-1,Bern,.5,no
+4,Zürich,5.,no
"""


def _write(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "own.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def _refusal(tmp_path: Path, text: str | bytes, target: str | None = None) -> str:
    path = _write(tmp_path, text)
    with pytest.raises(InvalidData) as caught:
        read_table(path, target)
    assert "\n" not in caught.value.message
    return caught.value.message.removeprefix(f"{path}: ")


def test_columns_are_numbers_or_text_and_may_miss_values(tmp_path: Path) -> None:
    samples = read_table(_write(tmp_path, TABLE), None)
    assert samples.inputs == [
        InputSpec(name="age", shape=[1], missing=True),
        InputSpec(name="city", datatype="BYTES", shape=[1], missing=True, categories=["Bern", "Zürich"]),
        InputSpec(name="fare", shape=[1], missing=True),
    ]
    assert samples.x.dtype == np.dtype([("age", "f4", (1,)), ("city", object, (1,)), ("fare", "f4", (1,))])
    np.testing.assert_array_equal(samples.x["age"].ravel(), np.array([22, np.nan, 38.5, -1, 4], dtype=np.float32))
    np.testing.assert_array_equal(samples.x["fare"].ravel(), np.array([7.25, 100, np.nan, 0.5, 5], dtype=np.float32))
    assert samples.x["city"].ravel().tolist() == ["Bern", "Zürich", "", "Bern", "Zürich"]
    assert samples.classes == ["no", "yes"]
    assert samples.y.tolist() == [0, 1, 1, 0, 0]


@pytest.mark.parametrize(
    ("header", "target", "found"),
    [
        ("a,b,c", None, "c"),
        ("a,b,c", "a", "a"),
        ("a,Label,c", None, "Label"),
        ("y,b,c", None, "y"),
        ("target,class,c", "c", "c"),
    ],
)
def test_which_column_holds_the_labels(tmp_path: Path, header: str, target: str | None, found: str) -> None:
    samples = read_table(_write(tmp_path, f"{header}\n1,2,3\n4,5,6\n"), target)
    assert samples.where.endswith(f"column {found!r}, the labels")
    assert found not in [spec.name for spec in samples.inputs]


def test_numbers_alone_are_a_table_too(tmp_path: Path) -> None:
    samples = read_table(_write(tmp_path, "a,b,y\n1,2,0\n3,4,10\n3,4,9.0\n"), None)
    assert samples.x.dtype.names == ("a", "b")
    assert not any(spec.missing for spec in samples.inputs)
    assert samples.classes == ["0", "9", "10"]  # as numbers: not 0, 10, 9
    assert samples.y.tolist() == [0, 2, 1]


def test_one_column_beside_the_labels_is_no_table(tmp_path: Path) -> None:
    samples = read_table(_write(tmp_path, "a,y\n1,0\n3,1\n"), None)
    np.testing.assert_array_equal(samples.x, np.array([[1], [3]], dtype=np.float32))


def test_what_is_no_number_makes_a_column_of_text(tmp_path: Path) -> None:
    """What Python alone, or pandas alone, takes for a number does not count; nor does true, nor a date."""
    cells = ["1_000", "inf", "0x10", "٣", "True", "1,5", "2024-01-01", "12 kg"]
    for cell in cells:
        samples = read_table(_write(tmp_path, f'a,b,y\n1,"{cell}",0\n1,"{cell}",0\n'), None)
        assert samples.inputs[1].categories == [cell]


def test_text_keeps_its_blanks_quotes_and_line_breaks(tmp_path: Path) -> None:
    samples = read_table(_write(tmp_path, 'a,y\n" x",0\n" x",0\n"say ""hi""\n, twice",1\n,1\n  ,1\n'), None)
    assert samples.x["a"].ravel().tolist() == [" x", " x", 'say "hi"\n, twice', "", ""]


def test_text_that_seldom_repeats_is_free(tmp_path: Path) -> None:
    rows = "".join(f"name {place},kind {place % 3},{place % 2}\n" for place in range(12))
    name, kind = read_table(_write(tmp_path, f"name,kind,y\n{rows}"), None).inputs
    assert name.categories is None
    assert kind.categories == ["kind 0", "kind 1", "kind 2"]


def test_what_spreadsheets_write_is_read(tmp_path: Path) -> None:
    """A byte order mark, CRLF, and a blank line at the end."""
    samples = read_table(_write(tmp_path, b"\xef\xbb\xbfa,y\r\n1,no\r\n2,yes\r\n\r\n"), None)
    assert [spec.name for spec in samples.inputs] == ["a"]
    assert samples.classes == ["no", "yes"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: expected 2 to 4096 names with commas between, got 0: ''"),
        ("a;b\n1;2\n", "line 1: expected 2 to 4096 names with commas between, got 1: 'a;b'"),
        (",a,y\n0,1,2\n", "line 1: expected a name for each column, got none for number 1; pandas writes an index so"),
        ("a,,y\n0,1,2\n", "line 1: expected a name for each column, got none for number 2"),
        ("a,a,y\n0,1,2\n", "line 1: expected each name once, got 'a' twice"),
        ("a,y\n", "expected rows below the line of names, got none"),
        ("a,y\n1,2\n\n1,2,3\n", "line 4: expected 2 cells, got 3"),
        ('a,y\n1,2\n"1,2\n', "line 3: expected CSV, got: unexpected end of data"),
        (b"a,y\n\xff,1\n", "expected UTF-8, got byte 0xff at 4"),
        ("a,y\n1,no\n2,\n", "column 'y', the labels: expected a label in every row, got none in line 3"),
        ("a,b,y\n1,,0\n2, ,1\n", "column 'b': expected a value in some row, got none in any"),
        ("a,y\n1,0\n-1e39,1\n", "column 'a': expected numbers that float32 holds, got -1e39 in line 3"),
        ("weights,y\n1,0\n", "column 'weights': cannot be the name of an input: expected a name other than"),
        ("a/b,y\n1,0\n", "column 'a/b': cannot be the name of an input: String should match pattern"),
        ("y,a,target\n1,0,1\n", "expected to be told which column holds the labels: y or target"),
    ],
)
def test_what_is_no_such_table_is_refused(tmp_path: Path, text: str | bytes, message: str) -> None:
    assert _refusal(tmp_path, text).startswith(message)


def test_an_unknown_target_is_told_the_columns(tmp_path: Path) -> None:
    assert _refusal(tmp_path, TABLE, "alive") == (
        "expected a column 'alive' with the labels, got age, city, fare, survived"
    )
    many = ",".join(f"c{place}" for place in range(30))
    assert _refusal(tmp_path, many, "y").endswith("c18, c19 and 10 more") is False  # no rows: that comes first
    message = _refusal(tmp_path, f"{many}\n{','.join('1' * 30)}\n", "y")
    assert message.endswith("c18, c19 and 10 more")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match=r"none\.csv: cannot be read: No such file"):
        read_table(tmp_path / "none.csv", None)
