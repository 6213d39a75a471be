"""A tiny ensemble with a member that fails when a row says so: the last feature of a row is what it does then.

Otherwise it answers as the linear members of `tests.tiny` do.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

from server.engine import Engine
from server.manifest import VECTORS_FILE
from tests import tiny

HANG, RAISE, NAN = 101.0, 102.0, 103.0
"""In the last feature of any row: run for ever, raise an error, answer NaN for that row."""
FAULTY = "m3"
"""The member's name; the others are m1 and m2."""


def rows(n: int, fault: float | None = None, at: int = 0, seed: int = 0) -> NDArray[np.float32]:
    """`(n, 4)`, the row `at` asking for a fault."""
    x = tiny.rows(n, seed)
    if fault is not None:
        x[at, -1] = fault
    return x


def blame_members(engine: Engine) -> None:
    """From now on whoever fails over a row is to blame for it: there are no rows to try it on."""
    for known in engine._members.values():
        known.own_rows = known.own_rows[:0]


def write(root: Path, *, packed: bool = True, name: str = "faulty", **changes: Any) -> Path:
    """A version of three members, of which the last is faulty: all in one graph behind gates, or each in its file."""
    weights = tiny.coefficients(3)
    contents = tiny.manifest(3, name=name, **changes)
    x = tiny.rows(16, seed=1)
    vectors = tiny.vectors(x, tiny.answers(x, 3))
    if not packed:
        files = {f"m{k + 1}.onnx": tiny.linear_member(weights[k]) for k in range(2)}
        files["m3.onnx"] = faulty_member(weights[2])
        return tiny.write_version(root, contents, {**files, VECTORS_FILE: vectors})
    for k, member in enumerate(contents["members"]):
        member |= {"file": "ensemble.onnx", "output": "member_probabilities", "gate": k}
    files = {"ensemble.onnx": _packed(weights)}
    return tiny.write_version(root, contents, {**files, VECTORS_FILE: vectors})


def faulty_member(weights: NDArray[np.float32]) -> bytes:
    """An ONNX graph `X (n, 4) -> probabilities (n, 3)`."""
    nodes, constants = _faulty(weights)
    return tiny.graph(
        [*nodes, helper.make_node("Identity", ["faulty"], ["probabilities"])],
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, ["n", tiny.N_FEATURES])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", weights.shape[1]])],
        constants,
    )


