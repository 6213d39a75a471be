"""Tiny real ensembles for tests: linear members over four features and three classes, as ONNX files.

Every answer can be worked out by hand: member `k` answers `softmax(x @ W[k])`, and of a regression `x @ W[k]`. Of the
ensemble that reads a table the four features are made of the columns `age` and `job`.
"""

import hashlib
import io
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import tomli_w
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from server.ensemble import Ensemble
from server.manifest import ANSWERS_INPUT, GATES_INPUT, MANIFEST_FILE, STACK_INPUT, VECTORS_FILE, Manifest

CLASSES = ["red", "green", "blue"]
TARGETS = ["price", "weight"]
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


def packed_members(
    coefficients: NDArray[np.float32], *, defaults: bool = True, shares: NDArray[np.float32] | None = None
) -> bytes:
    """The members in one graph, each behind its gate: `X (n, 4), members (n_members,) -> (n_members, n, 3)`.

    With `defaults` the gates are an optional input, all true. With `shares` the final estimator of `stacked_answers` is
    in it too: `answers (n_members, n, 3)`, by default of no rows, `stack (1,)`, by default true `-> stacked (n, 3)`.
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
    inputs = [
        helper.make_tensor_value_info("X", TensorProto.FLOAT, ["n", n_features]),
        helper.make_tensor_value_info(GATES_INPUT, TensorProto.BOOL, [n_members]),
    ]
    outputs = [helper.make_tensor_value_info("member_probabilities", TensorProto.FLOAT, [n_members, "n", n_classes])]
    if shares is not None:
        constants |= _shares_of(shares) | {
            ANSWERS_INPUT: np.zeros((n_members, 0, n_classes), dtype=np.float32),
            STACK_INPUT: np.ones(1, dtype=np.bool_),
            "no_rows": np.zeros((0, n_classes), dtype=np.float32),
        }
        branches = {
            "then_branch": helper.make_graph(
                _stacking(shares, "then_stacked"),
                "then_stack",
                [],
                [helper.make_empty_tensor_value_info("then_stacked")],
            ),
            "else_branch": helper.make_graph(
                [helper.make_node("Identity", ["no_rows"], ["else_stacked"])],
                "else_stack",
                [],
                [helper.make_empty_tensor_value_info("else_stacked")],
            ),
        }
        nodes.append(helper.make_node("If", [STACK_INPUT], ["stacked"], **branches))
        inputs.append(helper.make_tensor_value_info(ANSWERS_INPUT, TensorProto.FLOAT, [n_members, "rows", n_classes]))
        inputs.append(helper.make_tensor_value_info(STACK_INPUT, TensorProto.BOOL, [1]))
        outputs.append(helper.make_tensor_value_info("stacked", TensorProto.FLOAT, ["rows", n_classes]))
    return graph(nodes, inputs, outputs, constants)


def member_shares(n_members: int, n_classes: int = len(CLASSES)) -> NDArray[np.float32]:
    """`(n_members, n_classes)`, fixed: how far the final estimator trusts each member over each class."""
    return np.random.default_rng(8).uniform(0.1, 1, (n_members, n_classes)).astype(np.float32)


def stacked_answers(member_answers: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the final estimator makes of answers `(n_members, n, n_classes)`: `(n, n_classes)`.

    A sum over the members by their shares of each class, normalised.
    """
    n_members, _, n_classes = member_answers.shape
    scores = (member_answers * member_shares(n_members, n_classes)[:, None, :]).sum(axis=0)
    return np.asarray(scores / scores.sum(axis=1, keepdims=True), dtype=np.float32)


def final_estimator(shares: NDArray[np.float32]) -> bytes:
    """An ONNX graph `answers (n_members, n, n_classes) -> stacked (n, n_classes)`."""
    n_members, n_classes = shares.shape
    return graph(
        _stacking(shares, "stacked"),
        [helper.make_tensor_value_info(ANSWERS_INPUT, TensorProto.FLOAT, [n_members, "n", n_classes])],
        [helper.make_tensor_value_info("stacked", TensorProto.FLOAT, ["n", n_classes])],
        _shares_of(shares),
    )


