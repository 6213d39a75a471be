from dataclasses import fields
from typing import Any

import pytest

from server.codec.options import (
    DETAILS,
    ON_FAILURE,
    OPTIONS,
    RequestOptions,
    decode_options,
    for_engine,
    join,
    parse_deadline,
    parse_options,
)
from server.errors import InvalidInput
from server.plan import Options
from tests.server.codec.specs import refusal

FULL = RequestOptions(
    strategy="vote",
    weights={"a": 0.5, "b": 2e-3},
    members=("a", "b"),
    detail=("uncertainty", "contributions"),
    cascade_threshold=0.9,
    deadline_ms=50.0,
    quorum=2,
    on_failure="fail",
    abstain_below=0.75,
)
PAIRS = {
    "strategy": "vote",
    "weights": "a:0.5,b:2e-3",
    "members": "a,b",
    "detail": "uncertainty,contributions",
    "cascade_threshold": "0.9",
    "deadline_ms": "5e1",
    "quorum": "2",
    "on_failure": "fail",
    "abstain_below": "7.5e-1",
}
"""What text says of FULL."""
FIELDS: dict[str, Any] = {
    "strategy": "vote",
    "weights": {"a": 0.5, "b": 2e-3},
    "members": ["a", "b"],
    "detail": ["uncertainty", "contributions"],
    "cascade_threshold": 0.9,
    "deadline_ms": 50,
    "quorum": 2,
    "on_failure": "fail",
    "abstain_below": 0.75,
}
"""What JSON says of it."""
OTHER = RequestOptions(
    strategy="max",
    weights={"a": 1.0},
    members=("b", "a"),
    detail=("members",),
    cascade_threshold=0.0,
    deadline_ms=51.0,
    quorum=1,
    on_failure="degrade",
    abstain_below=0.0,
)
"""Nothing is as in FULL, and some of it is false."""


def test_options_are_the_fields_of_a_request() -> None:
    assert OPTIONS == tuple(field.name for field in fields(RequestOptions)) == tuple(PAIRS) == tuple(FIELDS)


def test_parse_options() -> None:
    assert parse_options(PAIRS.items(), where="query") == FULL
    assert parse_options([], where="query") == RequestOptions()


def test_decode_options() -> None:
    assert decode_options({"instances": [], "id": "x", **FIELDS}) == FULL
    assert decode_options({"instances": []}) == RequestOptions()


def test_numbers_become_floats_of_python() -> None:
    options = decode_options({"cascade_threshold": 1, "deadline_ms": 7, "abstain_below": 0})
    read = [options.cascade_threshold, options.deadline_ms, options.abstain_below]
    assert [repr(value) for value in read] == ["1.0", "7.0", "0.0"]


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("members", "-b", ("-b",)),
        ("members", "-b,a,", ("-b", "a", "")),
        ("detail", "members", ("members",)),
        ("detail", ",".join(DETAILS), DETAILS),
        ("cascade_threshold", "0", 0.0),
        ("cascade_threshold", "1.000", 1.0),
        ("cascade_threshold", "-0", 0.0),
        ("cascade_threshold", "1e-400", 0.0),
        ("deadline_ms", "3600000", 3_600_000.0),
        ("deadline_ms", "0.5", 0.5),
        ("quorum", "1", 1),
        ("quorum", "256", 256),
        *(("on_failure", word, word) for word in ON_FAILURE),
    ],
)
def test_text_is_read(name: str, text: str, value: object) -> None:
    assert getattr(parse_options([(name, text)], where="query"), name) == value


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("weights", "1", "weights: expected name:number,name:number; got the string '1'"),
        ("detail", "all", "detail: expected some of members, uncertainty, contributions; got the string 'all'"),
        ("detail", "", "detail: expected a value; got none"),
        ("cascade_threshold", "1.01", "cascade_threshold: expected a number from 0 to 1; got the string '1.01'"),
        ("cascade_threshold", " 1", "cascade_threshold: expected a number from 0 to 1; got the string ' 1'"),
        ("abstain_below", "-1e-9", "abstain_below: expected a number from 0 to 1; got the string '-1e-9'"),
        ("abstain_below", "1e999", "abstain_below: expected a number from 0 to 1; got the string '1e999'"),
        (
            "deadline_ms",
            "1e-400",
            "deadline_ms: expected milliseconds, above 0 and at most 3600000; got the string '1e-400'",
        ),
        (
            "deadline_ms",
            "9" * 99,
            "deadline_ms: expected milliseconds, above 0 and at most 3600000; got a string of 99 characters",
        ),
        ("quorum", "+1", "quorum: expected a whole number from 1 to 256; got the string '+1'"),
        ("quorum", "1\n", "quorum: expected a whole number from 1 to 256; got the string '1\\n'"),
        ("quorum", "9" * 5000, "quorum: expected a whole number from 1 to 256; got a string of 5000 characters"),
        ("on_failure", "retry", "on_failure: expected fail or degrade; got the string 'retry'"),
        ("timeout", "1", f"expected no parameters but {', '.join(OPTIONS)}; got the string 'timeout'"),
    ],
)
def test_text_that_is_refused(name: str, text: str, said: str) -> None:
    assert refusal(lambda: parse_options([(name, text)], where="form")) == f"form: {said}"


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_twice_is_refused(name: str) -> None:
    pairs = [(name, PAIRS[name])] * 2
    assert refusal(lambda: parse_options(pairs, where="query")) == f"query: expected {name} once; got it twice"


def test_says_where() -> None:
    with pytest.raises(InvalidInput, match=r"^form: weights: expected name:number"):
        parse_options([("weights", "1")], where="form")


@pytest.mark.parametrize(
    ("values", "nearest"), [([], None), (["50"], 50.0), (["50", "4e1", "60"], 40.0), (["0.001"], 0.001)]
)
def test_parse_deadline(values: list[str], nearest: float | None) -> None:
    assert parse_deadline(values) == nearest


def test_every_header_has_to_be_a_deadline() -> None:
    assert refusal(lambda: parse_deadline(["50", "soon"])) == (
        "X-Request-Deadline-Ms: expected milliseconds, above 0 and at most 3600000; got the string 'soon'"
    )


def test_join_takes_what_one_side_says() -> None:
    for options in (FULL, OTHER):
        assert join(options, RequestOptions()) == join(RequestOptions(), options) == join(options, options) == options
    mixed = join(RequestOptions(strategy="vote"), RequestOptions(members=("a",)))
    assert mixed == RequestOptions(strategy="vote", members=("a",))


@pytest.mark.parametrize("name", OPTIONS)
def test_join_refuses_two_answers(name: str) -> None:
    one, other = (RequestOptions(**{name: getattr(options, name)}) for options in (FULL, OTHER))
    for pair in ((one, other), (other, one)):
        assert refusal(lambda pair=pair: join(*pair)) == f"{name}: given twice, and differently"  # type: ignore[misc]


def test_for_engine() -> None:
    assert for_engine(FULL) == Options(
        strategy="vote",
        weights={"a": 0.5, "b": 2e-3},
        members=("a", "b"),
        cascade_threshold=0.9,
        deadline_ms=50.0,
        quorum=2,
        on_failure="fail",
        abstain_below=0.75,
        uncertainty=True,
        contributions=True,
    )
    assert for_engine(RequestOptions()) == Options()
    assert for_engine(RequestOptions(detail=("members",))) == Options()
    assert for_engine(RequestOptions(detail=("contributions",))) == Options(contributions=True)
