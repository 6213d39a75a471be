import asyncio
import json
import logging
from collections.abc import Iterator

import pytest
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from server import errors, telemetry
from server.errors import CommitteeError
from server.faults import MESSAGE_LIMIT
from server.rest.errors import (
    STATUSES,
    on_committee_error,
    on_http_exception,
    on_validation_error,
    status_of,
)
from tests.server.test_telemetry import value


def subclasses(cls: type[CommitteeError]) -> Iterator[type[CommitteeError]]:
    for sub in cls.__subclasses__():
        yield sub
        yield from subclasses(sub)


def answer(exc: CommitteeError) -> tuple[Response, dict[str, str]]:
    token = telemetry.request_id.set("r-1")
    try:
        response = asyncio.run(on_committee_error(Request({"type": "http", "headers": []}), exc))
    finally:
        telemetry.request_id.reset(token)
    return response, json.loads(bytes(response.body))


def test_the_table_covers_every_error() -> None:
    assert set(STATUSES) == {CommitteeError, *subclasses(CommitteeError)}


def test_an_error_has_the_status_of_its_nearest_class() -> None:
    class Special(errors.TooLarge):
        pass

    assert status_of(Special) == 413
    assert status_of(errors.InvalidInput) == 400


@pytest.mark.parametrize(
    "cls", [errors.InvalidInput, errors.NotFound, errors.TooLarge, errors.DeadlineExceeded, errors.QuorumMissed]
)
def test_what_callers_can_mend_is_told(cls: type[CommitteeError], caplog: pytest.LogCaptureFixture) -> None:
    before = value(f'committee_errors_total{{code="{cls.code}"}}')
    response, body = answer(cls("what came"))
    assert response.status_code == STATUSES[cls]
    assert body == {"error": "what came", "code": cls.code, "request_id": "r-1"}
    assert value(f'committee_errors_total{{code="{cls.code}"}}') == before + 1
    assert not caplog.records


@pytest.mark.parametrize(
    ("cls", "told"),
    [
        (errors.MemberFailed, "a member of the ensemble could not answer; the server's log says more"),
        (errors.InternalError, "internal error; the server's log says more"),
        (errors.InvalidRepository, "internal error; the server's log says more"),
    ],
)
def test_faults_of_ours_go_to_the_log(cls: type[CommitteeError], told: str, caplog: pytest.LogCaptureFixture) -> None:
    response, body = answer(cls("/srv/models/x: broken"))
    assert response.status_code == STATUSES[cls]
    assert body["error"] == told
    [record] = caplog.records
    assert (record.levelno, record.getMessage()) == (logging.ERROR, "/srv/models/x: broken")
    assert record.exc_info is not None


@pytest.mark.parametrize("cls", [errors.Overloaded, errors.NotReady])
def test_unavailable_says_when_to_come_back(cls: type[errors.Unavailable], caplog: pytest.LogCaptureFixture) -> None:
    response, body = answer(cls("full", retry_after=7))
    assert response.status_code == 503
    assert response.headers["Retry-After"] == "7"
    assert body["error"] == "full"
    assert not caplog.records


def test_long_and_odd_messages() -> None:
    _, body = answer(errors.InvalidInput("\ud800" + "x" * 10**6))
    assert body["error"] == "?" + "x" * (MESSAGE_LIMIT - 1) + "…"


def test_validation_errors_say_where() -> None:
    exc = RequestValidationError([{"loc": ("path", "version"), "msg": "Value error, expected x", "input": "y" * 999}])
    response = asyncio.run(on_validation_error(Request({"type": "http", "headers": []}), exc))
    assert response.status_code == 400
    assert json.loads(bytes(response.body))["error"] == f"path.version: expected x; got '{'y' * 64}'"


def test_other_http_exceptions_keep_their_status() -> None:
    exc = HTTPException(418, "short", headers={"X-A": "b"})
    response = asyncio.run(on_http_exception(Request({"type": "http", "headers": []}), exc))
    assert (response.status_code, response.headers["X-A"]) == (418, "b")
    assert json.loads(bytes(response.body))["error"] == "short"
