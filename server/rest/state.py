"""What the composition root hands to the routes."""

from fastapi import Request

from server.engine import Engine
from server.errors import NotReady


def ready_engine(request: Request) -> Engine:
    """The engine. Raises NotReady before the start has ended and once the stop has begun."""
    state = request.app.state
    if not state.ready:
        raise NotReady("the server is not ready")
    engine: Engine = state.engine
    return engine
