"""Servers whose versions change, and what changes them."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from server.keys import make_key
from tests import tiny
from tests.server.processes import BODY, Server, running

OPS, LINE = make_key("ops", ["admin"])


def publish(root: Path, version: int) -> Path:
    """By one rename. Odd versions have three members and even ones two, which answer otherwise."""
    tiny.write_ensemble(root.parent / "beside", version=version, n_members=members_of(version))
    folder = root / "tiny" / str(version)
    return (root.parent / "beside" / "tiny" / str(version)).rename(folder)


def members_of(version: int) -> int:
    return 2 + version % 2


@contextmanager
def controlled(tmp_path: Path, *options: str, control: str = "explicit") -> Iterator[Server]:
    tiny.write_ensemble(tmp_path / "models", n_members=members_of(1))
    (tmp_path / "keys").write_text(f"* predict\n{LINE}\n")
    given = ("--workers", "2", "--model-control", control, "--keys-file", str(tmp_path / "keys"))
    with running(tmp_path, *given, *options) as server:
        yield server


def administer(server: Server, what: str, port: int = 0, **parameters: str) -> tuple[int, Any]:
    body = json.dumps({"parameters": parameters}).encode() if parameters else None
    status, answer = server.request("POST", f"/v2/repository/{what}", body, port=port, **{"X-Api-Key": OPS})
    return status, json.loads(answer)


def versions_that_answer(server: Server, n: int = 24) -> set[int | None]:
    """Of connections enough to meet both workers; None where there is no answer."""
    answers = [server.request("POST", "/predict", BODY) for _ in range(n)]
    return {json.loads(body)["version"] if status == 200 else None for status, body in answers}
