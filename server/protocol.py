"""What uvicorn speaks HTTP by: POST …/predict takes the fast lane, everything else goes through the application."""

import asyncio
from typing import Any, ClassVar

from fastapi import FastAPI
from starlette.datastructures import State
from uvicorn.config import Config
from uvicorn.server import ServerState

from server.connection import Bounded
from server.lane import PredictTurn, find_target


class FastLane(Bounded):
    """uvicorn's `http`. What is in any way unusual is left to the application."""

    FAST: ClassVar[bool] = True
    """Whether there is a fast lane; without one every request goes through FastAPI."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        logged = config.access_log and self.access_log  # of ASGI's scopes
        self._state = _state_of(self.app) if self.FAST and not logged else None

    def _make_turn(self, version: str) -> PredictTurn | None:
        if self._state is None or self.parser.get_method() != b"POST" or self.parser.should_upgrade():
            return None
        limit = self.limit_concurrency
        if limit is not None and (len(self.connections) >= limit or len(self.tasks) >= limit):
            return None
        target = find_target(self.url)
        if target is None:
            return None
        return PredictTurn(
            self,
            self._state,
            target,
            self.headers,
            keep_alive=version != "1.0" and self.parser.should_keep_alive(),
            expects=self.expect_100_continue,
        )


def _state_of(app: Any) -> State | None:
    """Of the FastAPI application inside uvicorn's middleware; None if that is no application of ours."""
    while app is not None and not isinstance(app, FastAPI):
        app = getattr(app, "app", None)
    return app.state if app is not None and hasattr(app.state, "engine") else None
