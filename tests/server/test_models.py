import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from server import cli
from server.app import create_app
from server.keys import make_key
from server.settings import Settings
from tests.server.folders import write_by_hand
from tests.server.served_http import Served, served
from tests.tiny import write_ensemble

OPS, LINE = make_key("ops", ["admin"])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for version in (1, 2):
        write_ensemble(tmp_path / "models", version=version)
    write_by_hand(tmp_path / "models", place="hand/1")
    (tmp_path / "key").write_text(f"{OPS}\n")
    return tmp_path


@pytest.fixture
def server(root: Path) -> Iterator[Served]:
    (root / "keys").write_text(LINE)
    settings = Settings(models=root / "models", default="tiny", keys_file=root / "keys", model_control="explicit")
    with served(create_app(settings)) as server:
        yield server


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, list[list[str]], str]:
    """The exit code, the words of each line, and what it says of faults."""
    code = cli.run(["models", *arguments])
    out, err = capsys.readouterr()
    return code, [line.split() for line in out.splitlines()], err


def ask(
    capsys: pytest.CaptureFixture[str], server: Served, root: Path, *arguments: str
) -> tuple[int, list[list[str]], str]:
    return run(capsys, *arguments, "--url", f"http://127.0.0.1:{server.port}", "--key-file", str(root / "key"))


def test_lists_what_lies_in_a_repository(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "models/tiny/1/m1.onnx").write_bytes(b"")
    code, rows, _ = run(capsys, "--models", str(root / "models"))
    assert code == 0
    assert rows[:2] == [
        ["NAME", "VERSION", "SERVED", "MEMBERS", "DESCRIPTION"],
        ["hand", "1", "yes", "2", "classification"],
    ]
    assert rows[2][:6] == ["tiny", "1", "no", "-", "m1.onnx:", "expected"]
    assert rows[3] == ["tiny", "2", "yes", "3", *["linear", "members", "for", "tests"]]
    assert [row[2] for row in run(capsys, "--models", str(root / "models"), "--versions", "1")[1][1:]] == [
        "yes",
        "no",
        "no",
    ]


def test_lists_folders_that_are_wrong(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "models/tiny/old").mkdir()
    _, rows, _ = run(capsys, "--models", str(root / "models"))
    assert rows[2][:7] == ["tiny", "-", "no", "-", "expected", "only", "folders"]
    assert [row[:3] for row in rows[3:]] == [["tiny", "1", "no"], ["tiny", "2", "no"]]
    code, rows, err = run(capsys, "--models", str(root / "nowhere"))
    assert (code, rows) == (1, [])
    assert err == f"committee-server models: {root}/nowhere: expected a folder, the model repository; there is none\n"


def test_verifies(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, rows, _ = run(capsys, "verify", str(root / "models/tiny"))
    assert (code, [row[:2] for row in rows]) == (0, [["ok", "tiny/1"], ["ok", "tiny/2"]])


def test_has_a_server_load_and_unload(server: Served, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(capsys, server, root)[1] == [
        ["NAME", "VERSION", "STATE", "REASON"],
        ["hand", "1", "READY"],
        ["tiny", "1", "UNAVAILABLE", "unloaded"],
        ["tiny", "2", "READY"],
    ]
    assert ask(capsys, server, root, "load", "tiny", "--versions", "all")[:2] == (
        0,
        [["tiny:", "1,", "2", "served,", "generation", "2"]],
    )
    assert ask(capsys, server, root, "unload", "tiny")[:2] == (
        0,
        [["tiny:", "no", "version", "served,", "generation", "3"]],
    )
    assert ask(capsys, server, root, "load", "tiny")[:2] == (0, [["tiny:", "2", "served,", "generation", "4"]])
    assert ask(capsys, server, root, "load", "a/b") == (
        1,
        [],
        "committee-server models: 404: no such route; GET / lists them\n",
    )


def test_the_key_may_stand_in_the_environment(
    server: Served, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"http://127.0.0.1:{server.port}/"
    monkeypatch.delenv("COMMITTEE_KEY", raising=False)
    code, rows, err = run(capsys, "--url", url)
    assert (code, rows) == (1, [])
    assert err.startswith("committee-server models: 401: expected a key")
    monkeypatch.setenv("COMMITTEE_KEY", OPS)
    assert run(capsys, "--url", url)[0] == 0
    assert run(capsys, "--url", url, "load", "tiny")[0] == 0


def test_what_keeps_it_from_the_server(server: Served, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, said in (
        (["--url", "http://127.0.0.1:1"], "http://127.0.0.1:1: [Errno 111] Connection refused"),
        (["--url", "file:///etc/passwd"], "expected a URL like http://127.0.0.1:8000; got 'file:///etc/passwd'"),
        (["load", "tiny", "--key-file", f"{root}/none"], f"{root}/none: No such file or directory"),
        (["--url", f"http://127.0.0.1:{server.port}/docs"], "404: no such route; GET / lists them"),
        (["--url", f"http://127.0.0.1:{server.port}/metrics?"], "405: expected GET; got another method"),
    ):
        assert run(capsys, *arguments)[::2] == (1, f"committee-server models: {said}\n")


def test_a_server_of_another_kind(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def other(scope: object, receive: object, send: object) -> None:
        message = {"type": "http.response.start", "status": 418, "headers": []}
        await send(message)  # type: ignore[operator]
        await send({"type": "http.response.body", "body": json.dumps("tea").encode()})  # type: ignore[operator]

    with served(other, lifespan="off") as server:  # type: ignore[arg-type]
        code, _, err = run(capsys, "--url", f"http://127.0.0.1:{server.port}")
    assert (code, err) == (1, "committee-server models: 418: I'm a Teapot; expected Committee\n")
