import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, numpy_helper

from export.errors import PackingError
from export.fusing.stacking import fit_stacking
from export.graph import rename
from export.packed import MEMBER_PROBABILITIES, STACKED, WEIGHTS_INPUT, check_packed, pack_graphs
from server.fusion import fuse
from server.manifest import ANSWERS_INPUT, GATES_INPUT, MEAN_INPUT, STACK_INPUT, InputSpec
from server.session import Session
from tests import tiny

SPECS = [InputSpec(name="X", shape=[tiny.N_FEATURES])]
N = 3


@pytest.fixture(name="members")
def _members() -> dict[str, ModelProto]:
    return {f"m{k + 1}": onnx.load_from_string(tiny.linear_member(w)) for k, w in enumerate(tiny.coefficients(N))}


@pytest.fixture(name="packed")
def _packed(members: dict[str, ModelProto]) -> ModelProto:
    return pack_graphs(members, SPECS, len(tiny.CLASSES))


def _session(model: ModelProto) -> Session:
    return Session(model.SerializeToString(), where="packed")


def test_all_gates_are_open_and_all_weights_equal_unless_said_otherwise(packed: ModelProto) -> None:
    x = tiny.rows(5)
    together, mean = _session(packed).run([MEMBER_PROBABILITIES, "probabilities"], {"X": x})
    np.testing.assert_allclose(together, tiny.answers(x, N), atol=1e-6)
    np.testing.assert_allclose(mean, tiny.answers(x, N).mean(axis=0), atol=1e-6)


@pytest.mark.parametrize("n_rows", [1, 2, 7, 64])
def test_it_answers_bit_for_bit_what_its_members_answer_apart(
    members: dict[str, ModelProto], packed: ModelProto, n_rows: int
) -> None:
    x = tiny.rows(n_rows)
    (together,) = _session(packed).run([MEMBER_PROBABILITIES], {"X": x})
    for answered, model in zip(together, members.values(), strict=True):
        (alone,) = _session(model).run(["probabilities"], {"X": x})
        np.testing.assert_array_equal(answered, alone)


@pytest.mark.parametrize("gates", [[True, False, True], [False, True, False], [False, False, False]])
def test_a_member_behind_a_shut_gate_answers_zeros(packed: ModelProto, gates: list[bool]) -> None:
    x = tiny.rows(4)
    (together,) = _session(packed).run([MEMBER_PROBABILITIES], {"X": x, GATES_INPUT: np.array(gates)})
    np.testing.assert_allclose(together, tiny.answers(x, N) * np.array(gates)[:, None, None], atol=1e-6)


def test_its_mean_is_weighted_over_the_open_gates_alone(packed: ModelProto) -> None:
    x, weights = tiny.rows(4), np.array([2, 5, 1], dtype=np.float32)
    feeds = {"X": x, GATES_INPUT: np.array([True, False, True]), WEIGHTS_INPUT: weights}
    (mean,) = _session(packed).run(["probabilities"], feeds)
    first, _, third = tiny.answers(x, N)
    np.testing.assert_allclose(mean, (2 * first + third) / 3, atol=1e-6)


def test_its_mean_is_the_servers(packed: ModelProto) -> None:
    x, weights = tiny.rows(50), np.array([0.2, 3, 0], dtype=np.float32)
    session = _session(packed)
    together, mean = session.run([MEMBER_PROBABILITIES, "probabilities"], {"X": x})
    np.testing.assert_allclose(mean, fuse("average", together).probabilities, atol=1e-6)
    (mean,) = session.run(["probabilities"], {"X": x, WEIGHTS_INPUT: weights})
    np.testing.assert_allclose(mean, fuse("weighted", together, weights=weights).probabilities, atol=1e-6)


def test_the_proof_passes_for_a_true_graph(members: dict[str, ModelProto], packed: ModelProto) -> None:
    check_packed(packed, members, tiny.rows(32))


def test_the_proof_names_the_member_that_was_packed_wrong(members: dict[str, ModelProto]) -> None:
    wrong = dict(members)
    wrong["m2"] = onnx.load_from_string(tiny.linear_member(tiny.coefficients(N)[1] * np.float32(1.0001)))
    with pytest.raises(PackingError, match=r"member 'm2' answers up to .* off what it answers alone"):
        check_packed(pack_graphs(wrong, SPECS, len(tiny.CLASSES)), members, tiny.rows(32))


def test_the_proof_finds_a_wrong_mean(members: dict[str, ModelProto], packed: ModelProto) -> None:
    (weights,) = (tensor for tensor in packed.graph.initializer if tensor.name == WEIGHTS_INPUT)
    weights.CopyFrom(numpy_helper.from_array(np.array([1, 1, 2], dtype=np.float32), WEIGHTS_INPUT))
    with pytest.raises(PackingError, match=r"probabilities of row .* from the server's average"):
        check_packed(packed, members, tiny.rows(32))


