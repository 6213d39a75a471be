"""What the tensors of a graph have to be; of members, `test_ensemble` has more."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from server.contract import check_final_estimator, check_member, n_gates, pair_inputs
from server.errors import InvalidRepository
from server.manifest import InputSpec, Manifest
from server.session import Session
from tests import tiny

FLOAT, DOUBLE, BOOL, STRING, INT64 = (
    TensorProto.FLOAT,
    TensorProto.DOUBLE,
    TensorProto.BOOL,
    TensorProto.STRING,
    TensorProto.INT64,
)
Tensor = tuple[str, int, list[str | int]]
ANSWERS: Tensor = ("answers", FLOAT, [3, "n", 3])
STACKED: Tensor = ("stacked", FLOAT, ["n", 3])
X: Tensor = ("X", FLOAT, ["n", 4])


def session(*inputs: Tensor, outputs: Sequence[Tensor] = (STACKED,), defaults: Mapping[str, Any] = {}) -> Session:
    """A graph that has these tensors, and is not to be run. Inference cannot tell its outputs' shapes."""
    nodes = [
        helper.make_node("Shape", [inputs[0][0]], ["shape"]),
        helper.make_node("NonZero", ["shape"], ["places"]),
        helper.make_node("Squeeze", ["places", "axis"], ["sizes"]),
    ]
    for name, type_, _ in outputs:
        nodes.append(helper.make_node("Cast", ["sizes"], [f"{name}_values"], to=type_))
        nodes.append(helper.make_node("Reshape", [f"{name}_values", "sizes"], [name]))
    data = tiny.graph(
        nodes,
        [helper.make_tensor_value_info(*tensor) for tensor in inputs],
        [helper.make_tensor_value_info(*tensor) for tensor in outputs],
        {"axis": np.array([0]), **{name: np.asarray(value) for name, value in defaults.items()}},
    )
    return Session(data, where="models/tiny/1/final.onnx")


def manifest(n_members: int = 3, **changes: Any) -> Manifest:
    contents = tiny.manifest(n_members, final_estimator={"file": "final.onnx", "output": "stacked"}, **changes)
    names = [*(member["file"] for member in contents["members"]), "final.onnx"]
    files = [{"name": name, "sha256": "0" * 64, "bytes": 1} for name in dict.fromkeys(names)]
    return Manifest.model_validate({**contents, "files": files})


def check(graph: Session, said: Manifest) -> None:
    assert said.final_estimator is not None
    check_final_estimator(said.final_estimator, said, graph)


# Final estimators ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "graph",
    [
        session(ANSWERS),
        session(ANSWERS, outputs=[("label", INT64, ["n"]), STACKED]),
        # What a graph leaves open, its answers will tell.
        session(("answers", FLOAT, ["m", "n", "c"])),
        session(ANSWERS, outputs=[("stacked", FLOAT, ["n", "c"])]),
        # Of the same graph as the members: it is given no rows, and shut gates.
        session(ANSWERS, X),
        session(ANSWERS, X, ("members", BOOL, [3]), ("/stack", BOOL, [1])),
        session(X, ANSWERS, defaults={"answers": np.zeros((3, 0, 3), dtype=np.float32)}),
    ],
    ids=["plain", "label", "open answers", "open classes", "rows", "packed", "default"],
)
def test_a_final_estimator_reads_answers_and_gives_one(graph: Session) -> None:
    check(graph, manifest())


def test_the_packed_graph_of_the_tests_can_be_a_final_estimator() -> None:
    packed = tiny.packed_members(tiny.coefficients(3), shares=tiny.member_shares(3))
    check(Session(packed, where="ensemble.onnx"), manifest())


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (session(X), "expected an input 'answers', got ['X']"),
        (
            session(("answers", FLOAT, [2, "n", 3])),
            "expected 'answers' to be tensor(float) of shape [3, n, 3], got tensor(float) of shape [2, n, 3]",
        ),
        (
            session(("answers", FLOAT, [3, 1, 3])),
            "expected 'answers' to be tensor(float) of shape [3, n, 3], got tensor(float) of shape [3, 1, 3]",
        ),
        (
            session(("answers", FLOAT, [3, "n", 2])),
            "expected 'answers' to be tensor(float) of shape [3, n, 3], got tensor(float) of shape [3, n, 2]",
        ),
        (
            session(("answers", FLOAT, ["n", 9])),
            "expected 'answers' to be tensor(float) of shape [3, n, 3], got tensor(float) of shape [n, 9]",
        ),
        (
            session(("answers", DOUBLE, [3, "n", 3])),
            "expected 'answers' to be tensor(float) of shape [3, n, 3], got tensor(double) of shape [3, n, 3]",
        ),
        (
            session(X, ("answers", FLOAT, [2, "n", 3]), defaults={"answers": np.zeros((2, 0, 3), dtype=np.float32)}),
            "expected 'answers' to be tensor(float) of shape [3, n, 3], got tensor(float) of shape [2, n, 3]",
        ),
        (
            session(ANSWERS, outputs=[("probabilities", FLOAT, ["n", 3]), ("label", INT64, ["n"])]),
            "expected an output 'stacked', got ['label', 'probabilities']",
        ),
        (
            session(ANSWERS, outputs=[("stacked", FLOAT, ["n", 2])]),
            "expected 'stacked' to be tensor(float) of shape [n, 3], got tensor(float) of shape [n, 2]",
        ),
        (
            session(ANSWERS, outputs=[("stacked", FLOAT, ["n"])]),
            "expected 'stacked' to be tensor(float) of shape [n, 3], got tensor(float) of shape [n]",
        ),
        (
            session(ANSWERS, outputs=[("stacked", FLOAT, [1, 3])]),
            "expected 'stacked' to be tensor(float) of shape [n, 3], got tensor(float) of shape [1, 3]",
        ),
        (
            session(ANSWERS, outputs=[("stacked", DOUBLE, ["n", 3])]),
            "expected 'stacked' to be tensor(float) of shape [n, 3], got tensor(double) of shape [n, 3]",
        ),
        (
            session(ANSWERS, ("weights", FLOAT, [3]), X, ("Y", FLOAT, ["n"])),
            "the graph wants inputs that nobody gives: ['Y', 'weights']",
        ),
    ],
    ids=[
        "no answers",
        "members",
        "batch",
        "classes",
        "flat",
        "double",
        "default",
        "output",
        "few classes",
        "labels",
        "one row",
        "double output",
        "strangers",
    ],
)
def test_a_graph_that_cannot_be_the_final_estimator_is_refused(graph: Session, message: str) -> None:
    with pytest.raises(InvalidRepository) as caught:
        check(graph, manifest())
    assert caught.value.message == f"models/tiny/1/final.onnx: final_estimator: {message}"


