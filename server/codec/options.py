"""The options of a predict request: as JSON has them, as text has them, and joined where both speak."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, cast

from server.codec.messages import shown
from server.codec.numbers import FLOAT32_LIMIT, NUMBER, is_number
from server.errors import InvalidInput
from server.manifest import OnFailure
from server.plan import Options

T = TypeVar("T")

Detail = Literal["members", "uncertainty", "contributions"]
DETAILS: tuple[Detail, ...] = ("members", "uncertainty", "contributions")
ON_FAILURE: tuple[OnFailure, ...] = ("fail", "degrade")
LONGEST_MS = 3_600_000
"""Of a deadline: an hour."""
MOST_MEMBERS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestOptions:
    """What a request asks for beside its rows, as it was written; None where it says nothing."""

    strategy: str | None = None
    weights: Mapping[str, float] | None = None
    members: tuple[str, ...] | None = None
    detail: tuple[Detail, ...] | None = None
    cascade_threshold: float | None = None
    deadline_ms: float | None = None
    quorum: int | None = None
    on_failure: OnFailure | None = None
    abstain_below: float | None = None


NO_OPTIONS = RequestOptions()
"""Of a request that says nothing."""


def decode_options(fields: Mapping[str, Any]) -> RequestOptions:
    """Those among the fields of a JSON body. Raises InvalidInput."""
    given: dict[str, Any] = {
        name: option.decode(fields[name], name) for name, option in _OPTIONS.items() if name in fields
    }
    return RequestOptions(**given)


def parse_options(parameters: Iterable[tuple[str, str]], *, where: str) -> RequestOptions:
    """From `strategy=weighted`, `weights=cnn:0.7,xgb:0.3`, `members=cnn,xgb`, `detail=members`; `where`: the query.

    Raises InvalidInput for a parameter that is unknown, malformed or given twice.
    """
    given: dict[str, str] = {}
    for name, value in parameters:
        if name not in OPTIONS:
            raise InvalidInput(f"{where}: expected no parameters but {', '.join(OPTIONS)}; got {shown(name)}")
        if name in given:
            raise InvalidInput(f"{where}: expected {name} once; got it twice")
        if not value:
            raise InvalidInput(f"{where}: {name}: expected a value; got none")
        given[name] = value
    read: dict[str, Any] = {
        name: option.parse(given[name], f"{where}: {name}") for name, option in _OPTIONS.items() if name in given
    }
    return RequestOptions(**read)


def parse_deadline(values: Iterable[str]) -> float | None:
    """Milliseconds, of the headers `X-Request-Deadline-Ms`: the nearest of them. Raises InvalidInput."""
    deadlines = [_parse_deadline(value, "X-Request-Deadline-Ms") for value in values]
    return min(deadlines, default=None)


def join(one: RequestOptions, other: RequestOptions) -> RequestOptions:
    """What the two say together. Raises InvalidInput if they say different things about one option."""
    if one is NO_OPTIONS or other is NO_OPTIONS:
        return other if one is NO_OPTIONS else one
    return RequestOptions(**{name: _either(name, getattr(one, name), getattr(other, name)) for name in OPTIONS})


def for_engine(options: RequestOptions) -> Options:
    said = {name: getattr(options, name) for name in OPTIONS if name != "detail"}
    detail = options.detail or ()
    return Options(**said, uncertainty="uncertainty" in detail, contributions="contributions" in detail)


def _either(name: str, one: T | None, other: T | None) -> T | None:
    if one is not None and other is not None and one != other:
        raise InvalidInput(f"{name}: given twice, and differently")
    return other if one is None else one


# ---- Words ----------------------------------------------------------------------------------------------------------


def _text(value: object, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise InvalidInput(f"{where}: expected a string that is not empty; got {shown(value)}")
    return value


def _array(value: object, where: str) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise InvalidInput(f"{where}: expected an array of at least one string; got {shown(value)}")
    return value


def _decode_members(value: object, where: str) -> tuple[str, ...]:
    return tuple(_text(name, f"{where}[{i}]") for i, name in enumerate(_array(value, where)))


def _check_details(values: Iterable[object], where: str) -> tuple[Detail, ...]:
    """Raises InvalidInput unless each value names a detail, and none twice."""
    details = tuple(values)
    for value in details:
        if value not in DETAILS:
            raise InvalidInput(f"{where}: expected some of {', '.join(DETAILS)}; got {shown(value)}")
    if len(set(details)) != len(details):
        raise InvalidInput(f"{where}: expected each detail once; got one twice")
    return cast(tuple[Detail, ...], details)


def _on_failure(value: object, where: str) -> OnFailure:
    if value == "fail" or value == "degrade":
        return value
    raise InvalidInput(f"{where}: expected {' or '.join(ON_FAILURE)}; got {shown(value)}")


# ---- Numbers --------------------------------------------------------------------------------------------------------


def _parse_weights(text: str, where: str) -> dict[str, float]:
    """`cnn:0.7,xgb:0.3`."""
    weights: dict[str, float] = {}
    for entry in text.split(","):
        name, colon, number = entry.partition(":")
        if not colon or not name or not NUMBER.fullmatch(number):
            raise InvalidInput(f"{where}: expected name:number,name:number; got {shown(entry)}")
        if name in weights:
            raise InvalidInput(f"{where}: expected each member once; got {shown(name)} twice")
        weights[name] = float(number)
    return weights


def _decode_weights(weights: object, where: str) -> dict[str, float]:
    if not isinstance(weights, dict) or not weights:
        raise InvalidInput(f"{where}: expected an object with a number for each member; got {shown(weights)}")
    for name, weight in weights.items():
        if not is_number(weight) or not 0 <= weight < FLOAT32_LIMIT:
            raise InvalidInput(
                f"{where}: expected numbers that are not negative; got {shown(weight)} for {name[:64]!r}"
            )
    return {name: float(weight) for name, weight in weights.items()}


def _decode_share(value: object, where: str) -> float:
    if not is_number(value) or not 0 <= cast(float, value) <= 1:
        raise InvalidInput(f"{where}: expected a number from 0 to 1; got {shown(value)}")
    return float(cast(float, value))


def _parse_share(text: str, where: str) -> float:
    value = float(text) if NUMBER.fullmatch(text) else -1.0
    if not 0 <= value <= 1:
        raise InvalidInput(f"{where}: expected a number from 0 to 1; got {shown(text)}")
    return value


def _decode_deadline(value: object, where: str) -> float:
    if not is_number(value) or not 0 < cast(float, value) <= LONGEST_MS:
        raise InvalidInput(f"{where}: expected milliseconds, above 0 and at most {LONGEST_MS}; got {shown(value)}")
    return float(cast(float, value))


def _parse_deadline(text: str, where: str) -> float:
    value = float(text) if NUMBER.fullmatch(text) else 0.0
    if not 0 < value <= LONGEST_MS:
        raise InvalidInput(f"{where}: expected milliseconds, above 0 and at most {LONGEST_MS}; got {shown(text)}")
    return value


def _decode_quorum(value: object, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MOST_MEMBERS:
        raise InvalidInput(f"{where}: expected a whole number from 1 to {MOST_MEMBERS}; got {shown(value)}")
    return value


def _parse_quorum(text: str, where: str) -> int:
    if not re.fullmatch("[1-9][0-9]{0,2}", text) or int(text) > MOST_MEMBERS:
        raise InvalidInput(f"{where}: expected a whole number from 1 to {MOST_MEMBERS}; got {shown(text)}")
    return int(text)


# ---- All of them ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Option:
    """How an option is read; both are told where it stands, and raise InvalidInput."""

    decode: Callable[[object, str], object]
    """From a JSON value."""
    parse: Callable[[str, str], object]
    """From text that is not empty."""


_SHARE = _Option(_decode_share, _parse_share)
_OPTIONS = {
    "strategy": _Option(_text, _text),
    "weights": _Option(_decode_weights, _parse_weights),
    "members": _Option(_decode_members, lambda text, where: tuple(text.split(","))),
    "detail": _Option(
        lambda value, where: _check_details(_array(value, where), where),
        lambda text, where: _check_details(text.split(","), where),
    ),
    "cascade_threshold": _SHARE,
    "deadline_ms": _Option(_decode_deadline, _parse_deadline),
    "quorum": _Option(_decode_quorum, _parse_quorum),
    "on_failure": _Option(_on_failure, _on_failure),
    "abstain_below": _SHARE,
}
OPTIONS = tuple(_OPTIONS)
