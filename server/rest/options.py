"""The options of a predict request: read from the query, and joined with those in the body."""

import re
from collections.abc import Iterable
from typing import TypeVar

from server import codec
from server.codec import RequestOptions
from server.engine import Options
from server.errors import InvalidInput

T = TypeVar("T")

PARAMETERS = ("strategy", "weights", "members", "detail")

_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")


def parse_query(parameters: Iterable[tuple[str, str]]) -> RequestOptions:
    """From `strategy=weighted&weights=cnn:0.7,xgb:0.3&members=cnn,xgb&detail=members`.

    Raises InvalidInput for a parameter that is unknown, malformed or given twice.
    """
    given: dict[str, str] = {}
    for name, value in parameters:
        if name not in PARAMETERS:
            raise InvalidInput(f"query: expected no parameters but {', '.join(PARAMETERS)}; got {codec.shown(name)}")
        if name in given:
            raise InvalidInput(f"query: expected {name} once; got it twice")
        if not value:
            raise InvalidInput(f"query: {name}: expected a value; got none")
        given[name] = value
    return RequestOptions(
        strategy=given.get("strategy"),
        weights=_parse_weights(given["weights"]) if "weights" in given else None,
        members=tuple(given["members"].split(",")) if "members" in given else None,
        detail=codec.check_details(given["detail"].split(","), where="query: detail") if "detail" in given else None,
    )


def join(query: RequestOptions, body: RequestOptions) -> RequestOptions:
    """What the two say together. Raises InvalidInput if they say different things about one option."""
    return RequestOptions(**{name: _either(name, getattr(query, name), getattr(body, name)) for name in PARAMETERS})


def for_engine(options: RequestOptions) -> Options:
    return Options(
        strategy=options.strategy,
        weights=options.weights,
        members=options.members,
        uncertainty="uncertainty" in (options.detail or ()),
    )


def _either(name: str, query: T | None, body: T | None) -> T | None:
    if query is not None and body is not None and query != body:
        raise InvalidInput(f"{name}: given twice, and differently, in the query and in the body")
    return body if query is None else query


def _parse_weights(text: str) -> dict[str, float]:
    """`cnn:0.7,xgb:0.3`."""
    weights: dict[str, float] = {}
    for entry in text.split(","):
        name, colon, number = entry.partition(":")
        if not colon or not name or not _NUMBER.fullmatch(number):
            raise InvalidInput(f"query: weights: expected name:number,name:number; got {codec.shown(entry)}")
        if name in weights:
            raise InvalidInput(f"query: weights: expected each member once; got {codec.shown(name)} twice")
        weights[name] = float(number)
    return weights
