"""Good requests, of all strategies and in every form, and the right answer to each."""

import json
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

from server.app import create_app
from server.settings import Settings
from tests import tiny
from tests.server.rest.client import Client

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "models"
DEFAULT = "tiny"
CHANGING = {"changing": ("1", "2"), "fashion-fast": ("1",)}
"""Ensembles that are loaded and unloaded meanwhile, with their versions: they may be 404."""
TOLERANCE = 1e-4
"""A batch has other company each time, and a graph's sums differ in the last digits with its rows."""
JSON, RAW = "application/json", "application/octet-stream"
FOLLOWED = ("committee-model", "committee-version", "committee-strategy", "committee-degraded")
"""Headers that say of an answer in bytes what one in JSON says itself."""
ROWS = (1, 1, 1, 2, 8)


@dataclass(frozen=True, slots=True)
class Ask:
    path: str
    headers: Mapping[str, str]
    body: bytes
    rights: Mapping[str, Any]
    """By the version that answers, the right answer as `read` gives it."""
    may_be_gone: bool

    @property
    def raw(self) -> bytes:
        lines = [f"POST {self.path} HTTP/1.1", "Host: x", f"Content-Length: {len(self.body)}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        return "\r\n".join([*lines, "", ""]).encode() + self.body

    def is_right(self, head: bytes, body: bytes) -> bool:
        version, found = read(headers_of(head), body)
        return version in self.rights and same(found, self.rights[version])


def write_repository(root: Path) -> None:
    """Small ensembles of every kind, and the shipped ones."""
    tiny.write_stacked(root, name=DEFAULT, cascade=tiny.cascade())
    tiny.write_packed(root)
    tiny.write_regression(root)
    tiny.write_picture_ensemble(root)
    tiny.write_table_ensemble(root)
    for version, n_members in ((1, 3), (2, 2)):
        tiny.write_ensemble(root, name="changing", version=version, n_members=n_members)
    shutil.copytree(SHIPPED / "fashion" / "3", root / "fashion" / "3")
    shutil.copytree(SHIPPED / "fashion-fast", root / "fashion-fast")


def headers_of(head: bytes) -> dict[str, str]:
    """Of the head of an answer, with small names."""
    pairs = (line.partition(":") for line in head.decode("latin-1").split("\r\n")[1:])
    return {name.lower(): value.strip() for name, _, value in pairs}


def read(headers: Mapping[str, str], body: bytes) -> tuple[str, Any]:
    """The version that has answered, and what it said."""
    if length := headers.get("inference-header-content-length"):
        said = json.loads(body[: int(length)])
        return said["model_version"], [said, _numbers(body[int(length) :])]
    if headers.get("content-type", "").startswith(RAW):
        said = {name: headers.get(name) for name in FOLLOWED}
        return str(said["committee-version"]), [said, _numbers(body)]
    said = json.loads(body)
    return str(said.get("version", said.get("model_version"))), said


def _numbers(data: bytes) -> list[float]:
    numbers: list[float] = np.frombuffer(data[: len(data) // 4 * 4], "<f4").tolist()
    return numbers


def same(found: Any, right: Any) -> bool:
    """Whether they say the same, but for rounding."""
    if isinstance(right, dict):
        return isinstance(found, dict) and found.keys() == right.keys() and all(same(found[k], right[k]) for k in right)
    if isinstance(right, list):
        return isinstance(found, list) and len(found) == len(right) and all(map(same, found, right))
    if isinstance(right, float) and isinstance(found, int | float):
        return abs(found - right) <= TOLERANCE * max(1.0, abs(right))
    return bool(found == right)


def make(root: Path) -> list[Ask]:
    """Each is asked of an application in this process first, alone and undisturbed: that is the right answer.

    Raises AssertionError if one is refused, or if the answers of `average` are not what arithmetic says.
    """
    with Client(create_app(Settings(models=root, default=DEFAULT, versions="all", breaker_failures=0))) as client:
        check_arithmetic(client)
        return [_answered(client, *said) for said in _requests()]


def check_arithmetic(client: Client) -> None:
    x = tiny.rows(8)
    response = client.post("/predict?strategy=average", json={"instances": x.tolist()})
    found = np.array([row["probabilities"] for row in response.json()["predictions"]])
    assert np.allclose(found, tiny.answers(x, 3).mean(axis=0), atol=1e-6)


def _answered(client: Client, path: str, headers: Mapping[str, str], body: bytes) -> Ask:
    name = _name(path)
    rights = {}
    for version in CHANGING.get(name, ("",)):
        response = client.post(_of_version(path, name, version), content=body, headers=dict(headers))
        assert response.status_code == 200, (path, response.text)
        found, right = _read(response)
        assert version in ("", found), path
        rights[found] = right
    return Ask(path, headers, body, rights, name in CHANGING)


def _read(response: httpx.Response) -> tuple[str, Any]:
    return read(dict(response.headers), response.content)


def _name(path: str) -> str:
    match = re.match(r"/v[12]/(?:ensembles|models)/([\w-]+)", path)
    return match[1] if match else DEFAULT


def _of_version(path: str, name: str, version: str) -> str:
    return path.replace(f"/{name}", f"/{name}/versions/{version}", 1) if version else path


def _requests() -> Iterator[tuple[str, Mapping[str, str], bytes]]:
    """Paths, headers and bodies."""
    seed = 0
    for n_rows in ROWS:
        for strategy in ("average", "weighted", "vote", "log_linear", "median", "max", "stacking", "cascade"):
            seed += 1
            x = tiny.rows(n_rows, seed)
            yield from _in_every_form("tiny", "/predict", strategy, "X", x)
        for strategy in ("mean", "weighted", "median"):
            yield _as_json("/v1/ensembles/regression/predict", f"strategy={strategy}", tiny.rows(n_rows, seed).tolist())
        for strategy in ("average", "weighted", "vote", "log_linear", "cascade"):
            pixels = _pixels(n_rows, seed)
            yield from _in_every_form("fashion", "/v1/ensembles/fashion/predict", strategy, "image", pixels)
        for name, x in (("changing", tiny.rows(n_rows, seed)), ("fashion-fast", _pixels(n_rows, seed))):
            yield _as_json(f"/v1/ensembles/{name}/predict", "", x.tolist())
        yield _as_json("/v1/ensembles/packed/predict", "members=-m2&detail=members,uncertainty", _rows(n_rows, seed))
        yield _as_json("/v1/ensembles/people/predict", "", _people(n_rows, seed))


def _rows(n_rows: int, seed: int) -> list[list[float]]:
    numbers: list[list[float]] = tiny.rows(n_rows, seed).tolist()
    return numbers


def _in_every_form(
    name: str, path: str, strategy: str, tensor: str, x: NDArray[np.float32]
) -> Iterable[tuple[str, Mapping[str, str], bytes]]:
    query = f"strategy={strategy}"
    yield _as_json(path, query, x.tolist())
    yield f"{path}?{query}", {"Content-Type": RAW, "Accept": RAW}, x.tobytes()
    said = {"name": tensor, "shape": list(x.shape), "datatype": "FP32"}
    wanted = [{"name": "probabilities"}, {"name": "label"}]
    infer, given = f"/v2/models/{name}/infer", {"parameters": {"strategy": strategy}, "outputs": wanted}
    yield (
        infer,
        {"Content-Type": JSON},
        json.dumps({**given, "inputs": [{**said, "data": x.ravel().tolist()}]}).encode(),
    )
    head = json.dumps(
        {
            "parameters": {"strategy": strategy, "binary_data_output": True},
            "outputs": wanted[:1],
            "inputs": [{**said, "parameters": {"binary_data_size": x.nbytes}}],
        }
    ).encode()
    yield infer, {"Content-Type": RAW, "Inference-Header-Content-Length": str(len(head))}, head + x.tobytes()


def _as_json(path: str, query: str, instances: Sequence[Any]) -> tuple[str, Mapping[str, str], bytes]:
    return f"{path}?{query}" if query else path, {"Content-Type": JSON}, json.dumps({"instances": instances}).encode()


def _pixels(n_rows: int, seed: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).integers(0, 256, (n_rows, 28, 28, 1)).astype(np.float32)


def _people(n_rows: int, seed: int) -> list[dict[str, Any]]:
    tensors = tiny.people(n_rows, seed)
    rows = zip(tensors["age"][:, 0].tolist(), tensors["job"][:, 0].tolist(), strict=True)
    return [{"age": None if np.isnan(age) else age, "job": job} for age, job in rows]
