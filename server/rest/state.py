"""What the composition root hands to those who answer requests."""

from fastapi import Request
from starlette.datastructures import State as State

from server.engine import Engine
from server.errors import NotReady


def ready_engine(request: Request) -> Engine:
    """The engine. Raises NotReady before the start has ended and once the stop has begun."""
    return engine_of(request.app.state)


def engine_of(state: State) -> Engine:
    """As `ready_engine`, of the application's state."""
    if not state.ready:
        raise NotReady("the server is not ready")
    engine: Engine = state.engine
    return engine
