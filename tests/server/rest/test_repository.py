"""Model control over HTTP, in one process; what several workers do together is in `tests.server.test_control`."""

import asyncio
import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from onnx import TensorProto, helper

from server import following
from server.app import create_app
from server.changing import Changer, poll_forever
from server.errors import InvalidRepository
from server.generations import Board, Word
from server.keys import make_key
from server.repository import load_version
from server.rest import openapi
from server.settings import Settings
from tests.server.processes import endless_member, write_graph
from tests.server.rest.client import Client
from tests.server.rest.served import refusal
from tests.tiny import coefficients, graph, linear_member, write_ensemble

OPS, OPS_LINE = make_key("ops", ["admin"])
APP, APP_LINE = make_key("app", ["predict"])
ADMIN = {"X-Api-Key": OPS}
ROW = {"instances": [[1, 2, 3, 4]]}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Ensembles `tiny`, of versions 1 and 2, and `other`."""
    for version in (1, 2):
        write_ensemble(tmp_path / "models", version=version)
    write_ensemble(tmp_path / "models", name="other", n_members=1)
    (tmp_path / "keys").write_text(f"* predict\n{OPS_LINE}\n{APP_LINE}\n")
    (tmp_path / "shared").mkdir()
    return tmp_path


def settings(root: Path, **more: Any) -> Settings:
    given = {"default": "tiny", "model_control": "explicit", "trial_seconds": 30, **more}
    return Settings(models=root / "models", keys_file=root / "keys", **given)


@contextmanager
def controlled(root: Path, **more: Any) -> Iterator[Client]:
    with Client(create_app(settings(root, **more), root / "shared")) as client:
        yield client


@pytest.fixture
def client(root: Path) -> Iterator[Client]:
    with controlled(root) as client:
        yield client


def ask(client: Client, what: str, **body: Any) -> httpx.Response:
    return client.post(f"/v2/repository/{what}", headers=ADMIN, **({"json": body} if body else {}))


def index(client: Client, **body: Any) -> list[tuple[str, str, str, str]]:
    response = ask(client, "index", **body)
    assert response.status_code == 200, response.text
    return [(entry["name"], entry["version"], entry["state"], entry["reason"]) for entry in response.json()]


def change(client: Client, name: str, action: str, **parameters: Any) -> tuple[list[int], int]:
    """The versions that are served then, and the generation."""
    response = ask(client, f"models/{name}/{action}", parameters=parameters)
    assert response.status_code == 200, response.text
    assert response.json()["name"] == name
    return response.json()["versions"], response.json()["generation"]


def answers(client: Client, path: str = "/predict") -> int | str:
    """The version that answers, or the code of the error."""
    body = client.post(path, json=ROW).json()
    found: int | str = body.get("version") or body["code"]
    return found


def poll(client: Client) -> None:
    """Once, now."""
    client._runner.run(client.app.state.control.changer.poll())


# ---- The index -------------------------------------------------------------------------------------------------------


def test_the_index(client: Client) -> None:
    assert index(client) == [
        ("other", "1", "READY", ""),
        ("tiny", "1", "UNAVAILABLE", "unloaded"),
        ("tiny", "2", "READY", ""),
    ]
    assert index(client, ready=True) == [("other", "1", "READY", ""), ("tiny", "2", "READY", "")]


def test_the_index_tells_of_folders_that_are_wrong_and_of_what_has_gone(client: Client, root: Path) -> None:
    (root / "models/other/old").mkdir()
    shutil.rmtree(root / "models/tiny")
    assert index(client) == [
        ("other", "1", "READY", ""),
        ("tiny", "2", "READY", ""),
        ("other", "", "UNAVAILABLE", "other: expected only folders 1, 2, 3, …, one a version; got 'old'"),
    ]
    shutil.rmtree(root / "models")
    assert index(client) == [("other", "1", "READY", ""), ("tiny", "2", "READY", "")]


# ---- Loads and unloads -----------------------------------------------------------------------------------------------


def test_a_load_serves_what_a_start_would_choose(client: Client, root: Path) -> None:
    assert change(client, "tiny", "load") == ([2], 1)
    write_ensemble(root / "models", version=3)
    assert answers(client) == 2
    assert change(client, "tiny", "load") == ([3], 2)
    assert answers(client) == 3
    assert client.post("/v1/ensembles/tiny/versions/2/predict", json=ROW).status_code == 404
    assert change(client, "tiny", "load") == ([3], 2)


def test_a_load_of_other_versions(client: Client) -> None:
    assert change(client, "tiny", "load", versions="1") == ([1], 2)
    assert answers(client) == 1
    assert change(client, "tiny", "load", versions="all") == ([1, 2], 3)
    assert answers(client, "/v1/ensembles/tiny/versions/1/predict") == 1
    assert change(client, "tiny", "load", versions="2,9") == ([2], 4)


def test_an_unload(client: Client) -> None:
    assert change(client, "tiny", "unload", unload_dependents=False) == ([], 2)
    assert answers(client) == "not_found"
    assert answers(client, "/v1/ensembles/other/predict") == 1
    assert client.get("/v2/health/ready").status_code == 200
    assert client.get("/v1/ensembles").json() == {
        "default": "tiny",
        "ensembles": [{"name": "other", "versions": [1], "description": "linear members for tests"}],
    }
    page = client.get("/")
    assert page.status_code == 200
    assert "curl -s 'http://committee.test/v1/ensembles'" in page.text
    assert change(client, "tiny", "unload") == ([], 2)

    assert change(client, "other", "unload") == ([], 3)
    assert refusal(client.get("/v2/health/ready"))[:2] == (503, "not_ready")
    assert change(client, "tiny", "load") == ([2], 4)
    assert answers(client) == 2


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("models/nope/load", "no version of an ensemble 'nope' in the repository"),
        ("models/nope/unload", "no ensemble 'nope'; there are: other, tiny"),
    ],
)
def test_what_is_not_there(client: Client, what: str, said: str) -> None:
    assert refusal(ask(client, what)) == (404, "not_found", said)


def test_no_such_version(client: Client) -> None:
    told = refusal(ask(client, "models/tiny/load", parameters={"versions": "7,8"}))
    assert told == (404, "not_found", "none of these versions of ensemble 'tiny'; there are: 1, 2")


# ---- What cannot be served -------------------------------------------------------------------------------------------


def test_a_version_whose_files_are_not_those_that_it_lists(client: Client, root: Path) -> None:
    folder = write_ensemble(root / "models", version=3)
    (folder / "m1.onnx").write_bytes(linear_member(coefficients(9)[8]))
    status, code, said = refusal(ask(client, "models/tiny/load"))
    assert (status, code) == (400, "invalid_input")
    assert said.startswith("tiny/3/m1.onnx: expected sha256 ")
    assert answers(client) == 2
    assert ("tiny", "3", "UNAVAILABLE", said) in index(client)

    # Mended, it is served, and of the refusal nothing is left.
    shutil.rmtree(folder)
    write_ensemble(root / "models", version=3)
    assert change(client, "tiny", "load") == ([3], 2)
    assert ("tiny", "3", "READY", "") in index(client)
    assert client.app.state.control.changer._board.state().refused == {}


def test_a_version_whose_graph_is_none(client: Client, root: Path) -> None:
    write_graph(root / "models", b"no graph", version=3)
    status, _, said = refusal(ask(client, "models/tiny/load"))
    assert status == 400
    assert said.startswith("tiny/3: m1.onnx: expected an ONNX file; got bytes that are none")
    assert str(root) not in said
    assert answers(client) == 2


def test_a_version_whose_graph_fails_over_made_up_rows(client: Client, root: Path) -> None:
    folder = root / "models" / "tiny" / "3"
    folder.mkdir()
    (folder / "ensemble.toml").write_text('classes = ["red", "green", "blue"]\n[[members]]\nfile = "m1.onnx"\n')
    (folder / "m1.onnx").write_bytes(picky_member())
    status, _, said = refusal(ask(client, "models/tiny/load"))
    assert status == 400
    assert said.startswith("tiny/3: made-up rows, 1 at a time: tiny/3/m1.onnx: ")
    assert str(root) not in said
    assert answers(client) == 2


def picky_member() -> bytes:
    """A graph that takes the second row of every batch, and so no batch of one."""
    return graph(
        [
            helper.make_node("Gather", ["X", "second"], ["picked"], axis=0),
            helper.make_node("Sub", ["picked", "picked"], ["noughts"]),
            helper.make_node("Add", ["X", "noughts"], ["same"]),
            helper.make_node("MatMul", ["same", "W"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        ],
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", 3])],
        {"second": np.array([1]), "W": coefficients(1)[0]},
    )


def test_a_folder_with_strangers(client: Client, root: Path) -> None:
    (root / "models/tiny/README").touch()
    told = refusal(ask(client, "models/tiny/load"))
    assert told == (400, "invalid_input", "tiny: expected only folders 1, 2, 3, …, one a version; got 'README'")
    assert answers(client) == 2


def test_a_graph_that_does_not_end(root: Path) -> None:
    with controlled(root, trial_seconds=3) as client:
        write_graph(root / "models", endless_member(), version=3)
        told = refusal(ask(client, "models/tiny/load"))
        assert told == (400, "invalid_input", "tiny/3: it took more than 3 seconds to verify")
        assert answers(client) == 2


def test_a_version_that_a_worker_cannot_load(client: Client, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though it could be loaded in a process of its own; there may be no memory left."""
    folder = write_ensemble(root / "models", version=3)

    def fail(path: Path, **more: Any) -> Any:
        (path / "m1.onnx").unlink()
        return load_version(path, **more)

    monkeypatch.setattr("server.following.load_version", fail)
    assert refusal(ask(client, "models/tiny/load")) == (
        400,
        "invalid_input",
        "tiny/3/m1.onnx: No such file or directory",
    )
    assert answers(client) == 2
    monkeypatch.undo()
    shutil.rmtree(folder)
    write_ensemble(root / "models", version=3)
    assert change(client, "tiny", "load") == ([3], 3)  # 2 was taken back


