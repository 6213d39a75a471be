"""A tiny real ensemble for tests: linear members over four features and three classes, as ONNX files.

Every answer can be worked out by hand: member `k` answers `softmax(x @ W[k])`.
"""

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import tomli_w
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from server.manifest import MANIFEST_FILE, VECTORS_FILE

CLASSES = ["red", "green", "blue"]
N_FEATURES = 4


def coefficients(n_members: int) -> NDArray[np.float32]:
    """`(n_members, 4, 3)`, fixed, and different enough for the members to disagree."""
    return np.random.default_rng(7).normal(0, 1.5, (n_members, N_FEATURES, len(CLASSES))).astype(np.float32)


def rows(n: int, seed: int = 0) -> NDArray[np.float32]:
    """`(n, 4)` float32."""
    return np.random.default_rng(seed).normal(0, 1, (n, N_FEATURES)).astype(np.float32)


def answers(x: NDArray[np.float32], n_members: int) -> NDArray[np.float32]:
    """What the members answer: `(n_members, n, 3)`."""
    logits = np.einsum("nf,mfc->mnc", x, coefficients(n_members))
    exponentials = np.exp(logits - logits.max(axis=2, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=2, keepdims=True), dtype=np.float32)


def linear_member(weights: NDArray[np.float32]) -> bytes:
    """An ONNX graph `X (n, 4) -> probabilities (n, 3)`: softmax of a product."""
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["X", "W"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        ],
        "linear",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, ["n", weights.shape[0]])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", weights.shape[1]])],
        [numpy_helper.from_array(weights, "W")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def manifest(n_members: int, *, name: str = "tiny", version: int = 1, **changes: Any) -> dict[str, Any]:
    """The manifest of `write_ensemble`, as a dict without its files; `changes` replace top-level keys."""
    return {
        "format": 1,
        "name": name,
        "version": version,
        "description": "linear members for tests",
        "default_strategy": "average",
        "classes": CLASSES,
        "input": {"name": "X", "datatype": "FP32", "shape": [N_FEATURES]},
        "members": [
            {
                "name": f"m{k + 1}",
                "framework": "hand",
                "file": f"m{k + 1}.onnx",
                "output": "probabilities",
                "weights": {"weighted": float(n_members - k), "log_linear": float(k + 1)},
                "temperature": 1.0 + 0.5 * k,
                "cost_us": 1.0,
            }
            for k in range(n_members)
        ],
        **changes,
    }


def vectors(x: NDArray[np.float32], member_probabilities: NDArray[np.float32]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, inputs=x, member_probabilities=member_probabilities)
    return buffer.getvalue()


def write_version(root: Path, contents: dict[str, Any], files: Mapping[str, bytes]) -> Path:
    """Write `<root>/<name>/<version>/` with a manifest that lists `files` truly; returns the folder."""
    folder = root / str(contents["name"]) / str(contents["version"])
    folder.mkdir(parents=True)
    listed = [
        {"name": name, "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)} for name, data in files.items()
    ]
    for name, data in files.items():
        (folder / name).write_bytes(data)
    (folder / MANIFEST_FILE).write_text(tomli_w.dumps({**contents, "files": listed}))
    return folder


def write_ensemble(root: Path, *, n_members: int = 3, name: str = "tiny", version: int = 1, **changes: Any) -> Path:
    """Write a whole valid version of the tiny ensemble; `changes` replace top-level keys of its manifest."""
    files = {f"m{k + 1}.onnx": linear_member(w) for k, w in enumerate(coefficients(n_members))}
    x = rows(16, seed=1)
    files[VECTORS_FILE] = vectors(x, answers(x, n_members))
    return write_version(root, manifest(n_members, name=name, version=version, **changes), files)
