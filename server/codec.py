"""Wire bytes to arrays and back. Strict: what is not exactly a request is refused, never guessed at."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import jiter
import numpy as np
import orjson
from numpy.typing import NDArray

from server.engine import Prediction
from server.errors import InvalidInput, TooLarge
from server.manifest import InputSpec

Detail = Literal["members", "uncertainty"]
DETAILS: tuple[Detail, ...] = ("members", "uncertainty")

FLOAT32_LIMIT = 2.0**128 - 2.0**103
"""The least magnitude that rounds to infinity in float32."""
MAX_ID_LENGTH = 128
FIELDS = ("instances", "id", "strategy", "weights", "members", "detail")


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestOptions:
    """What a request asks for beside its rows, as it was written; None where it says nothing."""

    strategy: str | None = None
    weights: Mapping[str, float] | None = None
    members: tuple[str, ...] | None = None
    detail: tuple[Detail, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictBody:
    rows: NDArray[np.float32]
    """`(n, *spec.shape)`, finite."""
    id: str | None
    options: RequestOptions


def decode_predict(body: bytes, spec: InputSpec, *, max_rows: int) -> PredictBody:
    """Read the JSON body of a predict request: `instances`, `id` and the options.

    A row may be written flat, or nested as `spec.shape` with or without its last dimensions of 1. Raises InvalidInput,
    which says what was expected, what came and where, and TooLarge if there are more than `max_rows` rows.
    """
    fields = _parse_object(body)
    for name in fields:
        if name not in FIELDS:
            raise InvalidInput(f"body: expected no fields but {', '.join(FIELDS)}; got {shown(name)}")
    if "instances" not in fields:
        raise InvalidInput('body: expected a field "instances", an array of rows; got none')
    rows = _decode_rows(fields["instances"], spec, max_rows=max_rows, plain=_holds_numbers_only(body))
    return PredictBody(rows=rows, id=_decode_id(fields), options=_decode_options(fields))


def encode_prediction(prediction: Prediction, *, id: str | None, detail: Sequence[Detail] = ()) -> bytes:  # noqa: A002
    """The JSON answer: what was asked, who answered with which weight, and an entry a row."""
    manifest, plan, fused = prediction.ensemble.manifest, prediction.plan, prediction.fused
    names = [prediction.ensemble.names[index] for index in plan.members]
    rows: list[dict[str, Any]] = [
        {"label": manifest.classes[label], "confidence": row[label], "probabilities": row}
        for label, row in zip(fused.labels.tolist(), fused.probabilities, strict=True)
    ]
    if "members" in detail:
        _add_members(rows, names, prediction)
    if prediction.uncertainty is not None and "uncertainty" in detail:
        doubt = prediction.uncertainty
        for row, *figures in zip(rows, doubt.entropy, doubt.mutual_information, doubt.disagreement, strict=True):
            row["uncertainty"] = dict(zip(("entropy", "mutual_information", "disagreement"), figures, strict=True))
    answer = {
        "model": manifest.name,
        "version": manifest.version,
        "id": id,
        "strategy": plan.strategy,
        "members": dict(zip(names, plan.weights, strict=True)),
        "degraded": False,
        "missing": [],
        "classes": manifest.classes,
        "predictions": rows,
    }
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)


def check_details(values: Iterable[object], *, where: str) -> tuple[Detail, ...]:
    """Raises InvalidInput unless each value names a detail, and none twice."""
    details = tuple(values)
    for value in details:
        if value not in DETAILS:
            raise InvalidInput(f"{where}: expected some of {', '.join(DETAILS)}; got {shown(value)}")
    if len(set(details)) != len(details):
        raise InvalidInput(f"{where}: expected each detail once; got one twice")
    return cast(tuple[Detail, ...], details)


def shown(value: object) -> str:
    """A JSON value as a message may quote it: of bounded length."""
    match value:
        case None | bool():
            return {None: "null", True: "true", False: "false"}[value]
        case str():
            return f"the string {value!r}" if len(value) <= 64 else f"a string of {len(value)} characters"
        case list():
            return f"an array of {len(value)}"
        case dict():
            return f"an object of {len(value)} fields"
        case int() if value.bit_length() > 128:
            return f"an integer of {value.bit_length()} bits"
        case _:
            return repr(value)


def _parse_object(body: bytes) -> dict[str, Any]:
    try:
        fields = jiter.from_json(body, catch_duplicate_keys=True, allow_inf_nan=False, cache_mode="keys")
    except ValueError as exc:
        raise InvalidInput(f"body: expected JSON in UTF-8, every key once, no NaN and no Infinity; {exc}") from exc
    if not isinstance(fields, dict):
        raise InvalidInput(f"body: expected a JSON object; got {shown(fields)}")
    return fields


def _holds_numbers_only(body: bytes) -> bool:
    """Whether a body that has parsed can hold no string but the key "instances", and no true, false or null.

    The key has neither a `u` nor an `l`, and each of the three literals has one: a few searches for single bytes
    stand for a look at the type of every number.
    """
    return body.count(b'"') == 2 and b"u" not in body and b"l" not in body


def _decode_rows(instances: object, spec: InputSpec, *, max_rows: int, plain: bool) -> NDArray[np.float32]:
    if not isinstance(instances, list) or not instances:
        raise InvalidInput(f"instances: expected an array of at least one row; got {shown(instances)}")
    if len(instances) > max_rows:
        raise TooLarge(f"instances: expected at most {max_rows} rows; got {len(instances)}")
    forms = _forms(spec.shape)
    rows = _convert_all(instances, forms) if plain else None
    if rows is None:
        rows = np.stack([_convert_one(row, forms, where=f"instances[{i}]") for i, row in enumerate(instances)])
    _check_range(rows, spec)
    return rows.reshape(len(instances), *spec.shape)


def _forms(shape: Sequence[int]) -> dict[int, tuple[int, ...]]:
    """The shapes that a row may be written in, by their number of dimensions."""
    forms: dict[int, tuple[int, ...]] = {1: (math.prod(shape),)}
    nested = tuple(shape)
    while len(nested) > 1:
        forms[len(nested)] = nested
        if nested[-1] != 1:
            break
        nested = nested[:-1]
    return dict(sorted(forms.items()))


def _convert_all(instances: list[Any], forms: Mapping[int, tuple[int, ...]]) -> NDArray[np.float32] | None:
    """All rows at once, `(n, size)`; None if something is wrong with one of them, or if they differ in form."""
    try:
        with np.errstate(over="ignore"):
            rows = np.array(instances, dtype=np.float32)
    except (ValueError, TypeError, OverflowError):
        return None
    fits = forms.get(rows.ndim - 1) == rows.shape[1:] and np.isfinite(rows).all()
    return rows.reshape(len(instances), -1) if fits else None


def _convert_one(row: object, forms: Mapping[int, tuple[int, ...]], *, where: str) -> NDArray[np.float32]:
    """One row, `(size,)`. Raises InvalidInput, naming the place."""
    form = forms.get(_depth(row))
    if form is None or not isinstance(row, list) or len(row) != form[0]:
        raise InvalidInput(f"{where}: expected {_described(forms)}; got {_described_row(row)}")
    _check_numbers(row, form, where)
    return np.array(row, dtype=np.float32).reshape(-1)


def _depth(row: object) -> int:
    depth = 0
    while isinstance(row, list):
        depth += 1
        row = row[0] if row else None
    return depth


def _check_numbers(values: object, form: tuple[int, ...], where: str) -> None:
    if not isinstance(values, list) or len(values) != form[0]:
        expected = f"{form[0]} numbers" if len(form) == 1 else str(list(form))
        raise InvalidInput(f"{where}: expected {expected}; got {_described_row(values)}")
    if len(form) > 1:
        for index, value in enumerate(values):
            _check_numbers(value, form[1:], f"{where}[{index}]")
    elif not _are_numbers(values) and (misfit := _first_misfit(values)) is not None:
        raise InvalidInput(f"{where}[{misfit}]: expected a number that float32 holds; got {shown(values[misfit])}")


def _are_numbers(values: list[Any]) -> bool:
    """Whether all are numbers that float32 holds: the usual case, told without a loop in Python."""
    return set(map(type, values)) <= {float, int} and min(values) > -FLOAT32_LIMIT and max(values) < FLOAT32_LIMIT


def _first_misfit(values: list[Any]) -> int | None:
    """The first that is no number, or one beyond float32."""
    return next((i for i, value in enumerate(values) if not _is_number(value) or abs(value) >= FLOAT32_LIMIT), None)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_range(rows: NDArray[np.float32], spec: InputSpec) -> None:
    """Raise InvalidInput at the first of `rows (n, size)` that is outside what the input declares."""
    low = -np.inf if spec.low is None else spec.low
    high = np.inf if spec.high is None else spec.high
    if rows.min() < low or rows.max() > high:
        row, place = np.argwhere((rows < low) | (rows > high))[0]
        raise InvalidInput(
            f"instances[{row}]: expected numbers from {low:g} to {high:g}; number {place} is {rows[row, place]:g}"
        )


def _described(forms: Mapping[int, tuple[int, ...]]) -> str:
    """`784 numbers, or [28, 28], or [28, 28, 1]`."""
    [[flat], *nested] = forms.values()
    return ", or ".join([f"{flat} numbers", *(str(list(form)) for form in nested)])


def _described_row(row: object) -> str:
    if not isinstance(row, list):
        return shown(row)
    return str(len(row)) if _depth(row) == 1 else f"{len(row)} arrays, nested {_depth(row)} deep"


def _decode_id(fields: Mapping[str, Any]) -> str | None:
    if "id" not in fields:
        return None
    value = fields["id"]
    if not isinstance(value, str) or len(value) > MAX_ID_LENGTH:
        raise InvalidInput(f"id: expected a string of at most {MAX_ID_LENGTH} characters; got {shown(value)}")
    return value


def _decode_options(fields: Mapping[str, Any]) -> RequestOptions:
    given: dict[str, Any] = {}
    if "strategy" in fields:
        given["strategy"] = _text(fields["strategy"], "strategy")
    if "weights" in fields:
        given["weights"] = _decode_weights(fields["weights"])
    if "members" in fields:
        names = _array(fields["members"], "members")
        given["members"] = tuple(_text(name, f"members[{i}]") for i, name in enumerate(names))
    if "detail" in fields:
        given["detail"] = check_details(_array(fields["detail"], "detail"), where="detail")
    return RequestOptions(**given)


def _decode_weights(weights: object) -> dict[str, float]:
    if not isinstance(weights, dict) or not weights:
        raise InvalidInput(f"weights: expected an object with a number for each member; got {shown(weights)}")
    for name, weight in weights.items():
        if not _is_number(weight) or not 0 <= weight < FLOAT32_LIMIT:
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


def _add_members(rows: list[dict[str, Any]], names: Sequence[str], prediction: Prediction) -> None:
    classes = prediction.ensemble.manifest.classes
    answers = prediction.member_probabilities.transpose(1, 0, 2)
    for row, answer in zip(rows, np.ascontiguousarray(answers), strict=True):
        row["members"] = {
            name: {"label": classes[label], "probabilities": probabilities}
            for name, label, probabilities in zip(names, answer.argmax(axis=1).tolist(), answer, strict=True)
        }
