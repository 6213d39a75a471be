import pytest

from server.codec import RequestOptions
from server.engine import Options
from server.errors import InvalidInput
from server.rest.options import for_engine, join, parse_query

FULL = RequestOptions(strategy="vote", weights={"a": 0.5, "b": 2e-3}, members=("a", "b"), detail=("uncertainty",))


def test_parse_query() -> None:
    pairs = [("strategy", "vote"), ("weights", "a:0.5,b:2e-3"), ("members", "a,b"), ("detail", "uncertainty")]
    assert parse_query(pairs) == FULL
    assert parse_query([]) == RequestOptions()


def test_join_takes_what_one_side_says() -> None:
    assert join(FULL, RequestOptions()) == join(RequestOptions(), FULL) == join(FULL, FULL) == FULL
    mixed = join(RequestOptions(strategy="vote"), RequestOptions(members=("a",)))
    assert mixed == RequestOptions(strategy="vote", members=("a",))


@pytest.mark.parametrize(
    ("query", "body"),
    [
        (RequestOptions(strategy="vote"), RequestOptions(strategy="max")),
        (RequestOptions(weights={"a": 1.0}), RequestOptions(weights={"a": 2.0})),
        (RequestOptions(members=("a", "b")), RequestOptions(members=("b", "a"))),
        (RequestOptions(detail=("members",)), RequestOptions(detail=("uncertainty",))),
    ],
)
def test_join_refuses_two_answers(query: RequestOptions, body: RequestOptions) -> None:
    with pytest.raises(InvalidInput, match="given twice, and differently"):
        join(query, body)


def test_for_engine() -> None:
    assert for_engine(FULL) == Options(
        strategy="vote", weights={"a": 0.5, "b": 2e-3}, members=("a", "b"), uncertainty=True
    )
    assert for_engine(RequestOptions()) == Options()
