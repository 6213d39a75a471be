"""What is served: the five members of `models/fashion/1`, the same number of heavy ones, and the five repeated.

Each is a folder: `members/` has a graph a member for the peers, `packed.onnx` all of them for the limit,
and `repository/` both for Committee.
"""

import argparse
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import tomli_w
from numpy.typing import NDArray
from onnx import AttributeProto, ModelProto, TensorProto, helper, numpy_helper

from export.graph import IR_VERSION, OPSETS, rename
from export.packed import pack_graphs
from server.manifest import InputSpec, Manifest, parse_manifest

ROOT = Path(__file__).parents[2]
WORK = ROOT / "bench" / ".work"
FASHION = ROOT / "models" / "fashion" / "1"
CHANNELS = 88
NAME = re.compile(r"fashion|heavy(-[1-9][0-9]{0,3})?|members-[1-9][0-9]{0,2}")
"""Of the heavy members' convolutions, so that five of them take about 5 ms a row on one core of 2 to 3 GHz."""


def workload(name: str) -> str:
    """A name that `prepare` takes, for an option. Raises ArgumentTypeError."""
    if not NAME.fullmatch(name):
        raise argparse.ArgumentTypeError(f"expected fashion, heavy, heavy-N or members-N; got {name!r}")
    return name


def prepare(name: str, work: Path = WORK) -> Path:
    """Write the folder of a workload: `fashion`, `heavy`, `heavy-N` with N channels, or `members-N` with N members."""
    folder = work / "workloads" / name
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "members").mkdir(parents=True)
    manifest = fashion_manifest()
    packed = onnx.load(FASHION / "ensemble.onnx")
    version = folder / "repository" / name / "1"
    if name == "fashion":
        members = unpack(packed)
        shutil.copytree(FASHION, version)
    else:
        members = _members(name, packed)
        packed = pack_graphs(members, manifest.inputs, len(manifest.classes))
        version.mkdir(parents=True)
        (version / "ensemble.onnx").write_bytes(packed.SerializeToString())
        (version / "ensemble.toml").write_text(tomli_w.dumps(_manifest(members, manifest)))
    (folder / "packed.onnx").write_bytes(packed.SerializeToString())
    for k, (member, model) in enumerate(members.items()):
        (folder / "members" / f"{k:02d}_{member}.onnx").write_bytes(model.SerializeToString())
    return folder


def _members(name: str, packed: ModelProto) -> dict[str, ModelProto]:
    kind, _, number = name.partition("-")
    if kind == "heavy":
        return heavy(channels=int(number or CHANNELS))
    return repeated(unpack(packed), int(number))


def open_graph(path: Path) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """A packed graph on one thread: from rows `(n, 784)` to the mean of its members, `(n, n_classes)`."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def average(rows: NDArray[np.float32]) -> NDArray[np.float32]:
        (answer,) = session.run(["probabilities"], {"image": rows.reshape(-1, 28, 28, 1)})
        return np.asarray(answer, dtype=np.float32)

    return average


def fashion_manifest() -> Manifest:
    file = FASHION / "ensemble.toml"
    return parse_manifest(file.read_bytes(), where=str(file))


def unpack(packed: ModelProto) -> dict[str, ModelProto]:
    """The members of a packed graph, each a graph of its own, from `image` to `probabilities`, in the packed order."""
    (image,) = (value for value in packed.graph.input if value.name == "image")
    outer = {value.name: value for value in packed.graph.initializer}
    gates = [node for node in packed.graph.node if node.op_type == "If" and f"{node.name}/gate" in node.input]
    return {gate.name: _member(gate.name, _then(gate.attribute), image, outer, packed) for gate in gates}


def _then(attributes: list[AttributeProto]) -> onnx.GraphProto:
    return next(attribute.g for attribute in attributes if attribute.name == "then_branch")


def _member(
    name: str,
    branch: onnx.GraphProto,
    image: onnx.ValueInfoProto,
    outer: Mapping[str, TensorProto],
    packed: ModelProto,
) -> ModelProto:
    *nodes, last = branch.node  # the last adds the axis of the members
    needed = {read for node in nodes for read in node.input}
    constants = [*branch.initializer, *(value for key, value in outer.items() if key in needed)]
    output = helper.make_tensor_value_info(last.input[0], TensorProto.FLOAT, ["n", 10])
    graph = helper.make_graph(nodes, name, [image], [output], constants)
    rename(graph, lambda old: old.removeprefix(f"{name}/"))
    return helper.make_model(graph, opset_imports=list(packed.opset_import), ir_version=packed.ir_version)


def repeated(members: Mapping[str, ModelProto], count: int) -> dict[str, ModelProto]:
    """So many members, in turn of those there are."""
    names = list(members)
    turns = [(names[k % len(names)], k // len(names)) for k in range(count)]
    return {f"{name}_{turn}" if turn else name: members[name] for name, turn in turns}


def heavy(count: int = 5, channels: int = CHANNELS) -> dict[str, ModelProto]:
    """Members of two convolutions at full size, with weights at random."""
    return {f"heavy_{k}": _heavy(np.random.default_rng(k), channels) for k in range(count)}


def _heavy(rng: np.random.Generator, channels: int) -> ModelProto:
    constants: dict[str, NDArray[np.float32] | NDArray[np.int64]] = {
        "scale": np.array(1 / 255, dtype=np.float32),
        "flat": np.array([-1, 1, 28, 28], dtype=np.int64),
        "first": _random(rng, channels, 1, 3, 3),
        "second": _random(rng, channels, channels, 3, 3),
        "row": np.array([-1, channels], dtype=np.int64),
        "dense": _random(rng, channels, 10) * np.float32(4),
    }
    nodes = [
        helper.make_node("Mul", ["image", "scale"], ["scaled"]),
        helper.make_node("Reshape", ["scaled", "flat"], ["picture"]),
        helper.make_node("Conv", ["picture", "first"], ["conv_1"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["conv_1"], ["relu_1"]),
        helper.make_node("Conv", ["relu_1", "second"], ["conv_2"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["conv_2"], ["relu_2"]),
        helper.make_node("GlobalAveragePool", ["relu_2"], ["pooled"]),
        helper.make_node("Reshape", ["pooled", "row"], ["features"]),
        helper.make_node("MatMul", ["features", "dense"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "heavy",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 28, 28, 1])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", 10])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid(*opset) for opset in OPSETS.items()]
    return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)


def _random(rng: np.random.Generator, *shape: int) -> NDArray[np.float32]:
    """Of a size that keeps the activations' size."""
    reads = np.prod(shape[1:]) if len(shape) > 2 else shape[0]
    return rng.standard_normal(shape, dtype=np.float32) * np.float32(np.sqrt(2 / reads))


def _manifest(members: Mapping[str, ModelProto], fashion: Manifest) -> dict[str, object]:
    """One as people write by hand."""
    inputs = [_said(spec) for spec in fashion.inputs]
    packed = {"file": "ensemble.onnx", "output": "member_probabilities"}
    entries = [{"name": name, **packed, "gate": k} for k, name in enumerate(members)]
    return {"classes": list(fashion.classes), "inputs": inputs, "members": entries}


def _said(spec: InputSpec) -> dict[str, object]:
    return spec.model_dump(exclude_none=True, exclude_defaults=True)
