import asyncio
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from server import telemetry
from server.rest.observer import Observer
from tests.server.rest.client import Client
from tests.server.test_telemetry import value

UNMATCHED = 'committee_http_requests_total{method="GET",route="unmatched",status="%s"}'


def test_request_ids(client: Client) -> None:
    for response in (
        client.get("/v2/health/live", headers={"X-Request-Id": "mine-1"}),
        client.get("/nope", headers={"X-Request-Id": "mine-1"}),
    ):
        assert response.headers["X-Request-Id"] == "mine-1"
    assert response.json()["request_id"] == "mine-1"
    made = client.get("/nope", headers={"X-Request-Id": "not mine"})
    assert made.json()["request_id"] == made.headers["X-Request-Id"] != "not mine"


def test_paths_that_no_route_has_share_a_label(client: Client) -> None:
    before = value(UNMATCHED % 404)
    for path in ("/a", "/b/c"):
        client.get(path)
    assert value(UNMATCHED % 404) == before + 2


def call(app: Any, scope: Scope | None = None) -> list[Message]:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    asyncio.run(Observer(app)(scope or {"type": "http", "method": "GET", "headers": []}, receive, send))
    return sent


def test_half_an_answer_is_not_mended() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise KeyError

    before = value(UNMATCHED % 200)
    with pytest.raises(KeyError):
        call(app)
    assert value(UNMATCHED % 200) == before + 1
    assert telemetry.request_id.get() is None


def test_no_answer_is_counted_too() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        pass

    before = value(UNMATCHED % 499)
    assert call(app) == []
    assert value(UNMATCHED % 499) == before + 1


def test_lets_the_lifespan_pass() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "lifespan.startup.complete"})

    assert call(app, {"type": "lifespan"}) == [{"type": "lifespan.startup.complete"}]
