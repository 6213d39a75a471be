"""How often models have been asked, what it took, and in which batches, as Triton's extension for statistics has it."""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from server import telemetry
from server.engine import Engine
from server.oip.models import Model, find_model, parse_version, versions_of
from server.statistics import Spent, Statistics


@dataclass(frozen=True, slots=True)
class Duration:
    count: int
    ns: int


@dataclass(frozen=True, slots=True)
class InferStatistics:
    success: Duration
    """A member's have no time: it answers in its ensemble's requests."""
    fail: Duration
    queue: Duration
    compute_input: Duration
    """Decoding."""
    compute_infer: Duration
    """The members, once a batch; of a member, its calls alone."""
    compute_output: Duration
    """Fusing and encoding."""


@dataclass(frozen=True, slots=True)
class BatchStatistics:
    batch_size: int
    """Of batches of so many rows, or fewer but more than the size before."""
    compute_infer: Duration


@dataclass(frozen=True, slots=True)
class ModelStatistics:
    name: str
    version: str
    last_inference: int
    """In milliseconds since 1970; 0: never."""
    inference_count: int
    """Rows."""
    execution_count: int
    """Batches."""
    inference_stats: InferStatistics
    batch_stats: tuple[BatchStatistics, ...]
    """None of a member."""


async def counted_until_now() -> Mapping[tuple[str, ...], Statistics]:
    """What has been counted over all workers; read beside the event loop, for the workers' files are."""
    telemetry.flush()  # in the thread that counts
    return await asyncio.to_thread(telemetry.statistics)


def models_of(engine: Engine, name: str = "", version: str = "") -> Iterable[Model]:
    """That one, or, of no version, all of its versions; of no name, all ensembles. Raises NotFound, InvalidInput."""
    if version:
        return [find_model(engine, name, parse_version(version))]
    if name:
        return versions_of(engine, find_model(engine, name))
    return [Model(ensemble) for ensemble in engine.repository.ensembles()]


def statistics_of(
    models: Iterable[Model], counted: Mapping[tuple[str, ...], Statistics]
) -> tuple[ModelStatistics, ...]:
    """Over all workers, since the server began; `counted` as `telemetry.statistics` has it."""
    return tuple(_statistics(model, counted) for model in models)


def _statistics(model: Model, counted: Mapping[tuple[str, ...], Statistics]) -> ModelStatistics:
    member = () if model.member is None else (model.member,)
    found = counted.get((model.ensemble.manifest.name, model.version, *member)) or Statistics()
    stages = found.stages
    return ModelStatistics(
        name=model.name,
        version=model.version,
        last_inference=round(found.last * 1000),
        inference_count=found.rows,
        execution_count=found.batches,
        inference_stats=InferStatistics(
            success=_duration(found.success),
            fail=_duration(found.failure),
            queue=_duration(stages["queue"]),
            compute_input=_duration(stages["decode"]),
            compute_infer=_duration(stages["members"]),
            compute_output=_duration(found.output),
        ),
        batch_stats=tuple(
            BatchStatistics(size, _duration(spent)) for size, spent in sorted(found.by_rows.items()) if spent.count
        ),
    )


def _duration(spent: Spent) -> Duration:
    return Duration(spent.count, round(spent.seconds * 1e9))
