"""A client of the whole application around the tiny ensemble, in process."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI

from server.app import create_app
from server.manifest import REPORT_FILE, VECTORS_FILE
from server.settings import Settings
from tests.server.rest.client import Client
from tests.tiny import answers, coefficients, linear_member, manifest, rows, vectors, write_ensemble, write_version

MAX_ROWS = 8
REPORT = {"strategies": {"average": {"accuracy": 0.5}}}


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ensemble `tiny` in versions 1 and 2, and `other`, which has one member."""
    root = tmp_path_factory.mktemp("models")
    write_ensemble(root, max_batch_size=MAX_ROWS)
    write_ensemble(root, name="other", n_members=1)
    files = {f"m{k + 1}.onnx": linear_member(weights) for k, weights in enumerate(coefficients(3))}
    x = rows(4)
    files |= {VECTORS_FILE: vectors(x, answers(x, 3)), REPORT_FILE: json.dumps(REPORT).encode()}
    write_version(root, manifest(3, version=2, max_batch_size=MAX_ROWS), files)
    return root


@pytest.fixture
def fresh_app(models: Path) -> FastAPI:
    """One whose lifespan has not begun."""
    return create_app(Settings(models=models, default="tiny"))


@pytest.fixture(scope="session")
def app(models: Path) -> FastAPI:
    return create_app(Settings(models=models, default="tiny", versions="all"))


@pytest.fixture(scope="session")
def client(app: FastAPI) -> Iterator[Client]:
    with Client(app) as client:
        yield client
