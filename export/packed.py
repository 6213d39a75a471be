"""The packed graph: all members of an ensemble in one ONNX file, each behind a gate.

    inputs (n, *shape) ─┬─ If members[0]: member 0 ─┐
                        ├─ If members[1]: member 1 ─┼─ member_probabilities (n_members, n, n_classes)
                        └─ …                        ┘
    If mean: member_probabilities × weights, ÷ their sum ─ probabilities (n, n_classes)

    member_probabilities, answers (n_members, k, n_classes) ─ If stack ─ final estimator ─ stacked (n + k, n_classes)

`members` (booleans, all true) and `weights` (float32, all ones) are inputs with defaults, so that a host that knows
nothing of Committee feeds rows and reads `probabilities`, the plain average. A member whose gate is shut costs nothing,
answers zeros and has no part in the mean. Where `mean` is false, `probabilities` has no rows and costs nothing.

Where there is a final estimator, so are `answers` (no rows) and `stack` (true): such a host reads in `stacked` what the
estimator makes of its rows. The server, which has the members' answers already, feeds them as `answers`, and no rows.
Where `stack` is false, `stacked` has no rows and costs nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from export.convert import ELEMENTS, OUTPUT
from export.errors import PackingError
from export.graph import IR_VERSION, OPSETS, rename
from server.fusion import fuse
from server.manifest import ANSWERS_INPUT, GATES_INPUT, MEAN_INPUT, STACK_INPUT, InputSpec
from server.rows import Rows, split_rows
from server.session import Session

MEMBER_PROBABILITIES = "member_probabilities"
WEIGHTS_INPUT = "weights"
STACKED = "stacked"
OPTIONAL_INPUTS = frozenset({GATES_INPUT, WEIGHTS_INPUT, MEAN_INPUT, ANSWERS_INPUT, STACK_INPUT})
MEAN_TOLERANCE = 1e-6
"""How far the graph's own weighted mean may lie from the server's, which adds in another order; and what its final
estimator answers from what it answers apart, where rows are multiplied in other batches."""


def pack_graphs(
    members: Mapping[str, ModelProto],
    inputs: Sequence[InputSpec],
    n_classes: int,
    final_estimator: ModelProto | None = None,
) -> ModelProto:
    """Pack normalised members, in this order, into one graph.

    Each takes some of the `inputs`, `(n, *shape)`, and answers `probabilities (n, n_classes) float32`. The final
    estimator takes `answers (n_members, n, n_classes)` and has one output, `(n, n_classes) float32`. What the graph
    adds has names that start with `/`: neither an input's nor a member's does.
    """
    n_members = len(members)
    constants = {
        GATES_INPUT: np.ones(n_members, dtype=np.bool_),
        WEIGHTS_INPUT: np.ones(n_members, dtype=np.float32),
        "/one": np.array([1], dtype=np.int64),
        "/n_classes": np.array([n_classes], dtype=np.int64),
        "/axes_of_a_weight": np.array([1, 2], dtype=np.int64),
        MEAN_INPUT: np.ones(1, dtype=np.bool_),
        "/no_rows": np.array([0, n_classes], dtype=np.int64),
        "/axis_of_members": np.array([0], dtype=np.int64),
    }
    nodes = [
        helper.make_node("Shape", [inputs[0].name], ["/n_rows"], start=0, end=1),
        helper.make_node("Concat", ["/one", "/n_rows", "/n_classes"], ["/shut_shape"], axis=0),
    ]
    gates = [f"{name}/gate" for name in members]
    nodes.append(helper.make_node("Split", [GATES_INPUT], gates, axis=0, num_outputs=n_members))
    nodes += [_gated(name, model) for name, model in members.items()]
    nodes.append(helper.make_node("Concat", [f"{name}/gated" for name in members], [MEMBER_PROBABILITIES], axis=0))
    nodes.append(_weighted_mean())
    stacking = _NOTHING if final_estimator is None else _stacking(final_estimator, n_members, n_classes)
    nodes += stacking.nodes
    constants |= stacking.constants
    graph = helper.make_graph(
        nodes,
        "ensemble",
        [
            *(helper.make_tensor_value_info(spec.name, ELEMENTS[spec.datatype], ["n", *spec.shape]) for spec in inputs),
            helper.make_tensor_value_info(GATES_INPUT, TensorProto.BOOL, [n_members]),
            helper.make_tensor_value_info(WEIGHTS_INPUT, TensorProto.FLOAT, [n_members]),
            helper.make_tensor_value_info(MEAN_INPUT, TensorProto.BOOL, [1]),
            *stacking.inputs,
        ],
        [
            helper.make_tensor_value_info(MEMBER_PROBABILITIES, TensorProto.FLOAT, [n_members, "n", n_classes]),
            helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["n_mean", n_classes]),
            *stacking.outputs,
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid(*opset) for opset in OPSETS.items()]
    packed = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="committee")
    onnx.checker.check_model(packed, full_check=True)
    return packed


def check_packed(
    packed: ModelProto, members: Mapping[str, ModelProto], rows: Rows, final_estimator: ModelProto | None = None
) -> None:
    """Prove the packed graph on these rows: bit for bit the members run apart, alone and together, and its means within
    1e-6 of the server's; as close to the final estimator run apart, fed with rows or with answers. Raises PackingError.
    """
    session = Session(packed.SerializeToString(), where="packed graph")
    feeds = split_rows(rows, session.inputs.keys() - OPTIONAL_INPUTS)
    apart = np.stack([_run_apart(name, model, rows) for name, model in members.items()])
    everyone = list(range(len(members)))
    for chosen in [everyone, *([index] for index in everyone), everyone[::2]]:
        gates = np.isin(everyone, chosen)
        asked = {**feeds, GATES_INPUT: gates, MEAN_INPUT: np.zeros(1, dtype=np.bool_)}
        together, no_mean = session.run([MEMBER_PROBABILITIES, OUTPUT], asked)
        if len(no_mean):
            raise PackingError(f"packed graph: expected no rows of {OUTPUT} where {MEAN_INPUT} is false, got some")
        expected = np.where(gates[:, None, None], apart, np.float32(0))
        if not np.array_equal(together, expected):
            off = np.abs(together - expected).max(axis=(1, 2))
            raise PackingError(
                f"packed graph: member {list(members)[int(off.argmax())]!r} answers up to {off.max():.3g} off what it "
                f"answers alone; members that ran: {[list(members)[index] for index in chosen]}"
            )
    _check_mean(session, apart, feeds, None)
    weights = np.random.default_rng(0).random(len(members)).astype(np.float32)
    _check_mean(session, apart, {**feeds, WEIGHTS_INPUT: weights}, weights)
    if final_estimator is not None:
        _check_stacked(session, final_estimator, apart, feeds)


def _gated(name: str, model: ModelProto) -> NodeProto:
    """`If name/gate` → `name/gated (1, n, n_classes)`: the member's answer, or zeros."""
    then_branch = GraphProto()
    then_branch.CopyFrom(_prefixed(name, model))
    then_branch.node.append(helper.make_node("Unsqueeze", [f"{name}/{OUTPUT}", "/axis_of_members"], [f"{name}/opened"]))
    then_branch.output.append(helper.make_empty_tensor_value_info(f"{name}/opened"))
    zeros = helper.make_node("ConstantOfShape", ["/shut_shape"], [f"{name}/shut"])
    else_branch = helper.make_graph([zeros], f"{name}/shut", [], [helper.make_empty_tensor_value_info(f"{name}/shut")])
    return helper.make_node(
        "If", [f"{name}/gate"], [f"{name}/gated"], name=name, then_branch=then_branch, else_branch=else_branch
    )


