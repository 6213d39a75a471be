"""The composition root: the one place that knows all the parts, and the settings."""

import asyncio
import logging
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from server import telemetry
from server.engine import Engine, Limits
from server.errors import CommitteeError
from server.repository import Repository
from server.rest import ensembles, health, metrics, oip, page, predict, tf_serving
from server.rest.errors import on_committee_error, on_http_exception, on_validation_error
from server.rest.observer import Observer
from server.rest.state import engine_of
from server.settings import Settings

if TYPE_CHECKING:
    from server.rpc.listening import RpcServer

FLUSH_SECONDS = 0.05
"""How often what was counted goes to where the other workers see it."""

logger = logging.getLogger(__name__)


def create_app(settings: Settings, *, grpc_address: str | None = None) -> FastAPI:
    """Load the repository and build the application around it. Raises InvalidRepository.

    The application is ready from the start of its lifespan to the end of it, and serves gRPC at `grpc_address`,
    `host:port`, as long; None: it serves none.
    """
    repository = Repository.load(settings.models, versions=settings.versions, providers=settings.providers)
    app = FastAPI(
        title="Committee",
        version=version("committee"),
        description="Several models behind one endpoint, fused by the strategy that each request names.",
        lifespan=_lifespan,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    limits = Limits(settings.deadline, settings.breaker_failures, settings.breaker_cooldown)
    app.state.engine = Engine(repository, default=settings.default, limits=limits)
    # One body at a time, so that many large ones do not take all memory.
    app.state.decoding = ThreadPoolExecutor(max_workers=1, thread_name_prefix="committee-decode")
    app.state.heads = {}  # of the fast lane
    app.state.grpc_address = grpc_address
    app.state.ready = False
    for part in (predict, oip, tf_serving, ensembles, health, metrics, page):
        app.include_router(part.router)
    app.add_exception_handler(CommitteeError, on_committee_error)
    app.add_exception_handler(RequestValidationError, on_validation_error)
    app.add_exception_handler(HTTPException, on_http_exception)
    app.add_middleware(Observer)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    telemetry.count_build()
    flushing = asyncio.create_task(_flush_for_ever())
    app.state.ready = True
    rpc = await _start_rpc(app)
    logger.info("ready to serve", extra={"ensembles": app.state.engine.repository.names()})
    yield
    if rpc is not None:
        await rpc.stop()
    app.state.ready = False
    app.state.decoding.shutdown()
    await app.state.engine.close()
    flushing.cancel()
    with suppress(asyncio.CancelledError):
        await flushing
    telemetry.flush()


async def _start_rpc(app: FastAPI) -> "RpcServer | None":
    """gRPC is imported here, in a worker, for it does not survive a fork, and costs memory."""
    if app.state.grpc_address is None:
        return None
    from server.rpc.listening import RpcServer

    server = RpcServer(app.state.grpc_address, engine=partial(engine_of, app.state), decoding=app.state.decoding)
    await server.start()
    return server


async def _flush_for_ever() -> None:
    while True:
        telemetry.flush()
        await asyncio.sleep(FLUSH_SECONDS)
