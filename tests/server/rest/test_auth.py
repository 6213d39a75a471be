"""Who may what, on the two roads: what is allowed on one is on the other, and what is refused is in the same words."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from hypothesis import given
from hypothesis import strategies as st

from server.app import create_app
from server.errors import InvalidInput, Unauthorized
from server.keys import make_key
from server.lane import PredictTurn
from server.rest.auth import Access
from server.settings import Settings
from tests.server.rest.client import Client
from tests.server.rest.served import refusal
from tests.server.served_http import Answer, Reader, Served, SlowRoad, get, parse, post, served
from tests.tiny import write_ensemble

KEYS = {name: make_key(name, scopes) for name, scopes in (("app", ["predict"]), ("ops", ["admin"]))}  # type: ignore[arg-type]
APP, OPS = (secret for secret, _ in KEYS.values())
OPEN = {"/v2/health/live", "/v2/health/ready", "/metrics", "/", "/favicon.ico", "/docs", "/docs/static/{name}",
        "/openapi.json"}  # fmt: skip
JSON = ("Content-Type", "application/json")
ID = ("X-Request-Id", "the-same")


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    root = tmp_path_factory.mktemp("guarded")
    write_ensemble(root / "models")
    (root / "keys").write_text("\n".join(line for _, line in KEYS.values()))
    return Settings(
        models=root / "models", default="tiny", keys_file=root / "keys", trusted_hosts=("a.test", "*.b.test", "[::1]")
    )


@pytest.fixture(scope="module")
def app(settings: Settings) -> FastAPI:
    return create_app(settings)


@pytest.fixture(scope="module")
def client(app: FastAPI) -> Iterator[Client]:
    with Client(app) as client:
        yield client


@pytest.fixture(scope="module")
def roads(settings: Settings) -> Iterator[tuple[Served, Served]]:
    with served(create_app(settings)) as fast, served(create_app(settings), SlowRoad) as slow:
        yield fast, slow


def both(roads: tuple[Served, Served], *headers: tuple[str, str], host: str = "a.test") -> Answer:
    request = post("/predict", headers=[("Host", host), JSON, ID, *headers], close=True)
    answers = [parse(road.send(request)) for road in roads]
    assert answers[0] == answers[1]
    [answer] = answers[0]
    return answer


def bearer(secret: str) -> tuple[str, str]:
    return "Authorization", f"Bearer {secret}"


@pytest.mark.parametrize(
    "headers",
    [[bearer(APP)], [("authorization", f"BEARER  {APP}")], [("X-Api-Key", APP)],
     [("Authorization", "Basic eDp4"), ("X-Api-Key", APP)]],
    ids=["bearer", "any case", "header", "beside another scheme"],
)  # fmt: skip
def test_a_key_lets_in(roads: tuple[Served, Served], headers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    turns: list[PredictTurn] = []
    begin = PredictTurn.begin

    def spy(turn: PredictTurn) -> None:
        turns.append(turn)
        begin(turn)

    monkeypatch.setattr(PredictTurn, "begin", spy)
    assert both(roads, *headers).status == 200
    assert len(turns) == 1


@pytest.mark.parametrize(
    ("headers", "status", "said"),
    [
        ([], 401, "expected a key, as `Authorization: Bearer …` or `X-Api-Key: …`; got none"),
        ([("Authorization", "Basic eDp4")], 401, "expected a key, as "),
        ([("Authorization", "Bearer")], 401, "expected a key, as "),
        ([bearer(APP + "x")], 401, "expected a key that this server knows; got another"),
        ([bearer(KEYS["app"][1].rpartition(":")[2])], 401, "expected a key that this server knows"),
        ([("X-Api-Key", "")], 401, "expected a key that this server knows"),
        ([("X-Api-Key", "é")], 401, "expected a key that this server knows"),
        ([bearer(APP), ("X-Api-Key", APP)], 401, "expected one key; got several"),
        ([("X-Api-Key", APP), ("X-Api-Key", APP)], 401, "expected one key; got several"),
        ([bearer(OPS)], 403, "expected a key with the scope predict; that of 'ops' has not"),
    ],
)
def test_what_does_not(roads: tuple[Served, Served], headers: Any, status: int, said: str) -> None:
    answer = both(roads, *headers)
    assert answer.status == status
    assert answer.json()["error"].startswith(said)
    assert answer.json()["code"] == ("unauthorized" if status == 401 else "forbidden")
    assert answer.header("www-authenticate") == ('Bearer realm="committee"' if status == 401 else None)
    assert APP.encode() not in answer.body


@pytest.mark.parametrize("path", ["/v2/models/tiny/infer", "/v1/models/tiny:predict", "/v1/ensembles/tiny/predict"])
def test_every_form_of_asking_asks_for_a_key(roads: tuple[Served, Served], path: str) -> None:
    for secret, status in ((None, 401), (OPS, 403), (APP, 400)):
        headers = [("Host", "a.test"), JSON, ID, *([bearer(secret)] if secret else [])]
        answers = [parse(road.send(post(path, b"x", headers, close=True))) for road in roads]
        assert answers[0] == answers[1]
        assert answers[0][0].status == status


def test_it_is_the_key_that_counts_before_what_is_asked(roads: tuple[Served, Served]) -> None:
    request = post("/predict", b"x" * 99, [("Host", "a.test"), ("Content-Length", "99999999")])
    assert [parse(road.send(request[:-99] + b"\r\n"))[0].status for road in roads] == [401, 401]


@pytest.mark.parametrize("host", ["a.test", "A.Test:8000", "x.b.test", "x.y.b.test:1", "[::1]:8000"])
def test_a_host_that_is_trusted(roads: tuple[Served, Served], host: str) -> None:
    assert both(roads, bearer(APP), host=host).status == 200


@pytest.mark.parametrize("host", ["b.test", "evil.test", "a.test.evil.test", "xb.test"])
def test_a_host_that_is_not(roads: tuple[Served, Served], client: Client, host: str) -> None:
    answer = both(roads, bearer(APP), host=host)
    assert (answer.status, answer.json()["code"]) == (400, "invalid_input")
    assert answer.json()["error"] == f"Host: expected one that this server trusts; got {host!r}"
    assert client.get("/", headers={"Host": host}).status_code == 400
    assert client.get("/v2/health/live", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", ["", "a.test:x", "a.test@x", "::1"])
def test_a_host_that_is_none(roads: tuple[Served, Served], host: str) -> None:
    answer = both(roads, bearer(APP), host=host)
    assert (answer.status, answer.json()["code"]) == (400, "invalid_input")
    assert answer.json()["error"] == f"Host: expected a name or an address; got {host!r}"


def test_every_route_asks_for_a_key_but_those_that_are_open(app: FastAPI, client: Client) -> None:
    included = [getattr(route, "original_router", None) for route in app.routes]
    routes = [route for router in included if router for route in router.routes if isinstance(route, APIRoute)]
    assert {route.path for route in routes} > OPEN
    for route in routes:
        path = (
            route.path.replace(":path", "").format(name="tiny", model="tiny", label="l", version=1)
            if "static" not in route.path
            else "/docs/static/swagger-ui.css"
        )
        for method in route.methods or ():
            response = client.request(method, path, headers={"Host": "a.test"})
            assert (response.status_code == 401) is (route.path not in OPEN), (method, path)


def test_a_key_opens_what_is_said_of_ensembles(client: Client) -> None:
    for path in ("/v1/ensembles", "/v1/ensembles/tiny", "/v1/ensembles/tiny/versions/1"):
        headers = {"Host": "a.test", "X-Api-Key": APP}
        assert client.get(path, headers=headers).status_code == 200
        assert refusal(client.get(path, headers={**headers, "X-Api-Key": OPS}))[:2] == (403, "forbidden")


def test_no_answer_allows_other_origins(client: Client) -> None:
    for method in ("OPTIONS", "POST", "GET"):
        headers = {"Host": "a.test", "X-Api-Key": APP, "Origin": "http://evil.test",
                   "Access-Control-Request-Method": "POST"}  # fmt: skip
        response = client.request(method, "/predict", headers=headers)
        assert not [name for name in response.headers if name.startswith("access-control-")]


def test_the_document_says_so(client: Client, models: Path) -> None:
    document = client.get("/openapi.json", headers={"Host": "a.test"}).json()
    assert set(document["components"]["securitySchemes"]) == {"bearer", "header"}
    assert document["paths"]["/predict"]["post"]["security"] == [{"bearer": []}, {"header": []}]
    assert "security" not in document["paths"]["/metrics"]["get"]
    with Client(create_app(Settings(models=models, default="tiny"))) as unguarded:
        assert "securitySchemes" not in unguarded.get("/openapi.json").json()["components"]


def test_a_file_may_open_predictions_to_everybody(settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(f"* predict\n{KEYS['ops'][1]}\n")
    with served(create_app(settings.model_copy(update={"keys_file": path, "trusted_hosts": ()}))) as road:
        assert parse(road.send(post(close=True)))[0].status == 200
        path.write_text(KEYS["ops"][1])  # the next request knows
        assert parse(road.send(post(close=True)))[0].status == 401
        assert parse(road.send(get("/metrics", close=True)))[0].status == 200


def test_a_key_is_asked_for_each_time_on_a_connection_that_stays(settings: Settings, tmp_path: Path) -> None:
    """Also where all is as it was before, and what is known of it is remembered."""
    path = tmp_path / "keys"
    path.write_text(KEYS["app"][1])
    request = post("/predict", headers=[("Host", "a.test"), JSON, ID, bearer(APP)])
    app = create_app(settings.model_copy(update={"keys_file": path}))
    with served(app) as road, road.connect() as connection:
        reader = Reader(connection)
        for _ in range(3):
            connection.sendall(request)
            assert reader.answer().status == 200
        assert app.state.heads
        path.write_text(KEYS["ops"][1])
        for _ in range(3):
            connection.sendall(request)
            assert reader.answer().status == 401


def test_without_keys_there_is_nothing_but_predicting() -> None:
    for access, headers in ((Access(), []), (Access(None, ["a.test"]), [(b"host", b"a.test")])):
        assert access.check(headers, "predict") is None
        with pytest.raises(Unauthorized, match=r"^expected a key, and this server knows none$"):
            access.check([*headers, (b"x-api-key", b"")], "admin")
    with pytest.raises(InvalidInput):
        access.check([], "predict")


@given(st.text(alphabet=st.characters(max_codepoint=255)))
def test_a_host_is_trusted_if_it_is_named_and_only_then(host: str) -> None:
    access = Access(None, ["a.test"])
    try:
        access.check_host([(b"host", host.encode("latin-1"))])
    except InvalidInput:
        return
    assert host.lower().partition(":")[0] == "a.test"