# ---- Together with another worker ------------------------------------------------------------------------------------


@pytest.fixture
def other(root: Path) -> Iterator[int]:
    """A process that is taken for a worker."""
    process = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    yield process.pid
    process.kill()
    process.communicate()


def say(root: Path, pid: int, word: Word) -> None:
    (root / "shared" / f"worker-{pid}.json").write_text(word.model_dump_json())


def test_nothing_changes_if_another_worker_cannot_follow(client: Client, root: Path, other: int) -> None:
    say(root, other, Word(serves=1, failed=2, fault=f"{root}/models/tiny/1/m1.onnx: no memory"))
    told = refusal(ask(client, "models/tiny/load", parameters={"versions": "1"}))
    assert told == (400, "invalid_input", "tiny/1/m1.onnx: no memory")
    assert answers(client) == 2
    assert Board(root / "shared").words()[os.getpid()].ready == 0


def test_nor_if_it_says_nothing(root: Path, other: int) -> None:
    with controlled(root, trial_seconds=2) as client:
        say(root, other, Word(serves=1))
        status, code, said = refusal(ask(client, "models/tiny/load", parameters={"versions": "1"}))
        assert (status, code) == (503, "not_ready")
        assert said == f"expected all workers to follow within 2 seconds; {other} did not"
        assert answers(client) == 2
        assert Board(root / "shared").state().proposal is None


