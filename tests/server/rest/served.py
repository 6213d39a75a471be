"""Applications for tests that ask for one kind of ensemble, and how they are asked."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from numpy.typing import NDArray

from server.app import create_app
from server.manifest import VECTORS_FILE
from server.settings import Settings
from tests import faulty, tiny
from tests.server.rest.client import Client

SOON = 400
"""Milliseconds: those that do not hang answer by then even on a machine that has much else to do."""


@contextmanager
def serve(root: Path, default: str, **settings: Any) -> Iterator[Client]:
    """A client of what is in the folder; unless the settings say so, no circuit ever opens."""
    app = create_app(Settings(models=root, default=default, **{"breaker_failures": 0, **settings}))
    with Client(app) as client:
        yield client


def ask(client: Client, rows: NDArray[Any], query: str = "", *, of: str | None = None, **fields: Any) -> httpx.Response:
    """Ask the default ensemble, or `of` which, about the rows by JSON."""
    path = "/predict" if of is None else f"/v1/ensembles/{of}/predict"
    return client.post(f"{path}?{query}", json={"instances": rows.tolist(), **fields})


def answer(response: httpx.Response) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


def refusal(response: httpx.Response) -> tuple[int, str, str]:
    """The status, the code and the message of an error answer."""
    body = response.json()
    assert set(body) == {"error", "code", "request_id"}
    return response.status_code, body["code"], body["error"]


def write_faulty_stacked(root: Path, **changes: Any) -> Path:
    """Write a version `everything`: a member that can fail, m3, a final estimator, and a cascade that asks m3 last.

    Over a row that says what m3 is to do, m1 and m2 are sure of different classes, so that it gets to m3.
    """
    weights = tiny.coefficients(3)
    files = {f"m{k + 1}.onnx": tiny.linear_member(weights[k]) for k in range(2)}
    files["m3.onnx"] = faulty.faulty_member(weights[2])
    files["final.onnx"] = tiny.final_estimator(tiny.member_shares(3))
    x = tiny.rows(16, seed=1)
    files[VECTORS_FILE] = tiny.vectors(x, tiny.answers(x, 3))
    contents = tiny.manifest(
        3,
        name="everything",
        final_estimator={"file": "final.onnx", "output": "stacked"},
        cascade=tiny.cascade(["m1", "m2"], ["m3"]),
        **changes,
    )
    return tiny.write_version(root, contents, files)
