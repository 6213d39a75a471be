"""The options of a predict request: as JSON has them, as text has them, and joined where both speak."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, cast

from server.codec.messages import shown
from server.codec.numbers import FLOAT32_LIMIT, NUMBER, is_number
from server.errors import InvalidInput
from server.plan import Options

T = TypeVar("T")

Detail = Literal["members", "uncertainty"]
DETAILS: tuple[Detail, ...] = ("members", "uncertainty")
OPTIONS = ("strategy", "weights", "members", "detail")


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestOptions:
    """What a request asks for beside its rows, as it was written; None where it says nothing."""

    strategy: str | None = None
    weights: Mapping[str, float] | None = None
    members: tuple[str, ...] | None = None
    detail: tuple[Detail, ...] | None = None


def decode_options(fields: Mapping[str, Any]) -> RequestOptions:
    """Those among the fields of a JSON body. Raises InvalidInput."""
    given: dict[str, Any] = {}
    if "strategy" in fields:
        given["strategy"] = _text(fields["strategy"], "strategy")
    if "weights" in fields:
        given["weights"] = _decode_weights(fields["weights"])
    if "members" in fields:
        names = _array(fields["members"], "members")
        given["members"] = tuple(_text(name, f"members[{i}]") for i, name in enumerate(names))
    if "detail" in fields:
        given["detail"] = _check_details(_array(fields["detail"], "detail"), where="detail")
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
    return RequestOptions(
        strategy=given.get("strategy"),
        weights=_parse_weights(given["weights"], where) if "weights" in given else None,
        members=tuple(given["members"].split(",")) if "members" in given else None,
        detail=_check_details(given["detail"].split(","), where=f"{where}: detail") if "detail" in given else None,
    )


def join(one: RequestOptions, other: RequestOptions) -> RequestOptions:
    """What the two say together. Raises InvalidInput if they say different things about one option."""
    return RequestOptions(**{name: _either(name, getattr(one, name), getattr(other, name)) for name in OPTIONS})


def for_engine(options: RequestOptions) -> Options:
    return Options(
        strategy=options.strategy,
        weights=options.weights,
        members=options.members,
        uncertainty="uncertainty" in (options.detail or ()),
    )


def _check_details(values: Iterable[object], *, where: str) -> tuple[Detail, ...]:
    """Raises InvalidInput unless each value names a detail, and none twice."""
    details = tuple(values)
    for value in details:
        if value not in DETAILS:
            raise InvalidInput(f"{where}: expected some of {', '.join(DETAILS)}; got {shown(value)}")
    if len(set(details)) != len(details):
        raise InvalidInput(f"{where}: expected each detail once; got one twice")
    return cast(tuple[Detail, ...], details)


def _either(name: str, one: T | None, other: T | None) -> T | None:
    if one is not None and other is not None and one != other:
        raise InvalidInput(f"{name}: given twice, and differently")
    return other if one is None else one


def _parse_weights(text: str, where: str) -> dict[str, float]:
    """`cnn:0.7,xgb:0.3`."""
    weights: dict[str, float] = {}
    for entry in text.split(","):
        name, colon, number = entry.partition(":")
        if not colon or not name or not NUMBER.fullmatch(number):
            raise InvalidInput(f"{where}: weights: expected name:number,name:number; got {shown(entry)}")
        if name in weights:
            raise InvalidInput(f"{where}: weights: expected each member once; got {shown(name)} twice")
        weights[name] = float(number)
    return weights


def _decode_weights(weights: object) -> dict[str, float]:
    if not isinstance(weights, dict) or not weights:
        raise InvalidInput(f"weights: expected an object with a number for each member; got {shown(weights)}")
    for name, weight in weights.items():
        if not is_number(weight) or not 0 <= weight < FLOAT32_LIMIT:
            raise InvalidInput(
                f"weights: expected numbers that are not negative; got {shown(weight)} for {name[:64]!r}"
            )
    return {name: float(weight) for name, weight in weights.items()}


def _text(value: object, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise InvalidInput(f"{where}: expected a string that is not empty; got {shown(value)}")
    return value


def _array(value: object, where: str) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise InvalidInput(f"{where}: expected an array of at least one string; got {shown(value)}")
    return value
