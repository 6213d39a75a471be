import pytest
from pydantic import Field

from server.toml import Table, first_repeated, parse_toml


class Leaf(Table):
    size: int


class Tree(Table):
    name: str
    leaves: list[Leaf] = Field(default_factory=list)


def test_a_file_becomes_a_model_that_cannot_be_changed() -> None:
    tree = parse_toml(Tree, b'name = "oak"\n[[leaves]]\nsize = 3\n')
    assert tree == Tree(name="oak", leaves=[Leaf(size=3)])
    with pytest.raises(ValueError, match="frozen"):
        tree.name = "elm"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "name: Field required"),
        (b"name = 3", "name: Input should be a valid string, got 3"),
        (b'name = "oak"\nage = 3', "age: Extra inputs are not permitted, got 3"),
        (
            b'name = "oak"\n[[leaves]]\nsize = 1\n[[leaves]]\nsize = "2"',
            "leaves[1].size: Input should be a valid integer, got '2'",
        ),
        (b'name = "oak"\n[[leaves]]\nsize = true', "leaves[0].size: Input should be a valid integer, got True"),
        (b'name = "\xff"', "expected UTF-8, got byte 0xff at 8"),
        (b"name = ", "not TOML: Invalid value (at end of document)"),
    ],
)
def test_a_refusal_says_where_what_was_expected_and_what_came(data: bytes, message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        parse_toml(Tree, data)
    assert str(caught.value) == message


@pytest.mark.parametrize("data", [b"a = " + b"[" * 5000, b"a = 0x" + b"f" * 9000, b'name = "oak"\n"a\\nb" = 1'])
def test_a_refusal_is_one_line_however_strange_the_file(data: bytes) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        parse_toml(Tree, data)
    assert "\n" not in str(caught.value)


def test_the_first_of_what_comes_twice() -> None:
    assert first_repeated([1, 2, 3, 2, 1]) == 1
    assert first_repeated("abc") is None
