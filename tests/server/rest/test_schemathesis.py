"""What is made up from the OpenAPI document is answered as the document says, or refused as it says."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from server.app import create_app
from server.settings import Settings
from tests import tiny
from tests.server.served_http import Served, served

KNOWN = {"model": "tiny", "name": "tiny", "version": "1"}
CHECKS = [
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("models")
    tiny.write_ensemble(root, max_batch_size=8)
    with served(create_app(Settings(models=root, default="tiny"))) as server:
        yield server


def operations() -> list[Any]:
    document = create_app(Settings(models=Path("models"))).openapi()
    found: Any = schemathesis.openapi.from_dict(document).get_all_operations()
    return [operation.ok() for operation in found]


OPERATIONS = operations()


@pytest.mark.parametrize("known", [False, True], ids=["any", "known"])
@pytest.mark.parametrize("operation", OPERATIONS, ids=[operation.label for operation in OPERATIONS])
def test_every_operation(server: Served, operation: Any, known: bool) -> None:
    """Of whatever name, and of the ensemble that there is."""
    base = f"http://127.0.0.1:{server.port}"

    @settings(max_examples=12, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(operation.as_strategy())
    def ask(case: Any) -> None:
        if known:
            case.path_parameters |= {name: KNOWN[name] for name in case.path_parameters}
        response = case.call_and_validate(base_url=base, checks=CHECKS)
        assert response.status_code != 500

    ask()