# Members of regressions ---------------------------------------------------------------------------------------------


def regression(n_targets: int) -> Manifest:
    contents = tiny.regression_manifest(1, targets=[f"t{k}" for k in range(n_targets)])
    return Manifest.model_validate({**contents, "files": [{"name": "m1.onnx", "sha256": "0" * 64, "bytes": 1}]})


@pytest.mark.parametrize(
    ("n_targets", "output"),
    [(1, ("values", FLOAT, ["n", 1])), (3, ("values", FLOAT, ["n", 3])), (3, ("values", FLOAT, ["n", "targets"]))],
)
def test_a_member_of_a_regression_has_a_column_a_target(n_targets: int, output: Tensor) -> None:
    said = regression(n_targets)
    check_member(said.members[0], said, session(X, outputs=[output]))


@pytest.mark.parametrize(
    ("n_targets", "output", "message"),
    [
        (1, ("values", FLOAT, ["n"]), "of shape [n, 1], got tensor(float) of shape [n]"),
        (1, ("values", FLOAT, ["n", 2]), "of shape [n, 1], got tensor(float) of shape [n, 2]"),
        (2, ("values", FLOAT, ["n", 1]), "of shape [n, 2], got tensor(float) of shape [n, 1]"),
        (1, ("values", DOUBLE, ["n", 1]), "of shape [n, 1], got tensor(double) of shape [n, 1]"),
    ],
)
def test_a_member_of_a_regression_of_other_columns_is_refused(n_targets: int, output: Tensor, message: str) -> None:
    said = regression(n_targets)
    with pytest.raises(InvalidRepository) as caught:
        check_member(said.members[0], said, session(X, outputs=[output]))
    assert caught.value.message == (
        f"models/tiny/1/final.onnx: member 'm1': expected 'values' to be tensor(float) {message}"
    )


# Inputs -------------------------------------------------------------------------------------------------------------


def spec(name: str) -> InputSpec:
    return InputSpec(name=name, shape=[4])


@pytest.mark.parametrize(
    ("graph", "names", "gated", "pairs"),
    [
        (session(X), ["X"], False, {"X": "X"}),
        (session(X), ["features"], False, {"X": "features"}),
        (session(X, ("members", BOOL, [2])), ["features"], True, {"X": "features"}),
        (session(X, ("members", BOOL, [2])), ["features"], False, {}),
        # Neither the answers nor the switch of a final estimator are rows.
        (session(X, ANSWERS, ("members", BOOL, [2]), ("/stack", BOOL, [1])), ["features"], True, {"X": "features"}),
        (session(X, ("Y", FLOAT, ["n", 4])), ["Y", "Z"], False, {"Y": "Y"}),
        (session(X), ["Y", "Z"], False, {}),
        (session(X), ["X", "Z"], False, {"X": "X"}),
    ],
)
def test_a_graphs_tensors_are_paired_with_inputs_by_name_or_if_there_is_one(
    graph: Session, names: list[str], gated: bool, pairs: dict[str, str]
) -> None:
    paired = pair_inputs([spec(name) for name in names], graph, gated=gated)
    assert {tensor: paired_spec.name for tensor, paired_spec in paired.items()} == pairs


@pytest.mark.parametrize("defaults", [True, False])
def test_gates_are_counted_whether_or_not_they_have_defaults(defaults: bool) -> None:
    packed = tiny.packed_members(tiny.coefficients(5), defaults=defaults)
    assert n_gates(Session(packed, where="ensemble.onnx")) == 5
