"""`POST /v2/repository/…`: what is served, and changes of it, as in Triton's model repository extension."""

import logging
from dataclasses import replace
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.responses import Response

from server.budget import Share
from server.control import Control, read_versions
from server.errors import CommitteeError, InvalidInput
from server.generations import State
from server.rest import errors, schemas
from server.rest.auth import may_administer
from server.rest.body import length_of, read_body
from server.rest.state import ready_engine

BODY_BYTES = 1 << 16

router = APIRouter(prefix="/v2/repository", tags=["repository"])
logger = logging.getLogger(__name__)
KeyName = Annotated[str | None, Depends(may_administer)]
T = TypeVar("T", bound=BaseModel)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class IndexRequest(_Strict):
    ready: bool = False


class LoadParameters(_Strict):
    versions: str | None = None


class LoadRequest(_Strict):
    parameters: LoadParameters = LoadParameters()


class UnloadParameters(_Strict):
    unload_dependents: bool = False
    """Triton's clients say it. Nothing depends on an ensemble."""


class UnloadRequest(_Strict):
    parameters: UnloadParameters = UnloadParameters()


class IndexEntry(schemas.Model):
    name: str
    version: Annotated[str, Field(description="Empty if it is the ensemble's folder that is wrong.")]
    state: Literal["READY", "LOADING", "UNAVAILABLE"]
    reason: Annotated[str, Field(description="Why it is unavailable.")]


class Change(schemas.Model):
    name: str
    versions: Annotated[list[int], Field(description="That are served now.")]
    generation: Annotated[int, Field(description="Of what is served; it grows with every change.")]


def _documented(
    *statuses: int, example: dict[str, Any], parameters: bool = True, **properties: dict[str, Any]
) -> dict[str, Any]:
    """Of a route whose body, as Triton has it, may be left out, whatever its media type."""
    schema: dict[str, Any] = {"type": "object", "additionalProperties": False, "properties": properties}
    if parameters:
        schema = {"type": "object", "additionalProperties": False, "properties": {"parameters": schema}}
    content = {"application/json": {"schema": schema, "example": example}}
    return {
        "responses": schemas.errors(400, 401, 403, 500, 503, *statuses),
        "openapi_extra": {"requestBody": {"required": False, "content": content}},
    }


@router.post(
    "/index",
    summary="List the versions that are served or lie in the repository",
    **_documented(
        example={"ready": True},
        parameters=False,
        ready={"type": "boolean", "description": "Whether to list only those that are served."},
    ),
)
async def index(request: Request, key: KeyName) -> list[IndexEntry]:
    asked = await _read(request, IndexRequest)
    return [
        IndexEntry(
            name=entry.name,
            version="" if entry.version is None else str(entry.version),
            state=entry.state,
            reason=entry.reason,
        )
        for entry in await _control(request).changer.index()
        if entry.state == "READY" or not asked.ready
    ]


@router.post(
    "/models/{name}/load",
    summary="Serve an ensemble, in all workers",
    **_documented(
        404,
        409,
        example={"parameters": {"versions": "latest"}},
        versions={"type": "string", "description": "latest, all, or numbers like 1,3; else as a start would choose."},
    ),
)
async def load(request: Request, name: schemas.EnsembleName, key: KeyName) -> Change:
    asked = await _read(request, LoadRequest)
    said = asked.parameters.versions
    versions = None if said is None else read_versions(said, "parameters.versions")
    changer = _control(request).to_ask()
    logger.info("a load is asked for", extra={"ensemble": name, "key": key})
    return _told(name, await changer.load(name, versions))


@router.post(
    "/models/{name}/unload",
    summary="Serve an ensemble no more, in no worker",
    **_documented(
        404,
        409,
        example={"parameters": {"unload_dependents": False}},
        unload_dependents={"type": "boolean", "description": "Has no effect."},
    ),
)
async def unload(request: Request, name: schemas.EnsembleName, key: KeyName) -> Change:
    await _read(request, UnloadRequest)
    changer = _control(request).to_ask()
    logger.info("an unload is asked for", extra={"ensemble": name, "key": key})
    return _told(name, await changer.unload(name))


async def on_http_exception(request: Request, exc: Exception) -> Response:
    """No such route, or not with this method: under the prefix of these routes that is told only to who may."""
    if request.scope["path"].startswith(router.prefix):
        try:
            await may_administer(request)
        except CommitteeError as refusal:
            return await errors.on_committee_error(request, refusal)
    return await errors.on_http_exception(request, exc)


def _control(request: Request) -> Control:
    ready_engine(request)
    control: Control = request.app.state.control
    return control


def _told(name: str, state: State) -> Change:
    return Change(name=name, versions=list(state.serving.get(name, ())), generation=state.number)


async def _read(request: Request, model: type[T]) -> T:
    """The body, or what it is without one. Raises InvalidInput, TooLarge."""
    bounds = replace(request.app.state.bounds, max_body_bytes=BODY_BYTES)
    share = Share(request.app.state.budget)
    try:
        length_of(request.headers.raw, bounds)
        body = await read_body(request, bounds, share)
    finally:
        share.give_back()
    try:
        return model.model_validate_json(body or b"{}")
    except ValidationError as exc:
        first = exc.errors(include_url=False)[0]
        raise InvalidInput(f"body: {'.'.join(map(str, first['loc']))}: {first['msg']}".replace(": : ", ": ")) from exc