def _prefixed(name: str, model: ModelProto) -> GraphProto:
    """The member's graph as the body of a branch: its names made its own, its inputs read from outside, no outputs."""
    graph = GraphProto()
    graph.CopyFrom(model.graph)
    kept = {"", *(value.name for value in graph.input)}
    rename(graph, lambda old: old if old in kept else f"{name}/{old}")
    graph.name = name
    del graph.input[:], graph.output[:], graph.value_info[:]
    return graph


def _weighted_mean() -> NodeProto:
    """`If mean` → `probabilities`: their mean, or no rows, which the server asks for: it fuses by itself."""
    mean = [
        helper.make_node("Cast", [GATES_INPUT], ["/open_gates"], to=TensorProto.FLOAT),
        helper.make_node("Mul", [WEIGHTS_INPUT, "/open_gates"], ["/open_weights"]),
        helper.make_node("ReduceSum", ["/open_weights"], ["/total_weight"], keepdims=1),
        helper.make_node("Div", ["/open_weights", "/total_weight"], ["/shares"]),
        helper.make_node("Unsqueeze", ["/shares", "/axes_of_a_weight"], ["/shares_of_rows"]),
        helper.make_node("Mul", [MEMBER_PROBABILITIES, "/shares_of_rows"], ["/parts"]),
        helper.make_node("ReduceSum", ["/parts", "/axis_of_members"], ["/mean/mean"], keepdims=0),
    ]
    none = helper.make_node("ConstantOfShape", ["/no_rows"], ["/mean/none"])
    then_branch = helper.make_graph(mean, "/mean/then", [], [helper.make_empty_tensor_value_info("/mean/mean")])
    else_branch = helper.make_graph([none], "/mean/else", [], [helper.make_empty_tensor_value_info("/mean/none")])
    return helper.make_node("If", [MEAN_INPUT], [OUTPUT], then_branch=then_branch, else_branch=else_branch)


