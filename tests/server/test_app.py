import asyncio
from pathlib import Path

import pytest

from server.app import create_app
from server.errors import InvalidRepository
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


def test_serves_the_versions_of_the_settings(tmp_path: Path) -> None:
    for version in (1, 2, 3):
        write_ensemble(tmp_path, version=version)
    app = create_app(Settings(models=tmp_path, default="tiny", versions=frozenset({1, 3})))
    assert app.state.engine.repository.versions("tiny") == [1, 3]
    assert app.state.engine.ensemble().manifest.version == 3


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