def _faulty(weights: NDArray[np.float32]) -> tuple[list[Any], dict[str, NDArray[Any]]]:
    """Nodes from `X` to `faulty (n, 3)`, and the constants that they read."""
    constants: dict[str, NDArray[Any]] = {
        "FW": weights,
        "last": np.array(tiny.N_FEATURES - 1),
        "hang": np.array(HANG, dtype=np.float32),
        "raise": np.array(RAISE, dtype=np.float32),
        "nan": np.array(NAN, dtype=np.float32),
        "f_axis": np.array([1]),
        "all_axes": np.array([0]),
        "f_zero": np.array(0.0, dtype=np.float32),
    }
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go_on"], ["goes_on"]),
            helper.make_node("Abs", ["value"], ["next_value"]),
        ],
        "for_ever",
        [
            helper.make_tensor_value_info("round", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("value", TensorProto.FLOAT, ["n", 3]),
        ],
        [
            helper.make_tensor_value_info("goes_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next_value", TensorProto.FLOAT, ["n", 3]),
        ],
    )
    nodes = [
        helper.make_node("MatMul", ["X", "FW"], ["f_logits"]),
        helper.make_node("Softmax", ["f_logits"], ["f_softmax"], axis=1),
        helper.make_node("Gather", ["X", "last"], ["mood"], axis=1),
        # For ever, if any row says so.
        helper.make_node("Equal", ["mood", "hang"], ["hangs"]),
        helper.make_node("Cast", ["hangs"], ["hangs_f"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["hangs_f", "all_axes"], ["any_hang"], keepdims=0),
        helper.make_node("Greater", ["any_hang", "f_zero"], ["must_hang"]),
        helper.make_node("Loop", ["", "must_hang", "f_softmax"], ["after_loop"], body=body),
        # An index that is out of bounds, if any row says so.
        helper.make_node("Equal", ["mood", "raise"], ["raises"]),
        helper.make_node("Cast", ["raises"], ["raises_i"], to=TensorProto.INT64),
        helper.make_node("ReduceMax", ["raises_i", "all_axes"], ["index"], keepdims=0),
        helper.make_node("Gather", ["all_axes", "index"], ["picked"]),
        helper.make_node("Cast", ["picked"], ["picked_f"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["after_loop", "picked_f"], ["after_raise"]),
        # The square root of a number below zero.
        helper.make_node("Equal", ["mood", "nan"], ["nans"]),
        helper.make_node("Cast", ["nans"], ["nans_f"], to=TensorProto.FLOAT),
        helper.make_node("Neg", ["nans_f"], ["minus"]),
        helper.make_node("Sqrt", ["minus"], ["root"]),
        helper.make_node("Unsqueeze", ["root", "f_axis"], ["roots"]),
        helper.make_node("Add", ["after_raise", "roots"], ["faulty"]),
    ]
    return nodes, constants


def _packed(weights: NDArray[np.float32]) -> bytes:
    """The members in one graph, each behind its gate."""
    faulty, constants = _faulty(weights[2])
    constants |= {
        "members": np.ones(3, dtype=np.bool_),
        "axis": np.array([0]),
        "tail": np.array([3]),
        "one": np.array([1]),
        **{f"W{k}": weights[k] for k in range(2)},
        **{f"k{k}": np.array(k) for k in range(3)},
    }
    nodes = [
        helper.make_node("Shape", ["X"], ["n_rows"], start=0, end=1),
        helper.make_node("Concat", ["one", "n_rows", "tail"], ["shut"], axis=0),
    ]
    for k in range(3):
        if k < 2:
            opened = [
                helper.make_node("MatMul", ["X", f"W{k}"], [f"logits{k}"]),
                helper.make_node("Softmax", [f"logits{k}"], [f"softmax{k}"], axis=1),
                helper.make_node("Unsqueeze", [f"softmax{k}", "axis"], [f"open{k}"]),
            ]
        else:
            opened = [*faulty, helper.make_node("Unsqueeze", ["faulty", "axis"], [f"open{k}"])]
        closed = [helper.make_node("ConstantOfShape", ["shut"], [f"shut{k}"])]
        branches = {
            "then_branch": helper.make_graph(opened, f"then{k}", [], [helper.make_empty_tensor_value_info(f"open{k}")]),
            "else_branch": helper.make_graph(closed, f"else{k}", [], [helper.make_empty_tensor_value_info(f"shut{k}")]),
        }
        nodes.append(helper.make_node("Gather", ["members", f"k{k}"], [f"gate{k}"]))
        nodes.append(helper.make_node("If", [f"gate{k}"], [f"part{k}"], **branches))
    nodes.append(helper.make_node("Concat", [f"part{k}" for k in range(3)], ["member_probabilities"], axis=0))
    return tiny.graph(
        nodes,
        [
            helper.make_tensor_value_info("X", TensorProto.FLOAT, ["n", tiny.N_FEATURES]),
            helper.make_tensor_value_info("members", TensorProto.BOOL, [3]),
        ],
        [helper.make_tensor_value_info("member_probabilities", TensorProto.FLOAT, [3, "n", 3])],
        constants,
    )


def write_deaf(root: Path, *, size: int, name: str = "deaf") -> Path:
    """A version of three members, the last of which, over a row that says HANG, multiplies matrices of this size.

    That is one node, and a run is stopped only between two: it takes its time.
    """
    weights = tiny.coefficients(3)
    x = tiny.rows(16, seed=1)
    files = {f"m{k + 1}.onnx": tiny.linear_member(weights[k]) for k in range(2)}
    files |= {"m3.onnx": _deaf_member(weights[2], size), VECTORS_FILE: tiny.vectors(x, tiny.answers(x, 3))}
    return tiny.write_version(root, tiny.manifest(3, name=name), files)


def _deaf_member(weights: NDArray[np.float32], size: int) -> bytes:
    one = helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0])
    slowly = helper.make_graph(
        [
            helper.make_node("ConstantOfShape", ["square"], ["ones"], value=one),
            helper.make_node("Add", ["ones", "most"], ["matrix"]),  # of the row: nothing is worked out beforehand
            helper.make_node("MatMul", ["matrix", "matrix"], ["product"]),
            helper.make_node("ReduceMax", ["product"], ["highest"], keepdims=0),
            helper.make_node("Mul", ["highest", "zero"], ["slow_zero"]),
        ],
        "slowly",
        [],
        [helper.make_empty_tensor_value_info("slow_zero")],
    )
    at_once = helper.make_graph(
        [helper.make_node("Identity", ["zero"], ["fast_zero"])],
        "at_once",
        [],
        [helper.make_empty_tensor_value_info("fast_zero")],
    )
    return tiny.graph(
        [
            helper.make_node("MatMul", ["X", "W"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["softmax"], axis=1),
            helper.make_node("Gather", ["X", "last"], ["mood"], axis=1),
            helper.make_node("ReduceMax", ["mood"], ["most"], keepdims=0),
            helper.make_node("Equal", ["most", "hang"], ["must_hang"]),
            helper.make_node("If", ["must_hang"], ["nothing"], then_branch=slowly, else_branch=at_once),
            helper.make_node("Add", ["softmax", "nothing"], ["probabilities"]),
        ],
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, ["n", tiny.N_FEATURES])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", weights.shape[1]])],
        {
            "W": weights,
            "last": np.array(tiny.N_FEATURES - 1),
            "hang": np.array(HANG, dtype=np.float32),
            "zero": np.array(0.0, dtype=np.float32),
            "square": np.array([size, size]),
        },
    )
