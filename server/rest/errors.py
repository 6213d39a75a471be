"""The table from errors to HTTP statuses, and the one body that every error answer has."""

from collections.abc import Mapping

import orjson
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from server import telemetry
from server.errors import (
    CommitteeError,
    Conflict,
    DeadlineExceeded,
    Forbidden,
    InternalError,
    InvalidInput,
    InvalidKeys,
    InvalidRepository,
    MemberFailed,
    NotFound,
    NotReady,
    Overloaded,
    QuorumMissed,
    TooLarge,
    Unauthorized,
    Unavailable,
    Unsupported,
    UnsupportedMediaType,
    nearest,
)
from server.faults import message_of, message_of_unforeseen, shortened
from server.rest.reply import Headers, Reply, make_reply, values_of

STATUSES: dict[type[CommitteeError], int] = {
    InvalidInput: 400,
    Unauthorized: 401,
    Forbidden: 403,
    NotFound: 404,
    Conflict: 409,
    TooLarge: 413,
    UnsupportedMediaType: 415,
    InternalError: 500,
    InvalidRepository: 500,
    InvalidKeys: 500,
    CommitteeError: 500,
    Unsupported: 400,
    Unavailable: 503,
    Overloaded: 503,
    NotReady: 503,
    MemberFailed: 503,
    QuorumMissed: 503,
    DeadlineExceeded: 504,
}
"""An error has the status of the nearest of its classes that stands here."""

OIP_STATUSES: dict[type[CommitteeError], int] = {
    **STATUSES,
    TooLarge: 400,
    UnsupportedMediaType: 400,
    DeadlineExceeded: 503,
}
"""On the routes of the Open Inference Protocol, as Triton has it: but for those of keys and of changes there are only
400, 404, 500 and 503."""
OIP_ROUTES = "/v2"
OTHER_CODES: Mapping[int, set[str]] = {405: {"method_not_allowed"}, 406: {"not_acceptable"}}
"""Of what HTTP knows, and Committee has no error for."""


def status_of(error: type[CommitteeError], path: str = "/") -> int:
    """Of an error on this path, or on one of the route that this is the template of."""
    return nearest(OIP_STATUSES if path.startswith(OIP_ROUTES) else STATUSES, error)


def codes_of(status: int, path: str) -> list[str]:
    """What an answer of this status says as `code`, on this path or the route that this is the template of."""
    return sorted(
        {error.code for error in STATUSES if status_of(error, path) == status} | OTHER_CODES.get(status, set())
    )


def error_reply(status: int, code: str, message: str, *, headers: Mapping[str, str] | None = None) -> Reply:
    """`{"error", "code", "request_id"}`, and the error counted."""
    telemetry.count_error(code)
    body = {"error": shortened(message), "code": code, "request_id": telemetry.request_id.get()}
    return make_reply(orjson.dumps(body), "application/json", status, headers=headers)


def reply_to(exc: CommitteeError, asked: Headers, path: str) -> Reply:
    """The answer to a request to this path, with the headers `asked`, that has raised this."""
    status = status_of(type(exc), path)
    headers = {"Retry-After": str(exc.retry_after)} if isinstance(exc, Unavailable) else {}
    if isinstance(exc, Unauthorized):
        headers["WWW-Authenticate"] = 'Bearer realm="committee"'
    if isinstance(exc, TooLarge | Overloaded) and values_of(asked, b"transfer-encoding"):
        headers["Connection"] = "close"  # such a body may have no end
    return error_reply(status, exc.code, message_of(exc), headers=headers)


def reply_to_unforeseen(exc: Exception) -> Reply:
    """The answer to what nobody foresaw; the log has the traceback."""
    return error_reply(500, InternalError.code, message_of_unforeseen(exc))


# ---- For FastAPI ----------------------------------------------------------------------------------------------------


async def on_committee_error(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, CommitteeError)
    return reply_to(exc, request.headers.raw, request.scope.get("path", "/")).response()


async def on_validation_error(request: Request, exc: Exception) -> Response:
    """What FastAPI checks by itself: the parts of the path."""
    assert isinstance(exc, RequestValidationError)
    first = exc.errors()[0]
    message = f"{'.'.join(map(str, first['loc']))}: {first['msg'].removeprefix('Value error, ')}"
    return error_reply(400, InvalidInput.code, f"{message}; got {str(first['input'])[:64]!r}").response()


async def on_http_exception(request: Request, exc: Exception) -> Response:
    """No such route, or not with this method."""
    assert isinstance(exc, HTTPException)
    if exc.status_code == 404:
        return error_reply(404, NotFound.code, "no such route; GET / lists them").response()
    if exc.status_code == 405:
        allowed = (exc.headers or {}).get("Allow", "")
        message = f"expected {allowed}; got another method"
        return error_reply(405, "method_not_allowed", message, headers=exc.headers).response()
    return error_reply(exc.status_code, InvalidInput.code, str(exc.detail), headers=exc.headers).response()
