"""An engine over one ensemble of each kind."""

import asyncio
from collections.abc import Iterator

import pytest

from server.engine import Engine, Limits
from server.repository import Repository
from tests import faulty, tiny


@pytest.fixture(scope="package")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    root = tmp_path_factory.mktemp("models")
    tiny.write_ensemble(root)
    tiny.write_ensemble(root, version=2, n_members=2)
    tiny.write_cascade(root)
    tiny.write_regression(root, targets=tiny.TARGETS)
    tiny.write_table_ensemble(root)
    tiny.write_picture_ensemble(root)
    faulty.write(root)
    return Repository.load(root, versions="all")


@pytest.fixture
def engine(repository: Repository) -> Iterator[Engine]:
    """One circuit opens after the first failure, and stays so."""
    engine = Engine(repository, default="tiny", limits=Limits(breaker_failures=1, breaker_cooldown=3600))
    yield engine
    asyncio.run(engine.close())
