"""The documented shapes of what is said of ensembles."""

from typing import Annotated, Any, Literal

from pydantic import Field

from server.manifest import OnFailure
from server.rest.schemas import Model


class EnsembleSummary(Model):
    name: str
    versions: list[int]
    description: str


class EnsembleList(Model):
    default: Annotated[str, Field(description="The ensemble that /predict asks.")]
    ensembles: list[EnsembleSummary]


class InputDescription(Model):
    name: str
    datatype: str
    shape: Annotated[list[int], Field(description="Of one row.")]
    low: float | None
    high: float | None
    missing: Annotated[bool, Field(description="Whether a value may be null.")]
    categories: Annotated[list[str] | None, Field(description="The values that text may have.")]
    unknown: Annotated[Literal["refuse", "accept"], Field(description="What becomes of other text.")]


class StrategyDescription(Model):
    summary: str
    weights: Annotated[
        Literal["equal", "optional", "fitted"],
        Field(
            description="equal: takes none. optional: a request's, else equal. fitted: a request's, else fitted ones."
        ),
    ]
    calibrated: Annotated[bool, Field(description="Whether it combines calibrated probabilities.")]


class StageDescription(Model):
    members: list[str]
    threshold: Annotated[float, Field(description="A row whose answer is at least so sure stops here.")]


class CascadeDescription(Model):
    strategy: Annotated[str, Field(description="Which fuses the members of the stages.")]
    measure: Annotated[str, Field(description="How sure an answer is: confidence, or agreement of the members.")]
    tolerance: Annotated[float | None, Field(description="Share of rows by which its accuracy may be lower.")]
    stages: list[StageDescription]


class MemberDescription(Model):
    name: str
    framework: str
    weights: Annotated[dict[str, float], Field(description="Fitted, by strategy.")]
    temperature: float
    cost_us: Annotated[float | None, Field(description="Microseconds a row.")]


class EnsembleDescription(Model):
    name: str
    version: int
    versions: Annotated[list[int], Field(description="That are served.")]
    description: str
    created: str
    task: str
    classes: Annotated[list[str], Field(description="Of a classification.")]
    targets: Annotated[list[str], Field(description="Of a regression.")]
    inputs: list[InputDescription]
    max_batch_size: Annotated[int, Field(description="The most rows that a request may hold.")]
    default_strategy: str
    on_failure: Annotated[OnFailure, Field(description="What becomes of a request when a member fails or is late.")]
    quorum: Annotated[
        int | None,
        Field(description="The least number of members that make an answer; null: a majority of those asked."),
    ]
    strategies: Annotated[dict[str, StrategyDescription], Field(description="Those that it offers.")]
    cascade: Annotated[CascadeDescription | None, Field(description="The stages of strategy cascade.")]
    members: list[MemberDescription]
    report: Annotated[Any, Field(description="How it was trained and evaluated, if the version says so.")]