def _stacking(shares: NDArray[np.float32], end: str) -> list[NodeProto]:
    """Nodes from `answers` to `end`.

    They add one number after another: ONNX Runtime's own sums differ in the last digit with the number of rows.
    """
    n_members, n_classes = shares.shape
    nodes = []
    for k in range(n_members):
        nodes.append(helper.make_node("Gather", [ANSWERS_INPUT, f"member{k}"], [f"answer{k}"], axis=0))
        nodes.append(helper.make_node("Mul", [f"answer{k}", f"shares{k}"], [f"scores{k}"]))
    scores = _sum([f"scores{k}" for k in range(n_members)], nodes)
    for c in range(n_classes):
        nodes.append(helper.make_node("Gather", [scores, f"class{c}"], [f"score{c}"], axis=1))
    whole = _sum([f"score{c}" for c in range(n_classes)], nodes)
    return [*nodes, helper.make_node("Div", [scores, whole], [end])]


def _sum(names: Sequence[str], nodes: list[NodeProto]) -> str:
    """The name of the sum of these tensors, from first to last; appends the nodes that make it."""
    total, *others = names
    for name in others:
        nodes.append(helper.make_node("Add", [total, name], [f"until_{name}"]))
        total = f"until_{name}"
    return total


def _shares_of(shares: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    constants: dict[str, NDArray[Any]] = {f"class{c}": np.array([c]) for c in range(shares.shape[1])}
    for k, share in enumerate(shares):
        constants |= {f"member{k}": np.array(k), f"shares{k}": share}
    return constants


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


def write_stacked(root: Path, *, n_members: int = 3, name: str = "stacked", version: int = 1, **changes: Any) -> Path:
    """Write a valid version of the tiny ensemble that has a final estimator in a file of its own."""
    files = {f"m{k + 1}.onnx": linear_member(w) for k, w in enumerate(coefficients(n_members))}
    files["final.onnx"] = final_estimator(member_shares(n_members))
    x = rows(16, seed=1)
    files[VECTORS_FILE] = vectors(x, answers(x, n_members))
    changes = {"final_estimator": {"file": "final.onnx", "output": "stacked"}, **changes}
    return write_version(root, manifest(n_members, name=name, version=version, **changes), files)


def write_packed_stacked(
    root: Path, *, n_members: int = 3, name: str = "packed_stacked", version: int = 1, **changes: Any
) -> Path:
    """Write a valid version whose members and final estimator sit in one graph."""
    changes = {"final_estimator": {"file": "ensemble.onnx", "output": "stacked"}, **changes}
    contents = manifest(n_members, name=name, version=version, **changes)
    for k, member in enumerate(contents["members"]):
        member |= {"file": "ensemble.onnx", "output": "member_probabilities", "gate": k}
    x = rows(16, seed=1)
    packed = packed_members(coefficients(n_members), shares=member_shares(n_members))
    files = {"ensemble.onnx": packed, VECTORS_FILE: vectors(x, answers(x, n_members))}
    return write_version(root, contents, files)


def cascade(*stages: Sequence[str], threshold: float = 0.8, **changes: Any) -> dict[str, Any]:
    """The `cascade` of a manifest, of the members of each stage: by default `m1`, then `m2` and `m3`."""
    return {
        "strategy": "average",
        "stages": [{"members": list(names), "threshold": threshold} for names in stages or (["m1"], ["m2", "m3"])],
        **changes,
    }


def write_cascade(root: Path, *, n_members: int = 3, name: str = "cascade", version: int = 1, **changes: Any) -> Path:
    """Write a valid version of the tiny ensemble whose default strategy is the cascade of `cascade()`."""
    changes = {"cascade": cascade(), "default_strategy": "cascade", **changes}
    return write_ensemble(root, n_members=n_members, name=name, version=version, **changes)


def slopes(n_members: int, n_targets: int) -> NDArray[np.float32]:
    """`(n_members, 4, n_targets)`, fixed."""
    return np.random.default_rng(9).normal(0, 10, (n_members, N_FEATURES, n_targets)).astype(np.float32)


def values(x: NDArray[np.float32], n_members: int, n_targets: int = 1) -> NDArray[np.float32]:
    """What the members of a regression answer: `(n_members, n, n_targets)`."""
    return np.asarray(np.einsum("nf,mft->mnt", x, slopes(n_members, n_targets)), dtype=np.float32)


def regressor(slopes: NDArray[np.float32]) -> bytes:
    """An ONNX graph `X (n, 4) -> values (n, n_targets)`: a product."""
    return graph(
        [helper.make_node("MatMul", ["X", "W"], ["values"])],
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, ["n", slopes.shape[0]])],
        [helper.make_tensor_value_info("values", TensorProto.FLOAT, ["n", slopes.shape[1]])],
        {"W": slopes},
    )


