import asyncio
from pathlib import Path
from typing import Any

import pytest

from server import telemetry
from server.app import FLUSH_SECONDS, create_app
from server.budget import FREE, Share
from server.engine import Engine, Limits
from server.ensemble import Ensemble
from server.errors import InvalidRepository
from server.repository import Repository, load_version
from server.settings import Settings
from tests.tiny import write_ensemble


def test_ready_from_the_start_of_the_lifespan_to_its_end(tmp_path: Path) -> None:
    write_ensemble(tmp_path)
    app = create_app(Settings(models=tmp_path, default="tiny"))

    async def live() -> list[bool]:
        seen = [app.state.ready]
        async with app.router.lifespan_context(app):
            seen.append(app.state.ready)
        return [*seen, app.state.ready]

    assert asyncio.run(live()) == [False, True, False]


def test_the_metrics_say_how_it_is(tmp_path: Path) -> None:
    write_ensemble(tmp_path)
    app = create_app(Settings(models=tmp_path, default="tiny", max_inflight_bytes=1 << 20))
    seen: list[dict[str, float]] = []

    async def live() -> None:
        async with app.router.lifespan_context(app):
            share = Share(app.state.budget)
            share.hold(FREE + 70)
            for ready in (True, False):
                app.state.ready = ready
                await asyncio.sleep(2 * FLUSH_SECONDS)
                seen.append({m.name: m.samples[0].value for m in telemetry.REGISTRY.collect() if m.samples})
            share.give_back()

    asyncio.run(live())
    assert [found["committee_ready"] for found in seen] == [1, 0]
    assert seen[0]["committee_inflight_bytes"] == 70
    assert seen[0]["committee_inflight_limit_bytes"] == 1 << 20
    assert seen[0]["committee_queue_wait_seconds"] == 0


@pytest.mark.parametrize("control", ["none", "poll"])
def test_a_default_that_the_repository_does_not_have_stops_the_start(tmp_path: Path, control: Any) -> None:
    write_ensemble(tmp_path)
    write_ensemble(tmp_path, name="other")
    with pytest.raises(InvalidRepository, match=r"expected the default ensemble 'huge'; there are: other, tiny "):
        create_app(Settings(models=tmp_path, default="huge", model_control=control))


def test_serves_the_versions_of_the_settings(tmp_path: Path) -> None:
    for version in (1, 2, 3):
        write_ensemble(tmp_path, version=version)
    app = create_app(Settings(models=tmp_path, default="tiny", versions=frozenset({1, 3})))
    assert app.state.engine.repository.versions("tiny") == [1, 3]
    assert app.state.engine.ensemble().manifest.version == 3


def test_the_settings_say_what_a_request_may_cost_and_how_much_failure_is_borne(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    class Spy(Engine):
        def __init__(self, repository: Repository, *, default: str, limits: Limits = Limits()) -> None:  # noqa: B008
            seen.append(limits)
            super().__init__(repository, default=default, limits=limits)

    monkeypatch.setattr("server.app.Engine", Spy)
    write_ensemble(tmp_path)
    create_app(Settings(models=tmp_path, default="tiny"))
    create_app(Settings(models=tmp_path, default="tiny", deadline=0.5, breaker_failures=2, breaker_cooldown=7))
    create_app(Settings(models=tmp_path, default="tiny", max_wait=0.5, max_queue_size=7))
    assert seen == [
        Limits(deadline=30.0, breaker_failures=5, breaker_cooldown=10.0),
        Limits(deadline=0.5, breaker_failures=2, breaker_cooldown=7),
        Limits(max_wait=0.5, max_queue_size=7),
    ]
    assert seen[0] == Limits()


def test_the_settings_say_how_many_threads_run_a_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def spy(folder: Path, **options: Any) -> Ensemble:
        seen.append(options["threads"])
        return load_version(folder, **options)

    monkeypatch.setattr("server.app.load_version", spy)
    write_ensemble(tmp_path)
    create_app(Settings(models=tmp_path, default="tiny", threads=3))
    assert seen == [3]


def test_a_repository_that_cannot_be_served(tmp_path: Path) -> None:
    with pytest.raises(InvalidRepository, match="expected a folder"):
        create_app(Settings(models=tmp_path / "none"))
    write_ensemble(tmp_path)
    with pytest.raises(InvalidRepository, match="default ensemble 'fashion'"):
        create_app(Settings(models=tmp_path))


def test_two_applications_share_nothing(tmp_path: Path) -> None:
    write_ensemble(tmp_path)
    one, two = (create_app(Settings(models=tmp_path, default="tiny")) for _ in range(2))
    one.state.ready = True
    assert not two.state.ready
    assert one.state.engine is not two.state.engine