@dataclass(frozen=True, slots=True)
class _Part:
    """What something adds to the packed graph."""

    nodes: Sequence[NodeProto] = ()
    constants: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    inputs: Sequence[ValueInfoProto] = ()
    outputs: Sequence[ValueInfoProto] = ()


_NOTHING = _Part()


def _stacking(model: ModelProto, n_members: int, n_classes: int) -> _Part:
    """`If stack` → `stacked`: what the final estimator answers, of the rows first and then of the answers; or no rows.

    Nothing of a member is called like what this adds: no name of a member has a slash.
    """
    then_branch = GraphProto()
    then_branch.CopyFrom(model.graph)
    rename(then_branch, lambda old: old and f"/stack/{old}")
    then_branch.name = "/stack/then"
    everything = helper.make_node("Concat", [MEMBER_PROBABILITIES, ANSWERS_INPUT], [f"/stack/{ANSWERS_INPUT}"], axis=1)
    then_branch.node.insert(0, everything)
    (output,) = (value.name for value in then_branch.output)
    del then_branch.input[:], then_branch.output[:], then_branch.value_info[:]
    then_branch.output.append(helper.make_empty_tensor_value_info(output))
    none = helper.make_node("ConstantOfShape", ["/no_rows"], ["/stack/none"])
    else_branch = helper.make_graph([none], "/stack/else", [], [helper.make_empty_tensor_value_info("/stack/none")])
    branches = {"then_branch": then_branch, "else_branch": else_branch}
    return _Part(
        [helper.make_node("If", [STACK_INPUT], [STACKED], name="/stack", **branches)],
        {
            ANSWERS_INPUT: np.zeros((n_members, 0, n_classes), dtype=np.float32),
            STACK_INPUT: np.ones(1, dtype=np.bool_),
        },
        [
            helper.make_tensor_value_info(ANSWERS_INPUT, TensorProto.FLOAT, [n_members, "n_answers", n_classes]),
            helper.make_tensor_value_info(STACK_INPUT, TensorProto.BOOL, [1]),
        ],
        [helper.make_tensor_value_info(STACKED, TensorProto.FLOAT, ["n_stacked", n_classes])],
    )


def _run_apart(name: str, model: ModelProto, rows: Rows) -> NDArray[np.float32]:
    session = Session(model.SerializeToString(), where=f"member {name!r}")
    (probabilities,) = session.run([OUTPUT], split_rows(rows, session.inputs))
    return probabilities


def _check_mean(
    session: Session,
    apart: NDArray[np.float32],
    feeds: Mapping[str, NDArray[Any]],
    weights: NDArray[np.float32] | None,
) -> None:
    strategy = "average" if weights is None else "weighted"
    (mean,) = session.run([OUTPUT], feeds)
    off = np.abs(mean - fuse(strategy, apart, weights=weights).probabilities)
    if not off.max() <= MEAN_TOLERANCE:
        row = int(off.max(axis=1).argmax())
        raise PackingError(f"packed graph: probabilities of row {row} lie {off.max():.3g} from the server's {strategy}")


def _check_stacked(
    session: Session, final_estimator: ModelProto, apart: NDArray[np.float32], feeds: Mapping[str, NDArray[Any]]
) -> None:
    estimator = Session(final_estimator.SerializeToString(), where="final estimator")
    (expected,) = estimator.run(list(estimator.outputs), {ANSWERS_INPUT: apart})
    shut = {name: rows[:0] for name, rows in feeds.items()} | {GATES_INPUT: np.zeros(len(apart), dtype=np.bool_)}
    for fed, given in (("rows", feeds), ("answers", {**shut, ANSWERS_INPUT: apart})):
        (stacked,) = session.run([STACKED], given)
        if stacked.shape != expected.shape or not np.abs(stacked - expected).max() <= MEAN_TOLERANCE:
            raise PackingError(f"packed graph: fed {fed}, {STACKED} is not what the final estimator answers apart")
    (stacked,) = session.run([STACKED], {**feeds, STACK_INPUT: np.zeros(1, dtype=np.bool_)})
    if len(stacked):
        raise PackingError(
            f"packed graph: expected no rows of {STACKED} where {STACK_INPUT} is false, got {len(stacked)}"
        )