def regression_manifest(
    n_members: int, *, targets: Sequence[str] = TARGETS[:1], name: str = "regression", version: int = 1, **changes: Any
) -> dict[str, Any]:
    """The manifest of `write_regression`, as a dict without its files; it names no default strategy."""
    contents = manifest(n_members, name=name, version=version, task="regression", targets=list(targets))
    del contents["classes"], contents["default_strategy"]
    for k, member in enumerate(contents["members"]):
        member |= {"output": "values", "weights": {"weighted": float(n_members - k)}}
        del member["temperature"]
    return {**contents, **changes}


def write_regression(
    root: Path,
    *,
    n_members: int = 3,
    targets: Sequence[str] = TARGETS[:1],
    name: str = "regression",
    version: int = 1,
    **changes: Any,
) -> Path:
    """Write a valid version of a regression ensemble, of one target or of several."""
    files = {f"m{k + 1}.onnx": regressor(w) for k, w in enumerate(slopes(n_members, len(targets)))}
    x = rows(16, seed=1)
    files[VECTORS_FILE] = vectors(x, values(x, n_members, len(targets)))
    contents = regression_manifest(n_members, targets=targets, name=name, version=version, **changes)
    return write_version(root, contents, files)


def _identity(n_outputs: int) -> bytes:
    return graph(
        [helper.make_node("Identity", ["X"], ["answers"])],
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, ["n", n_outputs])],
        [helper.make_tensor_value_info("answers", TensorProto.FLOAT, ["n", n_outputs])],
    )


@cache
def answering(
    n_members: int,
    n_outputs: int = 3,
    *,
    task: str = "classification",
    stages: tuple[tuple[str, ...], ...] = (),
    threshold: float = 0.8,
    rule: str = "average",
    measure: str = "confidence",
    order: tuple[int, ...] = (),
) -> Ensemble:
    """An ensemble for tests that give the answers themselves; its members just hand on what they read.

    They are those of `manifest()`, in another `order` if there is one. A classification has a final estimator.
    """
    contents = manifest(n_members, inputs=[{"name": "X", "shape": [n_outputs]}], task=task)
    for member in contents["members"]:
        member |= {"file": "answers.onnx", "output": "answers"}
    contents["members"] = [contents["members"][index] for index in order or range(n_members)]
    files = {"answers.onnx": _identity(n_outputs)}
    outputs = [f"c{index}" for index in range(n_outputs)]
    if task == "classification":
        files["final.onnx"] = final_estimator(member_shares(n_members, n_outputs))
        contents |= {"classes": outputs, "final_estimator": {"file": "final.onnx", "output": "stacked"}}
    else:
        contents |= {"classes": [], "targets": outputs, "default_strategy": "mean"}
    if stages:
        contents["cascade"] = cascade(*stages, threshold=threshold, strategy=rule, measure=measure)
    contents["files"] = [{"name": name, "sha256": "0" * 64, "bytes": len(data)} for name, data in files.items()]
    return Ensemble(Manifest.model_validate(contents), files, where="models/tiny/1")


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
