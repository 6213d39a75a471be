"""Tiny real ensembles for tests: linear members over four features and three classes, as ONNX files.

Every answer can be worked out by hand: member `k` answers `softmax(x @ W[k])`. Of the ensemble that reads a table the
four features are made of the columns `age` and `job`.
"""

import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import tomli_w
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from server.manifest import GATES_INPUT, MANIFEST_FILE, VECTORS_FILE

CLASSES = ["red", "green", "blue"]
N_FEATURES = 4
JOBS = ["cook", "nurse", "pilot"]
USUAL_AGE = 40.0
"""Stands for an age that is missing."""


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
    return graph(
        [
            helper.make_node("MatMul", ["X", "W"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        ],
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, ["n", weights.shape[0]])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", weights.shape[1]])],
        {"W": weights},
    )


def packed_members(coefficients: NDArray[np.float32], *, defaults: bool = True) -> bytes:
    """The members in one graph, each behind its gate: `X (n, 4), members (n_members,) -> (n_members, n, 3)`.

    With `defaults` the gates are an optional input, all true.
    """
    n_members, n_features, n_classes = coefficients.shape
    constants: dict[str, NDArray[Any]] = {"axis": np.array([0]), "tail": np.array([n_classes]), "one": np.array([1])}
    if defaults:
        constants[GATES_INPUT] = np.ones(n_members, dtype=np.bool_)
    nodes = [
        helper.make_node("Shape", ["X"], ["n_rows"], start=0, end=1),
        helper.make_node("Concat", ["one", "n_rows", "tail"], ["shut"], axis=0),
    ]
    for k in range(n_members):
        constants |= {f"W{k}": coefficients[k], f"k{k}": np.array(k)}
        opened = [
            helper.make_node("MatMul", ["X", f"W{k}"], [f"logits{k}"]),
            helper.make_node("Softmax", [f"logits{k}"], [f"softmax{k}"], axis=1),
            helper.make_node("Unsqueeze", [f"softmax{k}", "axis"], [f"open{k}"]),
        ]
        shut = [helper.make_node("ConstantOfShape", ["shut"], [f"shut{k}"])]
        branches = {
            "then_branch": helper.make_graph(opened, f"then{k}", [], [helper.make_empty_tensor_value_info(f"open{k}")]),
            "else_branch": helper.make_graph(shut, f"else{k}", [], [helper.make_empty_tensor_value_info(f"shut{k}")]),
        }
        nodes.append(helper.make_node("Gather", [GATES_INPUT, f"k{k}"], [f"gate{k}"]))
        nodes.append(helper.make_node("If", [f"gate{k}"], [f"part{k}"], **branches))
    nodes.append(helper.make_node("Concat", [f"part{k}" for k in range(n_members)], ["member_probabilities"], axis=0))
    return graph(
        nodes,
        [
            helper.make_tensor_value_info("X", TensorProto.FLOAT, ["n", n_features]),
            helper.make_tensor_value_info(GATES_INPUT, TensorProto.BOOL, [n_members]),
        ],
        [helper.make_tensor_value_info("member_probabilities", TensorProto.FLOAT, [n_members, "n", n_classes])],
        constants,
    )


def graph(
    nodes: Sequence[NodeProto],
    inputs: Sequence[ValueInfoProto],
    outputs: Sequence[ValueInfoProto],
    constants: Mapping[str, NDArray[Any]] | None = None,
) -> bytes:
    """The bytes of an ONNX model that the checker accepts."""
    initializers = [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()]
    body = helper.make_graph(nodes, "tiny", inputs, outputs, initializers)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(body, opset_imports=opsets, ir_version=10)
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
        "inputs": [{"name": "X", "datatype": "FP32", "shape": [N_FEATURES]}],
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
    np.savez(buffer, X=x, member_probabilities=member_probabilities)
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


def write_packed(root: Path, *, n_members: int = 3, name: str = "packed", version: int = 1, **changes: Any) -> Path:
    """Write a valid version whose members, those of `write_ensemble`, sit in one graph behind gates."""
    contents = manifest(n_members, name=name, version=version, **changes)
    for k, member in enumerate(contents["members"]):
        member |= {"file": "ensemble.onnx", "output": "member_probabilities", "gate": k}
    x = rows(16, seed=1)
    files = {"ensemble.onnx": packed_members(coefficients(n_members)), VECTORS_FILE: vectors(x, answers(x, n_members))}
    return write_version(root, contents, files)


def people(n: int, seed: int = 0) -> dict[str, NDArray[Any]]:
    """A table's tensors: `age (n, 1)` float32, every third one missing, and `job (n, 1)` of str."""
    rng = np.random.default_rng(seed)
    age = rng.integers(18, 66, (n, 1)).astype(np.float32)
    age[::3] = np.nan
    return {"age": age, "job": rng.choice(JOBS, (n, 1)).astype(object)}


def table_answers(tensors: Mapping[str, NDArray[Any]], n_members: int) -> NDArray[np.float32]:
    """What the members answer to `people`: `(n_members, n, 3)`. A job that is none of the three is no feature."""
    age = np.where(np.isnan(tensors["age"]), np.float32(USUAL_AGE), tensors["age"]) / np.float32(USUAL_AGE)
    job = (tensors["job"] == np.array(JOBS, dtype=object)).astype(np.float32)
    return answers(np.hstack([age, job]), n_members)


def table_member(weights: NDArray[np.float32]) -> bytes:
    """An ONNX graph `age (n, 1) float, job (n, 1) string -> probabilities (n, 3)`."""
    ml: dict[str, Any] = {"domain": "ai.onnx.ml"}
    imputing: dict[str, Any] = {"imputed_value_floats": [USUAL_AGE], "replaced_value_float": float("nan")}
    return graph(
        [
            helper.make_node("Imputer", ["age"], ["years"], **imputing, **ml),
            helper.make_node("Div", ["years", "usual"], ["scaled"]),
            helper.make_node("OneHotEncoder", ["job"], ["jobs"], cats_strings=JOBS, zeros=1, **ml),
            helper.make_node("Squeeze", ["jobs", "axis"], ["flat"]),
            helper.make_node("Concat", ["scaled", "flat"], ["features"], axis=1),
            helper.make_node("MatMul", ["features", "W"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        ],
        [
            helper.make_tensor_value_info("age", TensorProto.FLOAT, ["n", 1]),
            helper.make_tensor_value_info("job", TensorProto.STRING, ["n", 1]),
        ],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", weights.shape[1]])],
        {"W": weights, "usual": np.array([USUAL_AGE], dtype=np.float32), "axis": np.array([1])},
    )


def write_table_ensemble(
    root: Path, *, n_members: int = 2, name: str = "people", version: int = 1, **changes: Any
) -> Path:
    """Write a valid version of an ensemble over the columns `age`, which may be missing, and `job`."""
    inputs = [
        {"name": "age", "datatype": "FP32", "shape": [1], "low": 0.0, "high": 120.0, "missing": True},
        {"name": "job", "datatype": "BYTES", "shape": [1], "categories": JOBS},
    ]
    files = {f"m{k + 1}.onnx": table_member(w) for k, w in enumerate(coefficients(n_members))}
    tensors = people(16, seed=1)
    buffer = io.BytesIO()
    np.savez(
        buffer,
        age=tensors["age"],
        job=tensors["job"].astype(np.str_),
        member_probabilities=table_answers(tensors, n_members),
    )
    files[VECTORS_FILE] = buffer.getvalue()
    contents = manifest(n_members, name=name, version=version, **{"inputs": inputs, **changes})
    return write_version(root, contents, files)


def picture_answers(pixels: NDArray[Any], n_members: int) -> NDArray[np.float32]:
    """What the members of `write_picture_ensemble` answer to pictures `(n, 2, 2, 1)`: `(n_members, n, 3)`."""
    return answers((pixels.reshape(-1, N_FEATURES) / 255).astype(np.float32), n_members)


def picture_member(weights: NDArray[np.float32], shape: Sequence[int]) -> bytes:
    """An ONNX graph `image (n, *shape) -> probabilities (n, 3)`: softmax of a product of the pixels by 255."""
    return graph(
        [
            helper.make_node("Reshape", ["image", "flat"], ["pixels"]),
            helper.make_node("Div", ["pixels", "white"], ["scaled"]),
            helper.make_node("MatMul", ["scaled", "W"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        ],
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", *shape])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", weights.shape[1]])],
        {"W": weights, "white": np.array([255], dtype=np.float32), "flat": np.array([-1, len(weights)])},
    )


def write_picture_ensemble(
    root: Path, *, n_members: int = 2, name: str = "pictures", version: int = 1, **changes: Any
) -> Path:
    """Write a valid version of an ensemble over grey pictures of 2 by 2 pixels, `(n, 2, 2, 1)` from 0 to 255."""
    shape = [2, 2, 1]
    inputs = [{"name": "image", "datatype": "FP32", "shape": shape, "low": 0.0, "high": 255.0}]
    files = {f"m{k + 1}.onnx": picture_member(w, shape) for k, w in enumerate(coefficients(n_members))}
    pixels = np.random.default_rng(1).integers(0, 256, (16, *shape)).astype(np.float32)
    buffer = io.BytesIO()
    np.savez(buffer, image=pixels, member_probabilities=picture_answers(pixels, n_members))
    files[VECTORS_FILE] = buffer.getvalue()
    contents = manifest(n_members, name=name, version=version, **{"inputs": inputs, **changes})
    return write_version(root, contents, files)
