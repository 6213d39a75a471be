"""The composition root: the one place that knows all the parts, and the settings."""

import asyncio
import logging
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from importlib.metadata import version

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from server import telemetry
from server.budget import Budget
from server.engine import Engine, Limits
from server.errors import CommitteeError
from server.repository import Repository
from server.rest import ensembles, health, metrics, oip, page, predict, tf_serving
from server.rest.errors import on_committee_error, on_http_exception, on_validation_error
from server.rest.observer import Observer
from server.settings import Settings

FLUSH_SECONDS = 0.05
"""How often what was counted goes to where the other workers see it."""

logger = logging.getLogger(__name__)


def create_app(settings: Settings) -> FastAPI:
    """Load the repository and build the application around it. Raises InvalidRepository.

    The application is ready from the start of its lifespan to the end of it.
    """
    repository = Repository.load(
        settings.models, versions=settings.versions, threads=settings.threads, providers=settings.providers
    )
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
    limits = Limits(
        deadline=settings.deadline,
        breaker_failures=settings.breaker_failures,
        breaker_cooldown=settings.breaker_cooldown,
        max_wait=settings.max_wait,
        max_queue_size=settings.max_queue_size,
    )
    app.state.engine = Engine(repository, default=settings.default, limits=limits)
    app.state.bounds = settings.bounds()
    app.state.budget = Budget(app.state.bounds.max_inflight_bytes)
    # One body at a time, so that many large ones do not take all memory.
    app.state.decoding = ThreadPoolExecutor(max_workers=1, thread_name_prefix="committee-decode")
    app.state.heads = {}  # of the fast lane
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
    logger.info("ready to serve", extra={"ensembles": app.state.engine.repository.names()})
    yield
    app.state.ready = False
    app.state.decoding.shutdown()
    await app.state.engine.close()
    flushing.cancel()
    with suppress(asyncio.CancelledError):
        await flushing
    telemetry.flush()


async def _flush_for_ever() -> None:
    while True:
        telemetry.flush()
        await asyncio.sleep(FLUSH_SECONDS)
