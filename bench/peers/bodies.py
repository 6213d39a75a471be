"""Requests for a cell, in the form that a server takes, and the right answers.

All servers are sent the same numbers. The rows are pictures that `models/fashion/1` keeps as test vectors, shifted and
mirrored so that there are enough; the right answers are what the packed graph says of them in process.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.peers.cells import Cell
from bench.peers.workloads import FASHION

BODIES = 16
"""Requests of a cell, which are sent in turn."""
TOLERANCE = 2e-5
PICTURES = 16
"""Of the test vectors; those after them are all of one value."""
STRATEGIES = ("average", "weighted", "vote", "log_linear", "median", "max")
JSON, RAW = "application/json", "application/octet-stream"
OIP_HEADER = "inference-header-content-length"


@dataclass(frozen=True, slots=True)
class Request:
    path: str
    headers: Mapping[str, str]
    body: bytes


class WrongAnswer(Exception):
    pass


def rows(count: int) -> NDArray[np.float32]:
    """`(count, 784)`, whole numbers from 0 to 255."""
    with np.load(FASHION / "vectors.npz") as vectors:
        pictures = vectors["image"][:PICTURES, :, :, 0]
    rng = np.random.default_rng(0)
    made = []
    for k in range(count):
        picture = np.roll(pictures[k % PICTURES], rng.integers(-2, 3, 2), axis=(0, 1))
        made.append(picture[:, ::-1] if rng.random() < 0.5 else picture)
    return np.ascontiguousarray(np.reshape(made, (count, 784)), dtype=np.float32)


def batches(cell: Cell) -> list[NDArray[np.float32]]:
    """The rows of each request of the cell, `(rows, 784)`."""
    x = rows(BODIES * cell.rows)
    if cell.kind == "digits":
        x = x * np.float32(0.9) + np.random.default_rng(1).random(x.shape, dtype=np.float32)
    return np.split(x, BODIES)


def request(form: str, cell: Cell, batch: NDArray[np.float32], turn: int = 0) -> Request:
    """In the form `committee`, `plain` (as one makes it up), `oip` (the Open Inference Protocol), or `oip:fashion`.

    The last is for a server of several models and strategies: it names them, and the one output that is wanted.
    """
    protocol, _, model = form.partition(":")
    if protocol == "oip":
        return _oip(cell, batch, model)
    strategy = STRATEGIES[turn % len(STRATEGIES)] if cell.kind == "mixed" else "average"
    path = f"/predict?strategy={strategy}" if form == "committee" else "/predict"
    if cell.kind == "binary":
        return Request(path, {"Content-Type": RAW, "Accept": RAW}, batch.tobytes())
    return Request(path, {"Content-Type": JSON}, _dumps({"instances": _numbers(cell, batch)}))


def _oip(cell: Cell, batch: NDArray[np.float32], model: str) -> Request:
    path = f"/v2/models/{model}/infer?strategy=average" if model else "/v2/models/ensemble/infer"
    wanted = {"outputs": [{"name": "probabilities"}]} if model else {}
    tensor: dict[str, object] = {"name": "image", "shape": list(batch.shape), "datatype": "FP32"}
    if cell.kind != "binary":
        numbers = [number for row in _numbers(cell, batch) for number in row]
        return Request(path, {"Content-Type": JSON}, _dumps({"inputs": [{**tensor, "data": numbers}], **wanted}))
    said = {
        "inputs": [{**tensor, "parameters": {"binary_data_size": batch.nbytes}}],
        "outputs": [{"name": "probabilities", "parameters": {"binary_data": True}}],
    }
    head = _dumps(said)
    return Request(path, {"Content-Type": RAW, OIP_HEADER: str(len(head))}, head + batch.tobytes())


def _numbers(cell: Cell, batch: NDArray[np.float32]) -> Sequence[Sequence[float]]:
    numbers: list[list[float]] = (batch if cell.kind == "digits" else batch.astype(np.int64)).tolist()
    return numbers


def _dumps(value: object) -> bytes:
    """As Python's own json and most clients write it, with spaces."""
    return json.dumps(value).encode()


def answer(headers: Mapping[str, str], body: bytes) -> NDArray[np.float32]:
    """The probabilities `(n, n_classes)`, or flat where the answer says no shape, of whatever server."""
    if OIP_HEADER in headers:
        return np.frombuffer(body[int(headers[OIP_HEADER]) :], np.float32)
    if headers.get("content-type", "").startswith(RAW):
        return np.frombuffer(body, np.float32)
    said = json.loads(body)
    if isinstance(said, list):
        return np.array(said, dtype=np.float32)
    if "predictions" in said:
        return np.array([row["probabilities"] for row in said["predictions"]], dtype=np.float32)
    return np.array(said["outputs"][0]["data"] if "outputs" in said else said["probabilities"], dtype=np.float32)


def check(got: NDArray[np.float32], right: NDArray[np.float32], where: str) -> float:
    """The largest difference. Raises WrongAnswer if there is more than rounding."""
    if got.size != right.size:
        raise WrongAnswer(f"{where}: expected {right.size} probabilities, got {got.size}")
    off = float(np.abs(got.ravel() - right.ravel()).max())
    if not off <= TOLERANCE:
        raise WrongAnswer(f"{where}: an answer lies {off:.3g} from the right one")
    return off


def write(requests: Sequence[Request], folder: Path) -> Path:
    """The bodies, and the file that tells wrk's script of them."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for k, one in enumerate(requests):
        body = folder / f"{k:02d}.body"
        body.write_bytes(one.body)
        lines.append("\t".join([one.path, str(body), *(part for header in one.headers.items() for part in header)]))
    index = folder / "requests"
    index.write_text("\n".join(lines) + "\n")
    return index
