"""The documented shapes of requests and answers: pydantic models, from which the OpenAPI schema is made.

Predict requests and answers are read and written by `server.codec`, which is faster; the tests hold the two together.
"""

from typing import Annotated, Any

from fastapi import Path
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from typing_extensions import TypeAliasType

from server.codec.bodies import MAX_ID_LENGTH
from server.codec.numbers import FLOAT32_LIMIT
from server.codec.options import LONGEST_MS, MOST_MEMBERS, Detail
from server.codec.tables import TEXT_LIMIT
from server.fusion import BY_TASK, CASCADE
from server.manifest import NAME_PATTERN, OnFailure
from server.prediction import Reason

STRATEGY_ENUM: dict[str, Any] = {
    "enum": [*dict.fromkeys(name for pools in BY_TASK.values() for name in pools), CASCADE]
}

Number = Annotated[float, Field(gt=-FLOAT32_LIMIT, lt=FLOAT32_LIMIT, allow_inf_nan=False)]
Weight = Annotated[float, Field(ge=0, lt=FLOAT32_LIMIT, allow_inf_nan=False)]
Text = Annotated[str, Field(min_length=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Row = TypeAliasType("Row", "list[Number | None] | list[Row]")
Cell = Number | Annotated[str, Field(max_length=TEXT_LIMIT)] | None | Row


_CONTRIBUTIONS = "With detail=contributions: the answer, less the answer without this member."


def _digits(value: object) -> object:
    """Digits only: pydantic would take 1.0, and spaces around, for an integer."""
    if isinstance(value, str) and not (value.isascii() and value.isdigit()):
        raise ValueError("expected a positive integer")
    return value


def _unique(values: list[Detail]) -> list[Detail]:
    if len(set(values)) != len(values):
        raise ValueError("expected each once")
    return values


def absent() -> Any:
    """A field that may be left out, but not be null."""
    return Field(default_factory=lambda: None)


EnsembleName = Annotated[str, Path(pattern=NAME_PATTERN, description="name of the ensemble")]
VersionNumber = Annotated[int, Path(ge=1, le=999_999_999, description="its version"), BeforeValidator(_digits)]


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid")


class PredictRequest(Model):
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
    id: Annotated[str, Field(max_length=MAX_ID_LENGTH, description="Comes back.")] = absent()
    strategy: Annotated[
        Text, Field(description="The fusion strategy; else the ensemble's own.", json_schema_extra=STRATEGY_ENUM)
    ] = absent()
    weights: Annotated[
        dict[str, Weight],
        Field(min_length=1, description="By member, at any scale; for strategies that take weights."),
    ] = absent()
    members: Annotated[
        list[Text],
        Field(min_length=1, description="Only these take part, or, each after a `-`, all but these; else all."),
    ] = absent()
    detail: Annotated[
        list[Detail],
        Field(min_length=1, description="What to add to each prediction.", json_schema_extra={"uniqueItems": True}),
        AfterValidator(_unique),
    ] = absent()
    cascade_threshold: Annotated[
        Share,
        Field(description="How sure an answer must be for a cascade to stop; else the ensemble's own thresholds."),
    ] = absent()
    deadline_ms: Annotated[
        float,
        Field(
            gt=0,
            le=LONGEST_MS,
            description="Milliseconds from when the request came: whoever has not answered by then has no part in it. "
            "The header X-Request-Deadline-Ms says the same; the nearer of the two counts.",
        ),
    ] = absent()
    quorum: Annotated[
        int, Field(ge=1, le=MOST_MEMBERS, description="The least number of members that make an answer.")
    ] = absent()
    on_failure: Annotated[
        OnFailure, Field(description="Whether a member that fails fails the request, or has no part in its answer.")
    ] = absent()
    abstain_below: Annotated[Share, Field(description="The label is null where the confidence is lower.")] = absent()


class MemberAnswer(Model):
    """What one member answers: of a classification its label and probabilities, of a regression its values."""

    label: str = absent()
    probabilities: list[float] = absent()
    values: list[float] = absent()


class Uncertainty(Model):
    """Of a regression only the spread, of a classification the others."""

    entropy: Annotated[float, Field(description="Of the answer, in nats.")] = absent()
    mutual_information: Annotated[
        float, Field(description="Doubt that comes from the members' differing, by their weights, in nats.")
    ] = absent()
    disagreement: Annotated[float, Field(description="Share of members whose best class is another.")] = absent()
    vote_entropy: Annotated[float, Field(description="Of the shares of the members' votes, in nats.")] = absent()
    jensen_shannon: Annotated[
        float, Field(description="Divergence of the members' answers, each counting the same, in nats.")
    ] = absent()
    spread: Annotated[
        list[float], Field(description="Weighted standard deviation of the members' values, a target.")
    ] = absent()


class RowEstimate(Model):
    """Of a regression."""

    values: Annotated[list[float], Field(description="In the order of `targets`.")]
    members: Annotated[dict[str, MemberAnswer], Field(description="With detail=members.")] = absent()
    uncertainty: Annotated[Uncertainty, Field(description="With detail=uncertainty.")] = absent()
    contributions: Annotated[dict[str, list[float]], Field(description=_CONTRIBUTIONS)] = absent()


class RowPrediction(Model):
    """Of a classification."""

    label: Annotated[str | None, Field(description="null where abstain_below leaves it open.")]
    confidence: Annotated[float, Field(description="The probability of the label.")]
    probabilities: Annotated[list[float], Field(description="In the order of `classes`; they sum to 1.")]
    members: Annotated[dict[str, MemberAnswer], Field(description="With detail=members.")] = absent()
    uncertainty: Annotated[Uncertainty, Field(description="With detail=uncertainty.")] = absent()
    contributions: Annotated[dict[str, list[float]], Field(description=_CONTRIBUTIONS)] = absent()
    stage: Annotated[int, Field(ge=1, description="Of a cascade: which stage answered.")] = absent()


class PredictResponse(Model):
    """One prediction a row, in the rows' order."""

    model: str
    version: Annotated[int, Field(ge=1)]
    id: str | None
    strategy: str
    members: Annotated[dict[str, float], Field(description="Who took part, with which weight; sums to 1.")]
    degraded: Annotated[bool, Field(description="Whether members are missing that should have taken part.")]
    missing: Annotated[list[str], Field(description="Who should have taken part, and did not.")]
    reasons: Annotated[dict[str, Reason], Field(description="If there are missing ones: why, by name.")] = absent()
    classes: Annotated[list[str], Field(description="Of a classification.")] = absent()
    targets: Annotated[list[str], Field(description="Of a regression.")] = absent()
    predictions: list[RowPrediction] | list[RowEstimate]


class ErrorBody(Model):
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


_MEANINGS = {
    400: "The request is not valid; `error` says what was expected, what came and where.",
    401: "No API key, or none that the server knows.",
    403: "An API key that is not good for this.",
    404: "No such ensemble or version.",
    406: "None of the forms that an answer has is among those of `Accept`.",
    409: "Another change of what is served is under way.",
    413: "Over a limit: bytes of the body, rows, or pixels.",
    415: "No media type that there is, or none that the ensemble's rows can be read from.",
    500: "A fault of the server's.",
    503: "Not now: not ready, overloaded, or too many members failed.",
    504: "Too few members have answered in time.",
}


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For a route's `responses`: these error statuses with their one body."""
    return {status: {"model": ErrorBody, "description": _MEANINGS[status]} for status in statuses}
