"""What uvicorn speaks HTTP by: POST …/predict takes the fast lane, everything else goes through the application.

A client sends the same head over and over: one that the parser has read, and that took the fast lane, is known by its
bytes from then on, and a request that comes in one piece with it is not parsed again.
"""

import asyncio
from typing import Any, ClassVar

from uvicorn.config import Config
from uvicorn.server import ServerState

from server.connection import Bounded
from server.lane import Head, PredictTurn, find_target, read_head
from server.rest.reply import values_of

HEADS = 512
"""That are known, of one process."""
HEAD_BYTES = 2048
"""Of the longest that is kept."""


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
        self._fast = self.FAST and not logged and self._state is not None
        self._heads: dict[bytes, Head] = self._state.heads if self._state is not None and self._fast else {}

    def data_received(self, data: bytes) -> None:
        between = self._is_between() and not self._surplus
        if between:
            end = data.find(b"\r\n\r\n", 0, HEAD_BYTES) + 4
            head = self._heads.get(data[:end])
            if head is not None and len(data) - end == head.length:
                self._take(head, data[end:])
                return
        before = self._n_begun
        super().data_received(data)
        turn = self.cycle
        if between and isinstance(turn, PredictTurn) and self._n_begun == before + 1 and not turn.more_body:
            self._know(data, turn)

    def _take(self, head: Head, body: bytes) -> None:
        """What the parser's calls do with a request."""
        assert self._state is not None
        self._unset_keepalive_if_required()
        self._n_begun += 1
        turn = PredictTurn(self, self._state, head, keep_alive=True, expects=False)
        turn.feed(body)
        turn.finish()
        self._stop_timer()
        self._queue_up(turn)

    def _know(self, data: bytes, turn: PredictTurn) -> None:
        end = data.find(b"\r\n\r\n", 0, HEAD_BYTES) + 4
        lengths = values_of(turn.headers, b"content-length")
        if end <= 3 or not turn.keep_alive or turn.expects or self.limit_concurrency is not None:
            return
        if lengths == [str(len(data) - end)]:  # and so there is no Transfer-Encoding
            if len(self._heads) >= HEADS:
                self._heads.clear()
            turn.head.length = len(data) - end
            self._heads[data[:end]] = turn.head

    def _make_turn(self, version: str) -> PredictTurn | None:
        if not self._fast or self.parser.get_method() != b"POST":
            return None
        limit = self.limit_concurrency
        if limit is not None and (len(self.connections) >= limit or len(self.tasks) >= limit):
            return None
        target = find_target(self.url)
        if target is None:
            return None
        assert self._state is not None
        return PredictTurn(
            self,
            self._state,
            read_head(target, self.headers),
            keep_alive=version != "1.0" and self.parser.should_keep_alive(),
            expects=self.expect_100_continue,
        )