def test_one_that_dies_is_not_waited_for(
    client: Client, root: Path, other: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does what it had proposed count."""
    say(root, other, Word(serves=1))
    look = Board.words

    def words(board: Board) -> dict[int, Word]:
        board.leave(other)  # what the supervisor does
        return look(board)

    monkeypatch.setattr(Board, "words", words)
    assert change(client, "tiny", "load", versions="1") == ([1], 2)


def test_a_worker_takes_up_what_has_changed_while_it_started(root: Path) -> None:
    app = create_app(settings(root), root / "shared")
    board = Board(root / "shared")
    with board.changing():
        board.write(board.state().model_copy(update={"number": 5, "last": 5, "serving": {"tiny": (1,)}}))
    with Client(app) as client:
        assert answers(client) == 1
        assert board.words()[os.getpid()].serves == 5
        assert client.get("/metrics").text.count("\ncommittee_generation 5.0\n") == 1
    assert board.words() == {}


def test_the_document_is_made_once_of_what_is_served(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def document(app: FastAPI) -> dict[str, Any]:
        made.append(app.state.engine.repository.names())
        return openapi.document(app)

    monkeypatch.setattr("server.rest.page.document", document)
    before = [client.get("/openapi.json").content for _ in range(3)]
    assert len(set(before)) == len(made) == 1
    change(client, "other", "unload")
    assert client.get("/openapi.json").status_code == 200
    assert made == [["other", "tiny"], ["tiny"]]


def test_one_that_starts_later_serves_what_all_do(root: Path) -> None:
    with controlled(root) as client:
        change(client, "other", "unload")
    with controlled(root, default="other") as client:
        assert index(client, ready=True) == [("tiny", "2", "READY", "")]


def test_one_that_cannot_follow_ends(client: Client, root: Path) -> None:
    board = Board(root / "shared")
    board.write(board.state().model_copy(update={"number": 5, "last": 5, "serving": {"tiny": (9,)}}))
    control = client.app.state.control
    client._runner.run(until(lambda: control.lost))
    assert answers(client) == 2


def test_one_that_cannot_follow_does_not_start(root: Path) -> None:
    app = create_app(settings(root), root / "shared")
    board = Board(root / "shared")
    board.write(board.state().model_copy(update={"number": 5, "last": 5, "serving": {"tiny": (9,)}}))

    async def start() -> None:
        async with app.router.lifespan_context(app):
            pytest.fail("it has started")

    with pytest.raises(InvalidRepository, match="tiny/9"):
        asyncio.run(start())


async def until(condition: Any) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


def test_one_change_at_a_time(client: Client, root: Path) -> None:
    with Board(root / "shared").changing():
        for what in ("models/tiny/load", "models/tiny/unload", "models/nope/load"):
            told = refusal(ask(client, what))
            assert told == (409, "conflict", "another change of what is served is under way")
        poll(client)
        assert len(index(client)) == 3
    assert answers(client) == 2


def test_what_is_served_no_more_leaves_memory(client: Client, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "COLLECT_SECONDS", 0.05)
    answers(client)
    change(client, "tiny", "load", versions="1")
    follower = client.app.state.control._follower
    assert len(follower._going) == 1
    client._runner.run(until(lambda: not follower._going))


# ---- Polling ---------------------------------------------------------------------------------------------------------


def test_polling_finds_what_is_new(root: Path) -> None:
    with controlled(root, model_control="poll", poll_seconds=3600) as client:
        poll(client)
        assert client.app.state.control.changer._board.state().number == 1
        write_ensemble(root / "models", version=3)
        write_ensemble(root / "models", name="new")
        poll(client)
        assert index(client, ready=True) == [
            ("new", "1", "READY", ""),
            ("other", "1", "READY", ""),
            ("tiny", "3", "READY", ""),
        ]
        shutil.rmtree(root / "models/new")
        shutil.rmtree(root / "models/tiny/3")
        poll(client)
        assert index(client, ready=True) == [("other", "1", "READY", ""), ("tiny", "2", "READY", "")]


def test_polling_passes_over_what_cannot_be_served(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    with controlled(root, model_control="poll", poll_seconds=3600, versions="latest") as client:
        write_ensemble(root / "models", version=3)
        folder = write_graph(root / "models", b"no graph", version=4)
        (root / "models/tiny/.5").mkdir()
        (root / "models/tiny/6").mkdir()  # not yet whole
        with caplog.at_level(logging.ERROR):
            for _ in range(3):
                poll(client)
        told = [message for message in caplog.messages if "refused" in message]
        assert len(told) == 2
        assert told[0] == "a version is refused: tiny/6/ensemble.toml: No such file or directory"
        assert told[1].startswith("a version is refused: tiny/4: m1.onnx: expected an ONNX file; got bytes")
        assert answers(client) == 3
        shutil.rmtree(folder)
        shutil.rmtree(root / "models/tiny/6")
        write_ensemble(root / "models", version=4)
        poll(client)
        assert answers(client) == 4


def test_polling_leaves_alone_what_it_cannot_read(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    with controlled(root, model_control="poll", poll_seconds=3600) as client:
        write_ensemble(root / "models", version=3)
        (root / "models/tiny/README").touch()
        (root / "models/é").mkdir()
        with caplog.at_level(logging.ERROR):
            for _ in range(2):
                poll(client)
            assert answers(client) == 2
            (root / "models").rename(root / "gone")
            for _ in range(2):
                poll(client)
        assert answers(client) == 2
        assert [message for message in caplog.messages if message.startswith("what is served stays as it was: ")] == [
            "what is served stays as it was: tiny: expected only folders 1, 2, 3, …, one a version; got 'README'",
            "what is served stays as it was: the repository: expected a folder, the model repository; there is none",
        ]


def test_polling_goes_on_by_itself_whatever_happens(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    polls: list[int] = []

    async def fail(changer: Changer) -> None:
        polls.append(len(polls))
        raise ZeroDivisionError

    monkeypatch.setattr(Changer, "poll", fail)

    async def twice() -> None:
        task = asyncio.create_task(poll_forever(Changer(Board(root), root, versions="all", seconds=1), 0.001))
        await until(lambda: len(polls) > 2)
        task.cancel()

    asyncio.run(twice())


def test_a_poll_that_is_under_way_ends_with_the_server(root: Path) -> None:
    with controlled(root, model_control="poll", poll_seconds=0.01) as client:
        write_graph(root / "models", endless_member(), version=3)
        board = Board(root / "shared")
        client._runner.run(until(lambda: is_changing(board)))
        assert refusal(ask(client, "models/tiny/load"))[:2] == (400, "invalid_input")
    with board.changing():
        assert board.state().number == 1


def is_changing(board: Board) -> bool:
    try:
        with board.changing():
            return False
    except Exception:
        return True


# ---- Who may, and how it is said -------------------------------------------------------------------------------------


PATHS = ["/v2/repository/index", "/v2/repository/models/tiny/load", "/v2/repository/models/tiny/unload"]


@pytest.mark.parametrize("path", PATHS)
def test_only_who_may(client: Client, path: str) -> None:
    assert refusal(client.post(path))[:2] == (401, "unauthorized")
    assert refusal(client.post(path, headers={"X-Api-Key": APP}))[:2] == (403, "forbidden")
    for method in ("GET", "PUT", "DELETE", "PATCH"):
        assert client.request(method, path, headers=ADMIN).status_code == 405
    assert client.post(path.replace("tiny", "ti%2Fny"), headers=ADMIN).status_code in (200, 404)
    assert answers(client) == 2


@pytest.mark.parametrize("path", [*PATHS, "/v2/repository", "/v2/repository/reload", "/v2/repository/models/tiny/x"])
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"])
def test_only_who_may_is_told_what_there_is(client: Client, path: str, method: str) -> None:
    assert client.request(method, path).status_code == 401
    assert client.request(method, path, headers={"X-Api-Key": OPS + "x"}).status_code == 401
    assert client.request(method, path, headers={"X-Api-Key": APP}).status_code == 403
    assert client.request(method, path, headers=ADMIN).status_code == (405 if path in PATHS else 404)


@pytest.mark.parametrize("more", [{"model_control": "none"}, {"model_control": "poll", "keys_file": None}])
def test_there_are_no_such_routes_unless_they_are_wanted(root: Path, more: dict[str, Any]) -> None:
    app = create_app(settings(root).model_copy(update=more))
    with Client(app) as client:
        for path in PATHS:
            assert refusal(client.post(path, headers=ADMIN)) == (404, "not_found", "no such route; GET / lists them")


def test_only_at_the_admin_port(root: Path) -> None:
    app = create_app(settings(root, admin_port=9000), root / "shared")
    with Client(app) as client:
        for path in PATHS:
            assert refusal(client.post(path, headers=ADMIN)) == (404, "not_found", "no such route; GET / lists them")
            assert client.post(f"http://committee.test:9000{path}", headers=ADMIN).status_code == 200


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        (PATHS[0], b"x", "body: Invalid JSON"),
        (PATHS[0], b'{"ready": 1}', "body: ready: Input should be a valid boolean"),
        (PATHS[0], b"[]", "body: Input should be an object"),
        (PATHS[1], b'{"parameters": {"config": "{}"}}', "body: parameters.config: Extra inputs are not permitted"),
        (PATHS[1], b'{"parameters": {"versions": 1}}', "body: parameters.versions: Input should be a valid string"),
        (
            PATHS[1],
            b'{"parameters": {"versions": "0"}}',
            "parameters.versions: expected latest, all, or numbers like 1,3",
        ),
        (PATHS[2], b'{"name": "tiny"}', "body: name: Extra inputs are not permitted"),
    ],
)
def test_a_body_that_is_refused(client: Client, path: str, body: bytes, said: str) -> None:
    status, code, error = refusal(client.post(path, content=body, headers=ADMIN))
    assert (status, code) == (400, "invalid_input")
    assert error.startswith(said)


def test_a_body_that_is_too_long(client: Client) -> None:
    assert refusal(client.post(PATHS[0], content=b" " * 70_000, headers=ADMIN))[:2] == (400, "too_large")


def test_the_protocol_says_that_there_is_such_an_extension(client: Client, root: Path) -> None:
    assert "model_repository" in client.get("/v2").json()["extensions"]
    with Client(create_app(Settings(models=root / "models", default="tiny"))) as other:
        assert "model_repository" not in other.get("/v2").json()["extensions"]


def test_the_document_describes_it(client: Client) -> None:
    document = client.get("/openapi.json").json()
    operation = document["paths"]["/v2/repository/models/{name}/load"]["post"]
    assert operation["security"]
    assert set(operation["responses"]) == {"200", "400", "401", "403", "404", "409", "500", "503"}
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    assert list(schema["properties"]["parameters"]["properties"]) == ["versions"]


def test_what_is_counted(client: Client, root: Path) -> None:
    def count() -> dict[str, float]:
        lines = [line.rsplit(" ", 1) for line in client.get("/metrics").text.splitlines()]
        return {name: float(value) for name, value in lines if name.startswith("committee_model_changes_total")}

    before = count()
    change(client, "tiny", "load", versions="1")
    change(client, "tiny", "load", versions="1")
    ask(client, "models/nope/load")
    change(client, "other", "unload")
    with Board(root / "shared").changing():
        ask(client, "models/tiny/load")
    after = count()
    counted = {name[name.index("{") :]: value - before.get(name, 0) for name, value in after.items()}
    assert {name: value for name, value in counted.items() if value} == {
        '{action="load",outcome="done"}': 1,
        '{action="load",outcome="unchanged"}': 1,
        '{action="load",outcome="refused"}': 1,
        '{action="load",outcome="conflict"}': 1,
        '{action="unload",outcome="done"}': 1,
    }


def test_a_folder_of_its_own_for_one_that_is_alone(root: Path) -> None:
    app: FastAPI | None = create_app(settings(root))
    assert app is not None
    with Client(app) as client:
        assert change(client, "tiny", "load", versions="1") == ([1], 2)
        folder = client.app.state.control.changer._board._folder
        assert json.loads((folder / "generation.json").read_text())["number"] == 2
