"""`/v2/health/…`: is the process alive, and can it answer."""

from typing import Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel

from server.rest import schemas
from server.rest.state import ready_engine

router = APIRouter(tags=["health"])
# Each route stands twice: the lower decorator takes GET and HEAD, the upper one documents GET.


class Live(BaseModel):
    live: Literal[True] = True


class Ready(BaseModel):
    ready: Literal[True] = True


@router.get("/v2/health/live", summary="Whether the process is alive")
@router.api_route("/v2/health/live", methods=["GET", "HEAD"], include_in_schema=False)
async def live() -> Live:
    return Live()


@router.get("/v2/health/ready", summary="Whether it can answer", responses=schemas.errors(503))
@router.api_route("/v2/health/ready", methods=["GET", "HEAD"], include_in_schema=False)
async def ready(request: Request) -> Ready:
    ready_engine(request)
    return Ready()
