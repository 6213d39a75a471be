"""The composition root: the one place that knows all the parts, and the settings."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import Depends, FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from server import telemetry, tracing
from server.budget import Budget
from server.changing import Changer
from server.control import Control, open_board
from server.engine import Engine, Limits
from server.errors import CommitteeError
from server.following import Follower
from server.generations import serving_of
from server.keys import Keys
from server.repository import Repository, find_versions, load_version
from server.rest import auth, ensembles, health, metrics, oip, page, predict, repository, tf_serving
from server.rest.errors import on_committee_error, on_http_exception, on_validation_error
from server.rest.observer import Observer
from server.rest.state import State, engine_of
from server.settings import Settings

if TYPE_CHECKING:
    from server.rpc.listening import RpcServer

FLUSH_SECONDS = 0.05
"""How often what was counted goes to where the other workers see it."""

logger = logging.getLogger(__name__)


def create_app(settings: Settings, shared: Path | None = None, *, grpc_address: str | None = None) -> FastAPI:
    """Load the repository and build the application around it. Raises InvalidRepository, InvalidKeys.

    `shared` is the folder of the workers that serve together; None: this one serves alone. The application is ready
    from the start of its lifespan to the end of it, and serves gRPC at `grpc_address`, `host:port`, as long; None: it
    serves none.
    """
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
    keys = None if settings.keys_file is None else Keys(settings.keys_file)
    access, bounds = auth.Access(keys, settings.trusted_hosts), settings.bounds()
    if settings.model_control == "none":
        engine, control = _load(settings, _choose(settings)), None
    else:
        engine, control = _take_control(app, settings, shared)
    app.state = State(  # type: ignore[assignment]  # in place of Starlette's
        engine=engine,
        access=access,
        bounds=bounds,
        budget=Budget(bounds.max_inflight_bytes),
        decoding=ThreadPoolExecutor(max_workers=1, thread_name_prefix="committee-decode"),
        control=control,
        admin_port=settings.admin_port,
        grpc_address=grpc_address,
        tls=None if settings.tls_cert is None or settings.tls_key is None else (settings.tls_cert, settings.tls_key),
        tracing=settings.tracing == "otlp",
    )
    for part in (predict, oip, tf_serving, ensembles):
        app.include_router(part.router, dependencies=[Depends(auth.may_predict)])
    controlled = settings.model_control != "none" and keys is not None
    if controlled:
        app.include_router(repository.router)  # whose routes ask for the key themselves
    app.include_router(page.router, dependencies=[Depends(auth.trusted)])
    for open_to_all in (health, metrics):
        app.include_router(open_to_all.router)
    app.add_exception_handler(CommitteeError, on_committee_error)
    app.add_exception_handler(RequestValidationError, on_validation_error)
    app.add_exception_handler(HTTPException, repository.on_http_exception if controlled else on_http_exception)
    app.add_middleware(Observer)
    return app


def _choose(settings: Settings) -> list[Path]:
    return find_versions(settings.models, settings.versions, default=settings.default)


def _load(settings: Settings, folders: Iterable[Path]) -> Engine:
    threads, providers = settings.threads, settings.providers
    loaded = Repository(load_version(folder, threads=threads, providers=providers) for folder in folders)
    limits = Limits(
        deadline=settings.deadline,
        breaker_failures=settings.breaker_failures,
        breaker_cooldown=settings.breaker_cooldown,
        max_wait=settings.max_wait,
        max_queue_size=settings.max_queue_size,
    )
    return Engine(loaded, default=settings.default, limits=limits)


def _take_control(app: FastAPI, settings: Settings, shared: Path | None) -> tuple[Engine, Control]:
    """Serve what all the workers serve, or what a start chooses if none of them has begun yet."""
    board = open_board(shared, app)
    if not board.has_begun():
        board.begin(serving_of(_choose(settings)))
    state = board.state()
    folders = [settings.models / name / str(number) for name, number in sorted(state.versions())]
    engine = _load(settings, folders)
    control = Control(
        Follower(
            engine,
            board,
            settings.models,
            number=state.number,
            threads=settings.threads,
            providers=settings.providers,
        ),
        Changer(board, settings.models, versions=settings.versions, seconds=settings.trial_seconds),
        poll_seconds=settings.poll_seconds if settings.model_control == "poll" else None,
    )
    return engine, control


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    telemetry.count_build()
    if app.state.tracing:
        tracing.start()
    control: Control | None = app.state.control
    if control is not None:
        await control.start()
    flushing = asyncio.create_task(_flush_for_ever(app))
    app.state.ready = True
    rpc = await _start_rpc(app)
    logger.info("ready to serve", extra={"ensembles": app.state.engine.repository.names()})
    yield
    if rpc is not None:
        await rpc.stop()
    app.state.ready = False
    app.state.decoding.shutdown()
    if control is not None:
        await control.close()
    await app.state.engine.close()
    flushing.cancel()
    with suppress(asyncio.CancelledError):
        await flushing
    telemetry.flush()
    tracing.stop()


async def _start_rpc(app: FastAPI) -> "RpcServer | None":
    """gRPC is imported here, in a worker, for it does not survive a fork, and costs memory."""
    state: State = app.state  # type: ignore[assignment]
    if state.grpc_address is None:
        return None
    from server.rpc.infer import Inferring
    from server.rpc.listening import RpcServer

    server = RpcServer(
        state.grpc_address,
        engine=partial(engine_of, state),
        by=Inferring(state.decoding, state.bounds, state.budget),
        check_key=state.access.check_key,
        # Changes are asked for with a key, and, if the admin has a port, nowhere else.
        control=state.control if state.access.has_keys and state.admin_port is None else None,
        tls=state.tls,
    )
    await server.start()
    return server


async def _flush_for_ever(app: FastAPI) -> None:
    engine: Engine = app.state.engine
    budget: Budget = app.state.budget
    while True:
        telemetry.mark_load(
            can_answer=app.state.ready and engine.can_answer(),
            wait=engine.wait,
            inflight=budget.taken,
            limit=budget.limit,
        )
        telemetry.flush()
        await asyncio.sleep(FLUSH_SECONDS)
