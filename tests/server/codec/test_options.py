import pytest

from server.codec.options import RequestOptions, for_engine, join, parse_options
from server.engine import Options
from server.errors import InvalidInput

FULL = RequestOptions(strategy="vote", weights={"a": 0.5, "b": 2e-3}, members=("a", "b"), detail=("uncertainty",))


def test_parse_options() -> None:
    pairs = [("strategy", "vote"), ("weights", "a:0.5,b:2e-3"), ("members", "a,b"), ("detail", "uncertainty")]
    assert parse_options(pairs, where="query") == FULL
    assert parse_options([], where="query") == RequestOptions()


def test_says_where() -> None:
    with pytest.raises(InvalidInput, match=r"^form: weights: expected name:number"):
        parse_options([("weights", "1")], where="form")


def test_join_takes_what_one_side_says() -> None:
    assert join(FULL, RequestOptions()) == join(RequestOptions(), FULL) == join(FULL, FULL) == FULL
    mixed = join(RequestOptions(strategy="vote"), RequestOptions(members=("a",)))
    assert mixed == RequestOptions(strategy="vote", members=("a",))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (RequestOptions(strategy="vote"), RequestOptions(strategy="max")),
        (RequestOptions(weights={"a": 1.0}), RequestOptions(weights={"a": 2.0})),
        (RequestOptions(members=("a", "b")), RequestOptions(members=("b", "a"))),
        (RequestOptions(detail=("members",)), RequestOptions(detail=("uncertainty",))),
    ],
)
def test_join_refuses_two_answers(one: RequestOptions, other: RequestOptions) -> None:
    with pytest.raises(InvalidInput, match="given twice, and differently"):
        join(one, other)


def test_for_engine() -> None:
    assert for_engine(FULL) == Options(
        strategy="vote", weights={"a": 0.5, "b": 2e-3}, members=("a", "b"), uncertainty=True
    )
    assert for_engine(RequestOptions()) == Options()
