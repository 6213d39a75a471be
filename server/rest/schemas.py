"""The documented shapes of requests and answers: pydantic models, from which the OpenAPI schema is made.

Predict requests and answers are read and written by `server.codec`, which is faster; the tests hold the two together.
"""

from typing import Annotated, Any, Literal

from fastapi import Path
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from typing_extensions import TypeAliasType

from server.codec.bodies import MAX_ID_LENGTH
from server.codec.numbers import FLOAT32_LIMIT
from server.codec.options import Detail
from server.codec.tables import TEXT_LIMIT
from server.fusion import STRATEGIES
from server.manifest import NAME_PATTERN

STRATEGY_ENUM: dict[str, Any] = {"enum": list(STRATEGIES)}

Number = Annotated[float, Field(gt=-FLOAT32_LIMIT, lt=FLOAT32_LIMIT, allow_inf_nan=False)]
Weight = Annotated[float, Field(ge=0, lt=FLOAT32_LIMIT, allow_inf_nan=False)]
Text = Annotated[str, Field(min_length=1)]
Row = TypeAliasType("Row", "list[Number | None] | list[Row]")
Cell = Number | Annotated[str, Field(max_length=TEXT_LIMIT)] | None | Row


def _digits(value: object) -> object:
    """Digits only: pydantic would take 1.0, and spaces around, for an integer."""
    if isinstance(value, str) and not (value.isascii() and value.isdigit()):
        raise ValueError("expected a positive integer")
    return value


def _unique(values: list[Detail]) -> list[Detail]:
    if len(set(values)) != len(values):
        raise ValueError("expected each once")
    return values


def _absent() -> Any:
    """A field that may be left out, but not be null."""
    return Field(default_factory=lambda: None)


EnsembleName = Annotated[str, Path(pattern=NAME_PATTERN, description="name of the ensemble")]
VersionNumber = Annotated[int, Path(ge=1, le=999_999_999, description="its version"), BeforeValidator(_digits)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid")


class PredictRequest(_Model):
    """Rows, and how their answer is to be made. The options may stand in the query instead."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={
            "examples": [
                {"instances": [[5.1, 3.5, 1.4, 0.2]]},
                {
                    "instances": [[5.1, 3.5, 1.4, 0.2], [6.2, 2.9, 4.3, 1.3]],
                    "id": "batch-7",
                    "strategy": "weighted",
                    "weights": {"cnn": 0.7, "xgb": 0.3},
                    "members": ["cnn", "xgb"],
                    "detail": ["members", "uncertainty"],
                },
                {"instances": [{"age": 41, "job": "nurse"}, {"age": None, "job": "cook"}]},
            ]
        },
    )

    instances: Annotated[
        list[Row] | list[dict[str, Cell]],
        Field(
            min_length=1,
            description="Rows. Of numbers: each flat, or nested as the ensemble's input shape, whose last dimensions "
            "may be left out where they are 1. Of a table: objects, with a value for each column. A value that may be "
            "missing is null, and its key may be absent.",
        ),
    ]
    id: Annotated[str, Field(max_length=MAX_ID_LENGTH, description="Comes back.")] = _absent()
    strategy: Annotated[
        Text, Field(description="The fusion strategy; else the ensemble's own.", json_schema_extra=STRATEGY_ENUM)
    ] = _absent()
    weights: Annotated[
        dict[str, Weight],
        Field(min_length=1, description="By member, at any scale; for strategies that take weights."),
    ] = _absent()
    members: Annotated[list[Text], Field(min_length=1, description="Only these take part; else all.")] = _absent()
    detail: Annotated[
        list[Detail],
        Field(min_length=1, description="What to add to each prediction.", json_schema_extra={"uniqueItems": True}),
        AfterValidator(_unique),
    ] = _absent()


class MemberAnswer(_Model):
    label: str
    probabilities: list[float]


class Uncertainty(_Model):
    entropy: Annotated[float, Field(description="Of the answer, in nats.")]
    mutual_information: Annotated[float, Field(description="Doubt that comes from members' differing, in nats.")]
    disagreement: Annotated[float, Field(description="Share of members whose best class is another.")]


class RowPrediction(_Model):
    label: str
    confidence: Annotated[float, Field(description="The probability of the label.")]
    probabilities: Annotated[list[float], Field(description="In the order of `classes`; they sum to 1.")]
    members: Annotated[dict[str, MemberAnswer], Field(description="With detail=members.")] = _absent()
    uncertainty: Annotated[Uncertainty, Field(description="With detail=uncertainty.")] = _absent()


class PredictResponse(_Model):
    """One prediction a row, in the rows' order."""

    model: str
    version: Annotated[int, Field(ge=1)]
    id: str | None
    strategy: str
    members: Annotated[dict[str, float], Field(description="Who took part, with which weight; sums to 1.")]
    degraded: Annotated[bool, Field(description="Whether members are missing that should have taken part.")]
    missing: list[str]
    classes: list[str]
    predictions: list[RowPrediction]


class ErrorBody(_Model):
    """What every error answers, on every route."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "example": {
                "error": "instances[3]: expected 784 numbers, or [28, 28], or [28, 28, 1]; got 783",
                "code": "invalid_input",
                "request_id": "8d7c0f2e6b1e4f0f9a3b5c7d9e1f2a3b",
            }
        },
    )

    error: str
    code: str
    request_id: str


class EnsembleSummary(_Model):
    name: str
    versions: list[int]
    description: str


class EnsembleList(_Model):
    default: Annotated[str, Field(description="The ensemble that /predict asks.")]
    ensembles: list[EnsembleSummary]


class InputDescription(_Model):
    name: str
    datatype: str
    shape: Annotated[list[int], Field(description="Of one row.")]
    low: float | None
    high: float | None
    missing: Annotated[bool, Field(description="Whether a value may be null.")]
    categories: Annotated[list[str] | None, Field(description="The values that text may have.")]
    unknown: Annotated[Literal["refuse", "accept"], Field(description="What becomes of other text.")]


class StrategyDescription(_Model):
    summary: str
    weights: Annotated[
        Literal["equal", "optional", "fitted"],
        Field(
            description="equal: takes none. optional: a request's, else equal. fitted: a request's, else fitted ones."
        ),
    ]
    calibrated: Annotated[bool, Field(description="Whether it combines calibrated probabilities.")]


class MemberDescription(_Model):
    name: str
    framework: str
    weights: Annotated[dict[str, float], Field(description="Fitted, by strategy.")]
    temperature: float
    cost_us: Annotated[float | None, Field(description="Microseconds a row.")]


class EnsembleDescription(_Model):
    name: str
    version: int
    versions: Annotated[list[int], Field(description="That are served.")]
    description: str
    created: str
    task: str
    classes: list[str]
    inputs: list[InputDescription]
    max_batch_size: Annotated[int, Field(description="The most rows that a request may hold.")]
    default_strategy: str
    strategies: dict[str, StrategyDescription]
    members: list[MemberDescription]
    report: Annotated[Any, Field(description="How it was trained and evaluated, if the version says so.")]


_MEANINGS = {
    400: "The request is not valid; `error` says what was expected, what came and where.",
    404: "No such ensemble or version.",
    406: "None of the forms that an answer has is among those of `Accept`.",
    413: "Over a limit: bytes of the body, rows, or pixels.",
    415: "No media type that there is, or none that the ensemble's rows can be read from.",
    500: "A fault of the server's.",
    503: "Not now: not ready, overloaded, or a member failed.",
}


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For a route's `responses`: these error statuses with their one body."""
    return {status: {"model": ErrorBody, "description": _MEANINGS[status]} for status in statuses}
