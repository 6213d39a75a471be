import asyncio
from pathlib import Path

import pytest

from server import telemetry
from server.engine import Engine
from server.errors import InvalidInput, NotFound
from server.oip.statistics import ModelStatistics, models_of, statistics_of
from server.plan import Options
from server.repository import Repository, load_version
from tests import tiny


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """Of names that no other test counts under."""
    root: Path = tmp_path_factory.mktemp("models")
    written = [
        tiny.write_ensemble(root, name="asked"),
        tiny.write_ensemble(root, name="asked", version=2),
        tiny.write_ensemble(root, name="unasked"),
    ]
    return Engine(Repository(map(load_version, written)), default="asked")


def told(engine: Engine, name: str = "", version: str = "") -> dict[tuple[str, str], ModelStatistics]:
    telemetry.flush()
    found = statistics_of(models_of(engine, name, version), telemetry.statistics())
    return {(of.name, of.version): of for of in found}


def test_which_models_are_meant(engine: Engine) -> None:
    assert set(told(engine)) == {("asked", "1"), ("asked", "2"), ("unasked", "1")}
    assert set(told(engine, "asked")) == {("asked", "1"), ("asked", "2")}
    assert set(told(engine, "asked.m2", "1")) == {("asked.m2", "1")}
    with pytest.raises(NotFound):
        told(engine, "nope")
    with pytest.raises(InvalidInput):
        told(engine, "asked", "x")


def test_what_was_asked(engine: Engine) -> None:
    async def ask() -> None:
        ensemble = engine.ensemble("asked", 1)
        for n_rows in (1, 3):
            await engine.infer(ensemble, tiny.rows(n_rows), Options())
        await engine.infer(ensemble, tiny.rows(2), Options(members=("m1",)))
        with pytest.raises(InvalidInput):
            await engine.infer(ensemble, tiny.rows(2), Options(strategy="nope"))

    asyncio.run(ask())
    found = told(engine)["asked", "1"]
    assert (found.inference_count, found.execution_count) == (6, 3)
    assert [(batch.batch_size, batch.compute_infer.count) for batch in found.batch_stats] == [(1, 1), (2, 1), (4, 1)]
    stats = found.inference_stats
    assert (stats.success.count, stats.fail.count, stats.queue.count, stats.compute_infer.count) == (3, 1, 3, 3)
    assert stats.success.ns >= stats.compute_infer.ns > 0
    assert sum(batch.compute_infer.ns for batch in found.batch_stats) == pytest.approx(stats.compute_infer.ns, abs=9)
    assert found.last_inference > 1e12
    alone, other = (told(engine, f"asked.{name}", "1")[f"asked.{name}", "1"] for name in ("m1", "m2"))
    assert (alone.inference_count, alone.execution_count, alone.inference_stats.success.count) == (6, 3, 3)
    assert (other.inference_count, other.execution_count, other.inference_stats.success.count) == (4, 2, 2)
    assert (alone.inference_stats.compute_infer.count, other.inference_stats.compute_infer.count) == (1, 0)
    unasked = told(engine, "unasked")["unasked", "1"]
    assert (unasked.inference_count, unasked.last_inference, unasked.batch_stats) == (0, 0, ())
