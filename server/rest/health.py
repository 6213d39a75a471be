"""`/v2/health/…`: is the process alive, and can it answer."""

from typing import Annotated, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from server.errors import NotReady
from server.rest import schemas
from server.rest.state import ready_engine

router = APIRouter(tags=["health"])
# Each route stands twice: the lower decorator takes GET and HEAD, the upper one documents GET.


class Live(BaseModel):
    live: Literal[True] = True


class Ready(BaseModel):
    ready: Literal[True] = True
    degraded: Annotated[
        dict[str, list[str]] | None,
        Field(description="By ensemble and version: members that are left alone for a while, they failed too often."),
    ] = None


@router.get("/v2/health/live", summary="Whether the process is alive")
@router.api_route("/v2/health/live", methods=["GET", "HEAD"], include_in_schema=False)
async def live() -> Live:
    return Live()


@router.get(
    "/v2/health/ready",
    summary="Whether it can answer",
    responses=schemas.errors(503),
    response_model_exclude_none=True,
)
@router.api_route(
    "/v2/health/ready", methods=["GET", "HEAD"], include_in_schema=False, response_model_exclude_none=True
)
async def ready(request: Request) -> Ready:
    engine = ready_engine(request)
    if not engine.can_answer():
        raise NotReady("no ensemble has enough members that work")
    return Ready(degraded=engine.unreliable() or None)
