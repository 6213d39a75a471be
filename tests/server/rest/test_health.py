import asyncio

import httpx
import pytest
from fastapi import FastAPI

from tests.server.rest.client import Client


@pytest.mark.parametrize(("path", "body"), [("live", {"live": True}), ("ready", {"ready": True})])
def test_healthy(client: Client, path: str, body: dict[str, bool]) -> None:
    response = client.get(f"/v2/health/{path}")
    assert response.status_code == 200
    assert response.json() == body
    assert client.request("HEAD", f"/v2/health/{path}").status_code == 200


def test_other_methods(client: Client) -> None:
    response = client.post("/v2/health/live")
    assert response.status_code == 405
    assert set(response.headers["Allow"].split(", ")) == {"GET", "HEAD"}
    assert response.json()["code"] == "method_not_allowed"


def test_alive_but_not_ready(fresh_app: FastAPI) -> None:
    """Before the lifespan has begun."""

    async def ask() -> list[httpx.Response]:
        transport = httpx.ASGITransport(fresh_app)
        async with httpx.AsyncClient(transport=transport, base_url="http://committee.test") as client:
            return [
                await client.get("/v2/health/live"),
                await client.get("/v2/health/ready"),
                await client.post("/predict", json={"instances": [[1, 2, 3, 4]]}),
                await client.get("/v1/ensembles"),
            ]

    live, *others = asyncio.run(ask())
    assert live.status_code == 200
    for response in others:
        assert response.status_code == 503
        assert response.json()["code"] == "not_ready"
        assert response.headers["Retry-After"] == "1"