def test_members_with_a_graph_inside_their_graph_read_the_shared_input_too() -> None:
    """A body of a branch that reads the rows from two graphs further out."""
    inner = onnx.parser.parse_model(
        """
        <ir_version: 10, opset_import: ["" : 18]>
        branching (float[n, 4] X) => (float[n, 3] probabilities)
        <float[4, 3] W, bool yes = {1}>
        {
            probabilities = If (yes) <
                then_branch = then_graph () => (float[n, 3] a) { b = MatMul(X, W) a = Softmax <axis = 1> (b) },
                else_branch = else_graph () => (float[n, 3] c) { d = MatMul(X, W) c = Softmax <axis = 0> (d) }
            >
        }
        """
    )
    del inner.graph.initializer[:]
    inner.graph.initializer.extend(
        [
            numpy_helper.from_array(tiny.coefficients(1)[0], "W"),
            numpy_helper.from_array(np.array(True), "yes"),
        ]
    )
    members = {"deep": inner, "flat": onnx.load_from_string(tiny.linear_member(tiny.coefficients(1)[0]))}
    packed = pack_graphs(members, SPECS, len(tiny.CLASSES))
    check_packed(packed, members, tiny.rows(8))
    (together,) = _session(packed).run([MEMBER_PROBABILITIES], {"X": tiny.rows(8)})
    np.testing.assert_array_equal(together[0], together[1])


# ---- With a final estimator -----------------------------------------------------------------------------------------


@pytest.fixture(name="estimator", scope="module")
def _estimator() -> ModelProto:
    answers = tiny.answers(tiny.rows(300), N)
    return fit_stacking(answers, answers[0].argmax(axis=1)).model


@pytest.fixture(name="stacking")
def _stacking(members: dict[str, ModelProto], estimator: ModelProto) -> ModelProto:
    return pack_graphs(members, SPECS, len(tiny.CLASSES), estimator)


def _apart(estimator: ModelProto, n_rows: int) -> NDArray[np.float32]:
    (stacked,) = _session(estimator).run([STACKED], {ANSWERS_INPUT: tiny.answers(tiny.rows(n_rows), N)})
    return stacked


def test_without_a_final_estimator_the_graph_has_nothing_of_one(packed: ModelProto) -> None:
    session = _session(packed)
    assert set(session.optional_inputs) == {GATES_INPUT, WEIGHTS_INPUT, MEAN_INPUT}
    assert set(session.outputs) == {MEMBER_PROBABILITIES, "probabilities"}


@pytest.mark.parametrize("n_rows", [1, 7])
def test_fed_rows_alone_it_stacks_them(stacking: ModelProto, estimator: ModelProto, n_rows: int) -> None:
    (stacked,) = _session(stacking).run([STACKED], {"X": tiny.rows(n_rows)})
    np.testing.assert_allclose(stacked, _apart(estimator, n_rows), atol=1e-6)


@pytest.mark.parametrize("n_rows", [0, 1, 7])
def test_fed_answers_and_no_rows_it_stacks_them(stacking: ModelProto, estimator: ModelProto, n_rows: int) -> None:
    feeds = {
        "X": tiny.rows(0),
        GATES_INPUT: np.zeros(N, dtype=np.bool_),
        STACK_INPUT: np.ones(1, dtype=np.bool_),
        ANSWERS_INPUT: tiny.answers(tiny.rows(n_rows), N),
    }
    (stacked,) = _session(stacking).run([STACKED], feeds)
    np.testing.assert_allclose(stacked, _apart(estimator, n_rows), atol=1e-6)


def test_fed_both_it_stacks_the_rows_first(stacking: ModelProto, estimator: ModelProto) -> None:
    (stacked,) = _session(stacking).run([STACKED], {"X": tiny.rows(4), ANSWERS_INPUT: tiny.answers(tiny.rows(9), N)})
    np.testing.assert_allclose(stacked, np.concatenate([_apart(estimator, 4), _apart(estimator, 9)]), atol=1e-6)


def test_told_not_to_stack_it_answers_no_rows_of_it_and_all_of_the_rest(
    stacking: ModelProto, packed: ModelProto
) -> None:
    x = tiny.rows(6)
    outputs = [MEMBER_PROBABILITIES, "probabilities"]
    *told, stacked = _session(stacking).run([*outputs, STACKED], {"X": x, STACK_INPUT: np.zeros(1, dtype=np.bool_)})
    assert stacked.shape == (0, len(tiny.CLASSES))
    for ours, plain in zip(told, _session(packed).run(outputs, {"X": x}), strict=True):
        np.testing.assert_array_equal(ours, plain)


def test_the_proof_passes_for_a_true_estimator_and_finds_another(
    members: dict[str, ModelProto], stacking: ModelProto, estimator: ModelProto
) -> None:
    check_packed(stacking, members, tiny.rows(32), estimator)
    answers = tiny.answers(tiny.rows(300), N)
    other = fit_stacking(answers, answers[1].argmax(axis=1)).model
    with pytest.raises(PackingError, match="fed rows, stacked is not what the final estimator answers apart"):
        check_packed(stacking, members, tiny.rows(32), other)


def test_the_proof_finds_a_graph_that_stacks_though_it_is_told_not_to(
    members: dict[str, ModelProto], stacking: ModelProto, estimator: ModelProto
) -> None:
    (gate,) = (node for node in stacking.graph.node if node.op_type == "If" and node.output[0] == STACKED)
    then, otherwise = sorted(gate.attribute, key=lambda attribute: attribute.name, reverse=True)
    otherwise.g.CopyFrom(then.g)
    rename(otherwise.g, lambda name: name.replace("/stack/", "/again/") if name in _made_in(then.g) else name)
    with pytest.raises(PackingError, match="expected no rows of stacked where /stack is false, got 32"):
        check_packed(stacking, members, tiny.rows(32), estimator)


def _made_in(graph: GraphProto) -> set[str]:
    return {name for node in graph.node for name in node.output} | {value.name for value in graph.initializer}
