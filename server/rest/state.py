"""What the composition root hands to those who answer requests."""

from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from fastapi import Request

from server.bounds import Bounds
from server.budget import Budget
from server.control import Control
from server.engine import Engine
from server.errors import NotReady
from server.repository import Repository
from server.rest.auth import Access


@dataclass(slots=True, kw_only=True)
class State:
    """The application's `state`: Starlette's own looks every name up in a dictionary, and knows no types."""

    engine: Engine
    access: Access
    bounds: Bounds
    budget: Budget
    decoding: Executor
    """Reads bodies that take long: one at a time, so that many large ones do not take all memory."""
    control: Control | None
    """Of what is served; None if nobody changes it."""
    admin_port: int | None
    """Where alone changes are asked for; None: where all else is."""
    grpc_address: str | None
    tls: tuple[Path, Path] | None
    """Certificate and key."""
    tracing: bool
    heads: dict[bytes, Any] = field(default_factory=dict)
    """That the fast lane knows."""
    documents: WeakKeyDictionary[Repository, bytes] = field(default_factory=WeakKeyDictionary)
    """What is said of those at /openapi.json."""
    ready: bool = False


def ready_engine(request: Request) -> Engine:
    """The engine. Raises NotReady before the start has ended and once the stop has begun."""
    return engine_of(request.app.state)


def engine_of(state: State) -> Engine:
    """As `ready_engine`, of the application's state."""
    if not state.ready:
        raise NotReady("the server is not ready")
    return state.engine
