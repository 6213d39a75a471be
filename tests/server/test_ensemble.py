import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper

from server.ensemble import (
    Ensemble,
    FinalEstimator,
    are_distributions,
    are_valid,
    graph_files,
    offered_strategies,
    on_one_line,
)
from server.errors import InvalidRepository, MemberFailed
from server.fusion import REGRESSION, STRATEGIES
from server.manifest import MANIFEST_FILE, InputSpec, Manifest, parse_manifest
from server.repository import load_version
from server.rows import Rows, join_tensors
from server.session import Session, Stop
from tests import tiny

N_MEMBERS = 3


@pytest.fixture(params=[tiny.write_ensemble, tiny.write_packed], ids=["files", "packed"])
def ensemble(request: pytest.FixtureRequest, tmp_path: Path) -> Ensemble:
    """The same members, each in a file of its own or all in one graph."""
    return load_version(request.param(tmp_path, n_members=N_MEMBERS))


def build(files: Mapping[str, bytes], members: Sequence[Mapping[str, Any]], **changes: Any) -> Ensemble:
    """An ensemble of any graphs, without the vectors that would prove it."""
    contents = {
        **tiny.manifest(1),
        "members": [{"output": "probabilities", **member} for member in members],
        "files": [{"name": name, "sha256": "0" * 64, "bytes": len(data)} for name, data in files.items()],
        **changes,
    }
    return Ensemble(Manifest.model_validate(contents), files, where="models/tiny/1")


def one_member(*nodes: NodeProto, **constants: Any) -> bytes:
    """A graph `X (n, 4) -> probabilities (n, 3)`, whatever the nodes then answer."""
    return tiny.graph(
        nodes,
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", 3])],
        {name: np.asarray(value) for name, value in constants.items()},
    )


def linear(k: int = 0) -> bytes:
    return tiny.linear_member(tiny.coefficients(N_MEMBERS)[k])


# Answers ------------------------------------------------------------------------------------------------------------


def test_all_members_answer_by_default_in_the_manifests_order(ensemble: Ensemble) -> None:
    x = tiny.rows(7)
    answered = ensemble.run(x)
    assert answered.dtype == np.float32
    assert answered.shape == (N_MEMBERS, 7, 3)
    assert_allclose(answered, tiny.answers(x, N_MEMBERS), atol=1e-6)


@pytest.mark.parametrize("members", [[0], [2], [0, 2], [2, 0], [1, 2, 0], [0, 1, 2]])
def test_some_members_answer_in_the_order_asked_for(ensemble: Ensemble, members: list[int]) -> None:
    x = tiny.rows(5)
    assert_array_equal(ensemble.run(x, members), ensemble.run(x)[members])


@pytest.mark.parametrize("n_rows", [0, 1, 2, 33])
def test_any_number_of_rows_is_answered(ensemble: Ensemble, n_rows: int) -> None:
    x = tiny.rows(n_rows)
    assert_allclose(ensemble.run(x), tiny.answers(x, N_MEMBERS), atol=1e-6)


@pytest.mark.parametrize("members", [None, [1], [2, 0]])
def test_members_in_one_graph_answer_to_the_bit_what_they_answer_apart(
    tmp_path: Path, members: list[int] | None
) -> None:
    apart, packed = load_version(tiny.write_ensemble(tmp_path)), load_version(tiny.write_packed(tmp_path))
    x = tiny.rows(50)
    assert_array_equal(packed.run(x, members), apart.run(x, members))


def test_gates_may_be_an_input_without_a_default() -> None:
    data = tiny.packed_members(tiny.coefficients(N_MEMBERS), defaults=False)
    ensemble = build({"all.onnx": data}, [gated("m2", 1), gated("m1", 0)])
    x = tiny.rows(4)
    assert_allclose(ensemble.run(x), tiny.answers(x, N_MEMBERS)[[1, 0]], atol=1e-6)
    assert_allclose(ensemble.run(x, [1]), tiny.answers(x, N_MEMBERS)[[0]], atol=1e-6)


def test_packed_and_plain_files_make_one_ensemble() -> None:
    files = {"some.onnx": tiny.packed_members(tiny.coefficients(N_MEMBERS)[:2]), "m3.onnx": linear(2)}
    ensemble = build(
        files, [gated("m1", 0, "some.onnx"), {"name": "m3", "file": "m3.onnx"}, gated("m2", 1, "some.onnx")]
    )
    x = tiny.rows(4)
    assert_allclose(ensemble.run(x), tiny.answers(x, N_MEMBERS)[[0, 2, 1]], atol=1e-6)
    assert_allclose(ensemble.run(x, [2, 1]), tiny.answers(x, N_MEMBERS)[[1, 2]], atol=1e-6)


def gated(name: str, gate: int, file: str = "all.onnx") -> dict[str, Any]:
    return {"name": name, "file": file, "output": "member_probabilities", "gate": gate}


def test_a_member_that_is_not_asked_for_does_not_run() -> None:
    files = {"good.onnx": linear(), "bad.onnx": raising()}
    ensemble = build(files, [{"name": "good", "file": "good.onnx"}, {"name": "bad", "file": "bad.onnx"}])
    x = tiny.rows(2)
    assert_allclose(ensemble.run(x, [0])[0], tiny.answers(x, 1)[0], atol=1e-6)
    with pytest.raises(MemberFailed, match=r"bad\.onnx"):
        ensemble.run(x)


def test_the_facts_of_the_members_come_from_the_manifest(ensemble: Ensemble) -> None:
    assert ensemble.names == ["m1", "m2", "m3"]
    assert_array_equal(ensemble.temperatures, [1, 1.5, 2])
    assert_array_equal(ensemble.weights("weighted"), [3, 2, 1])
    assert_array_equal(ensemble.weights("log_linear"), [1, 2, 3])
    assert ensemble.strategies == [name for name in STRATEGIES if name != "stacking"]
    for strategy in set(ensemble.strategies) - {"weighted", "log_linear"}:
        assert_array_equal(ensemble.weights(strategy), [1, 1, 1])


@pytest.mark.parametrize("weight", [5e-324, 1e-50, 1e39, 1.7e308])
def test_weights_of_any_size_are_kept(weight: float) -> None:
    files = {"m1.onnx": linear()}
    ensemble = build(files, [{"name": "m1", "file": "m1.onnx", "weights": {"weighted": weight}}])
    assert_array_equal(ensemble.weights("weighted"), [weight])


# Tables -------------------------------------------------------------------------------------------------------------

ML: dict[str, Any] = {"domain": "ai.onnx.ml"}
BY_AGE = np.array([[0.02, -0.01, 0.005]], dtype=np.float32)
BY_JOB = tiny.coefficients(1)[0][:3]
AGE = helper.make_tensor_value_info("age", TensorProto.FLOAT, ["n", 1])
JOB = helper.make_tensor_value_info("job", TensorProto.STRING, ["n", 1])
COLUMNS = [{"name": "age", "shape": [1]}, {"name": "job", "datatype": "BYTES", "shape": [1]}]


def reading_age(end: str) -> list[NodeProto]:
    """Nodes from `age` to `end`, a softmax of a product with `BY_AGE`."""
    return [
        helper.make_node("MatMul", ["age", "BY_AGE"], [f"{end}_logits"]),
        helper.make_node("Softmax", [f"{end}_logits"], [end], axis=1),
    ]


def reading_job(end: str) -> list[NodeProto]:
    return [
        helper.make_node("OneHotEncoder", ["job"], [f"{end}_hot"], cats_strings=tiny.JOBS, zeros=1, **ML),
        helper.make_node("Squeeze", [f"{end}_hot", "second"], [f"{end}_flat"]),
        helper.make_node("MatMul", [f"{end}_flat", "BY_JOB"], [f"{end}_logits"]),
        helper.make_node("Softmax", [f"{end}_logits"], [end], axis=1),
    ]


CONSTANTS = {"BY_AGE": BY_AGE, "BY_JOB": BY_JOB, "second": np.array([1])}
PROBABILITIES = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", 3])


def apart() -> Ensemble:
    """A member that reads only the ages, and one that reads only the jobs."""
    files = {
        "age.onnx": tiny.graph(reading_age("probabilities"), [AGE], [PROBABILITIES], {"BY_AGE": BY_AGE}),
        "job.onnx": tiny.graph(reading_job("probabilities"), [JOB], [PROBABILITIES], CONSTANTS),
    }
    members = [{"name": "by_age", "file": "age.onnx"}, {"name": "by_job", "file": "job.onnx"}]
    return build(files, members, inputs=COLUMNS)


def packed() -> Ensemble:
    """The same members behind gates of one graph."""
    nodes = [
        helper.make_node("Shape", ["age"], ["n_rows"], start=0, end=1),
        helper.make_node("Concat", ["n_rows", "three"], ["shut"], axis=0),
    ]
    for k, read in enumerate((reading_age, reading_job)):
        branches = {
            "then_branch": helper.make_graph(
                read(f"open{k}"), f"then{k}", [], [helper.make_empty_tensor_value_info(f"open{k}")]
            ),
            "else_branch": helper.make_graph(
                [helper.make_node("ConstantOfShape", ["shut"], [f"shut{k}"])],
                f"else{k}",
                [],
                [helper.make_empty_tensor_value_info(f"shut{k}")],
            ),
        }
        nodes.append(helper.make_node("Gather", ["members", f"k{k}"], [f"gate{k}"]))
        nodes.append(helper.make_node("If", [f"gate{k}"], [f"part{k}"], **branches))
        nodes.append(helper.make_node("Unsqueeze", [f"part{k}", "first"], [f"layer{k}"]))
    nodes.append(helper.make_node("Concat", ["layer0", "layer1"], ["member_probabilities"], axis=0))
    more = {"three": np.array([3]), "first": np.array([0]), "k0": np.array(0), "k1": np.array(1)}
    data = tiny.graph(
        nodes,
        [AGE, JOB, helper.make_tensor_value_info("members", TensorProto.BOOL, [2])],
        [helper.make_tensor_value_info("member_probabilities", TensorProto.FLOAT, [2, "n", 3])],
        CONSTANTS | more,
    )
    return build({"all.onnx": data}, [gated("by_age", 0), gated("by_job", 1)], inputs=COLUMNS)


def people(n: int) -> tuple[Rows, NDArray[np.float32]]:
    """Rows of the table, and what the two members answer, `(2, n, 3)`."""
    tensors = {**tiny.people(n), "age": np.arange(20, 20 + n, dtype=np.float32)[:, None]}
    hot = (tensors["job"] == np.array(tiny.JOBS, dtype=object)).astype(np.float32)
    exponentials = np.exp(np.stack([tensors["age"] @ BY_AGE, hot @ BY_JOB]))
    specs = [InputSpec.model_validate(column) for column in COLUMNS]
    return join_tensors(tensors, specs), exponentials / exponentials.sum(axis=2, keepdims=True)


@pytest.mark.parametrize("make", [apart, packed])
@pytest.mark.parametrize("members", [[0], [1], [0, 1], [1, 0]])
def test_members_may_read_some_of_a_tables_inputs(make: Callable[[], Ensemble], members: list[int]) -> None:
    rows, expected = people(5)
    ensemble = make()
    assert_allclose(ensemble.run(rows, members), expected[members], atol=1e-6)
    assert_array_equal(ensemble.run(rows[2:4], members), ensemble.run(rows, members)[:, 2:4])


def test_a_table_with_missing_values_is_answered(tmp_path: Path) -> None:
    ensemble = load_version(tiny.write_table_ensemble(tmp_path))
    tensors = tiny.people(9)
    assert np.isnan(tensors["age"]).any()
    assert_allclose(
        ensemble.run(join_tensors(tensors, ensemble.manifest.inputs)), tiny.table_answers(tensors, 2), atol=1e-6
    )


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ({"name": "age", "datatype": "BYTES", "shape": [1]}, "'age' to be tensor(string) of shape [n, 1]"),
        ({"name": "age", "shape": [2]}, "'age' to be tensor(float) of shape [n, 2]"),
    ],
)
def test_a_column_that_is_not_what_the_graph_reads_is_refused(column: dict[str, Any], message: str) -> None:
    data = tiny.graph(reading_age("probabilities"), [AGE], [PROBABILITIES], {"BY_AGE": BY_AGE})
    with pytest.raises(InvalidRepository, match=re.escape(f"member 'm1': expected {message}")):
        build({"m1.onnx": data}, [{"name": "m1", "file": "m1.onnx"}], inputs=[column, COLUMNS[1]])


# Validity -----------------------------------------------------------------------------------------------------------

NAN, INFINITY = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("answer", "valid"),
    [
        ([0.2, 0.3, 0.5], True),
        ([1, 0, 0], True),
        # Some converters leave it at that.
        ([0.2, 0.3, 0.5009], True),
        ([0.2, 0.3, 0.4991], True),
        ([1.0005, -0.0005, 0], True),
        ([0.2, 0.3, 0.502], False),
        ([0.2, 0.3, 0.498], False),
        ([1.002, -0.002, 0], False),
        ([0, 0, 0], False),
        ([2, -1, 0], False),
        ([NAN, 0.5, 0.5], False),
        ([NAN, NAN, NAN], False),
        ([INFINITY, 0, 0], False),
        ([INFINITY, -INFINITY, 1], False),
        ([-INFINITY, 1, 0], False),
        ([3e38, 3e38, 0], False),
    ],
)
def test_an_answer_is_valid_if_it_is_a_distribution_but_for_rounding(answer: list[float], valid: bool) -> None:
    ensemble = tiny.answering(2)
    x = np.array([[0.2, 0.3, 0.5], answer, [0, 0, 1]], dtype=np.float32)
    answers, mask = ensemble.ask(x, [1, 0])
    assert_array_equal(answers, [x, x])
    assert mask.dtype == np.bool_
    assert_array_equal(mask, [[True, valid, True]] * 2)
    assert are_distributions(x) is valid


@pytest.mark.parametrize(
    ("answer", "valid"),
    [
        ([0, 0], True),
        ([-1e30, 3e38], True),
        ([1, NAN], False),
        ([INFINITY, 1], False),
        ([1, -INFINITY], False),
    ],
)
def test_an_answer_of_a_regression_is_valid_if_it_is_finite(answer: list[float], valid: bool) -> None:
    ensemble = tiny.answering(2, 2, task="regression")
    x = np.array([[7, -7], answer], dtype=np.float32)
    _, mask = ensemble.ask(x, [0, 1])
    assert_array_equal(mask, [[True, valid]] * 2)
    assert_array_equal(are_valid(x, "regression"), [True, valid])


def test_the_answers_that_are_not_valid_are_told_by_member_and_row() -> None:
    files = {"m1.onnx": linear(), "root.onnx": square_root()}
    ensemble = build(files, [{"name": "m1", "file": "m1.onnx"}, {"name": "root", "file": "root.onnx"}])
    x = thirds(4) ** 2
    x[2, 1] = -1
    x[0, 0] = 1
    answers, valid = ensemble.ask(x, [1, 0])
    assert_array_equal(valid, [[False, True, False, True], [True, True, True, True]])
    assert_array_equal(answers[1], ensemble.run(x, [0])[0])
    assert_array_equal(ensemble.ask(x, [0])[1], [[True] * 4])


def test_no_rows_are_all_valid(ensemble: Ensemble) -> None:
    answers, valid = ensemble.ask(tiny.rows(0), [0, 2])
    assert answers.shape == (2, 0, 3)
    assert valid.shape == (2, 0)


@pytest.mark.parametrize(
    ("task", "n_outputs", "answer", "message"),
    [
        ("classification", 3, [0.5, 0.25, 0.5], "expected a distribution, got for row 1 [0.5  0.25 0.5 ]"),
        ("regression", 1, [NAN], "expected numbers, got for row 1 [nan]"),
        ("regression", 2, [0, INFINITY], "expected numbers, got for row 1 [ 0. inf]"),
    ],
)
def test_an_answer_that_is_not_valid_is_an_error_where_all_have_to_answer(
    task: str, n_outputs: int, answer: list[float], message: str
) -> None:
    ensemble = tiny.answering(2, n_outputs, task=task)
    x = np.array([[1] + [0] * (n_outputs - 1), answer], dtype=np.float32)
    with pytest.raises(MemberFailed) as caught:
        ensemble.run(x, [1])
    assert caught.value.message == f"models/tiny/1: member 'm2': {message}"


# Stopping -----------------------------------------------------------------------------------------------------------


def endless() -> bytes:
    """Adds nought to its rows as long as the condition holds, and it always does."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["going"], ["still"]), helper.make_node("Add", ["state", "nought"], ["next"])],
        "body",
        [
            helper.make_tensor_value_info("number", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, ["n", 3]),
        ],
        [
            helper.make_tensor_value_info("still", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, ["n", 3]),
        ],
    )
    return one_member(
        helper.make_node("Slice", ["X", "from", "to", "axis"], ["three"]),
        helper.make_node("Loop", ["", "true", "three"], ["probabilities"], body=body),
        **{"from": [0], "to": [3], "axis": [1], "true": True, "nought": np.float32(0)},
    )


def test_a_graph_that_never_ends_is_stopped() -> None:
    files = {"m1.onnx": linear(), "endless.onnx": endless()}
    ensemble = build(files, [{"name": "m1", "file": "m1.onnx"}, {"name": "endless", "file": "endless.onnx"}])
    stop, failures = Stop(), []

    def run() -> None:
        try:
            ensemble.ask(thirds(2), [1], stop)
        except MemberFailed as exc:
            failures.append(exc.message)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(0.2)
    assert thread.is_alive()
    # Others go on meanwhile, and afterwards.
    assert ensemble.ask(thirds(2), [0], Stop())[1].all()
    called = time.monotonic()
    stop()
    thread.join(10)
    assert not thread.is_alive()
    assert time.monotonic() - called < 5
    (message,) = failures
    assert message.startswith("models/tiny/1/endless.onnx: ")
    assert message.isprintable()
    assert ensemble.ask(thirds(2), [0])[1].all()


def test_what_is_stopped_beforehand_does_not_run(ensemble: Ensemble) -> None:
    stop = Stop()
    assert ensemble.ask(tiny.rows(2), [0, 1], stop)[1].all()
    stop()
    with pytest.raises(MemberFailed, match=r"\.onnx: "):
        ensemble.ask(tiny.rows(2), [0, 1], stop)
    assert ensemble.ask(tiny.rows(2), [0, 1], Stop())[1].all()


# Final estimators ---------------------------------------------------------------------------------------------------


def final_estimator(ensemble: Ensemble) -> FinalEstimator:
    assert ensemble.final_estimator is not None
    return ensemble.final_estimator


@pytest.mark.parametrize("write", [tiny.write_stacked, tiny.write_packed_stacked])
@pytest.mark.parametrize("n_rows", [0, 1, 7])
def test_a_final_estimator_makes_one_answer_of_all(write: Callable[..., Path], n_rows: int, tmp_path: Path) -> None:
    ensemble = load_version(write(tmp_path))
    x = tiny.rows(n_rows)
    answers = ensemble.run(x)
    assert_allclose(answers, tiny.answers(x, N_MEMBERS), atol=1e-6)
    stacked = final_estimator(ensemble)(answers)
    assert stacked.dtype == np.float32
    assert_allclose(stacked, tiny.stacked_answers(answers), atol=1e-6)
    # Answers that lie otherwise in memory are the same answers.
    assert_array_equal(final_estimator(ensemble)(np.asfortranarray(answers)), stacked)


def test_a_final_estimator_in_one_graph_with_the_members_answers_as_apart(tmp_path: Path) -> None:
    apart = load_version(tiny.write_stacked(tmp_path))
    packed = load_version(tiny.write_packed_stacked(tmp_path))
    x = tiny.rows(20)
    answers = apart.run(x)
    assert_array_equal(packed.run(x), answers)
    assert_array_equal(final_estimator(packed)(answers), final_estimator(apart)(answers))


def stacking(n_members: int, *nodes: NodeProto, rows: bool = False, **constants: Any) -> Ensemble:
    """Linear members, and a final estimator of these nodes from `answers`, and from `X` with `rows`, to `stacked`."""
    inputs = [helper.make_tensor_value_info("answers", TensorProto.FLOAT, [n_members, "m", 3])]
    if rows:
        inputs.append(helper.make_tensor_value_info("X", TensorProto.FLOAT, ["n", 4]))
    data = tiny.graph(
        nodes,
        inputs,
        [helper.make_tensor_value_info("stacked", TensorProto.FLOAT, ["rows", 3])],
        {name: np.asarray(value) for name, value in constants.items()},
    )
    files = {**{f"m{k + 1}.onnx": linear(k) for k in range(n_members)}, "final.onnx": data}
    members = [{"name": f"m{k + 1}", "file": f"m{k + 1}.onnx"} for k in range(n_members)]
    return build(files, members, final_estimator={"file": "final.onnx", "output": "stacked"})


def test_a_final_estimator_that_reads_the_ensembles_inputs_gets_no_rows() -> None:
    """It multiplies by one more than the number of rows."""
    ensemble = stacking(
        2,
        helper.make_node("Shape", ["X"], ["n_rows"], start=0, end=1),
        helper.make_node("Cast", ["n_rows"], ["number"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["number", "one"], ["factor"]),
        helper.make_node("Gather", ["answers", "first"], ["picked"], axis=0),
        helper.make_node("Mul", ["picked", "factor"], ["stacked"]),
        rows=True,
        one=np.float32(1),
        first=0,
    )
    answers = ensemble.run(tiny.rows(5))
    assert_array_equal(final_estimator(ensemble)(answers), answers[0])


def test_a_final_estimator_over_a_table_gets_no_rows_of_it(tmp_path: Path) -> None:
    """It sits in a graph that reads the columns, of which one is text."""
    nodes = [
        *reading_age("unused_age"),
        *reading_job("unused_job"),
        helper.make_node("Gather", ["answers", "first"], ["stacked"], axis=0),
    ]
    final = tiny.graph(
        nodes,
        [AGE, JOB, helper.make_tensor_value_info("answers", TensorProto.FLOAT, [1, "m", 3])],
        [helper.make_tensor_value_info("stacked", TensorProto.FLOAT, ["m", 3])],
        CONSTANTS | {"first": np.array(0)},
    )
    files = {
        "age.onnx": tiny.graph(reading_age("probabilities"), [AGE], [PROBABILITIES], {"BY_AGE": BY_AGE}),
        "final.onnx": final,
    }
    ensemble = build(
        files,
        [{"name": "by_age", "file": "age.onnx"}],
        inputs=COLUMNS,
        final_estimator={"file": "final.onnx", "output": "stacked"},
    )
    answers = ensemble.run(people(5)[0])
    assert_array_equal(final_estimator(ensemble)(answers), answers[0])


def test_the_final_estimator_does_not_run_with_the_members_nor_they_with_it() -> None:
    """With the switch on this graph's member answers no numbers, with its gate open its final estimator; by default
    both are."""
    data = tiny.graph(
        [
            helper.make_node("Slice", ["X", "from", "to", "axis"], ["three"]),
            helper.make_node("Unsqueeze", ["three", "from"], ["one"]),
            helper.make_node("Where", ["/stack", "nan", "one"], ["member_probabilities"]),
            helper.make_node("Gather", ["answers", "first"], ["picked"], axis=0),
            helper.make_node("Where", ["/stack", "picked", "nan"], ["switched"]),
            helper.make_node("Where", ["members", "nan", "switched"], ["stacked"]),
        ],
        [
            helper.make_tensor_value_info("X", TensorProto.FLOAT, ["n", 4]),
            helper.make_tensor_value_info("members", TensorProto.BOOL, [1]),
            helper.make_tensor_value_info("answers", TensorProto.FLOAT, [1, "m", 3]),
            helper.make_tensor_value_info("/stack", TensorProto.BOOL, [1]),
        ],
        [
            helper.make_tensor_value_info("member_probabilities", TensorProto.FLOAT, [1, "n", 3]),
            helper.make_tensor_value_info("stacked", TensorProto.FLOAT, ["m", 3]),
        ],
        {
            "from": np.array([0]),
            "to": np.array([3]),
            "axis": np.array([1]),
            "nan": np.array(NAN, dtype=np.float32),
            "first": np.array(0),
            "answers": np.zeros((1, 0, 3), dtype=np.float32),
            "/stack": np.ones(1, dtype=np.bool_),
            "members": np.ones(1, dtype=np.bool_),
        },
    )
    ensemble = build({"all.onnx": data}, [gated("m1", 0)], final_estimator={"file": "all.onnx", "output": "stacked"})
    answers = ensemble.run(thirds(4))
    assert_array_equal(answers[0], thirds(4)[:, :3])
    assert_array_equal(final_estimator(ensemble)(answers), answers[0])


FIRST = helper.make_node("Gather", ["answers", "first"], ["picked"], axis=0)


@pytest.mark.parametrize(
    ("nodes", "constants", "message"),
    [
        (
            [FIRST, helper.make_node("Mul", ["picked", "half"], ["stacked"])],
            {"half": np.float32(0.5)},
            "expected distributions of shape (4, 3), got shape (4, 3): NaN, or no distribution",
        ),
        (
            [FIRST, helper.make_node("Mul", ["picked", "nan"], ["stacked"])],
            {"nan": np.float32(NAN)},
            "expected distributions of shape (4, 3), got shape (4, 3): NaN, or no distribution",
        ),
        (
            [FIRST, helper.make_node("Slice", ["picked", "one", "end", "axis"], ["stacked"])],
            {"one": [1], "end": [99], "axis": [0]},
            "expected distributions of shape (4, 3), got shape (3, 3)",
        ),
    ],
    ids=["half", "not a number", "a row less"],
)
def test_a_final_estimator_that_answers_no_distributions_fails(
    nodes: Sequence[NodeProto], constants: dict[str, Any], message: str
) -> None:
    ensemble = stacking(2, *nodes, first=0, **constants)
    with pytest.raises(MemberFailed) as caught:
        final_estimator(ensemble)(ensemble.run(tiny.rows(4)))
    assert caught.value.message == f"models/tiny/1/final.onnx: final_estimator: {message}"


def test_a_final_estimator_that_raises_fails() -> None:
    """It wants three rows at least."""
    ensemble = stacking(
        2,
        FIRST,
        helper.make_node("Gather", ["picked", "third"], ["row"], axis=0),
        helper.make_node("Mul", ["row", "nought"], ["noughts"]),
        helper.make_node("Add", ["picked", "noughts"], ["stacked"]),
        first=0,
        third=[2],
        nought=np.float32(0),
    )
    assert final_estimator(ensemble)(ensemble.run(tiny.rows(3))).shape == (3, 3)
    with pytest.raises(MemberFailed, match=r"^models/tiny/1/final\.onnx: ") as caught:
        final_estimator(ensemble)(ensemble.run(tiny.rows(2)))
    assert caught.value.message.isprintable()


def test_a_graph_that_cannot_be_the_final_estimator_is_refused() -> None:
    with pytest.raises(InvalidRepository) as caught:
        build(
            {"m1.onnx": linear()},
            [{"name": "m1", "file": "m1.onnx"}],
            final_estimator={"file": "m1.onnx", "output": "probabilities"},
        )
    assert caught.value.message == ("models/tiny/1/m1.onnx: final_estimator: expected an input 'answers', got ['X']")


# Regressions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("targets", [tiny.TARGETS[:1], tiny.TARGETS])
@pytest.mark.parametrize("members", [None, [1], [2, 0]])
def test_members_of_a_regression_answer_a_value_a_target(
    targets: list[str], members: list[int] | None, tmp_path: Path
) -> None:
    ensemble = load_version(tiny.write_regression(tmp_path, targets=targets))
    x = tiny.rows(7)
    expected = tiny.values(x, 3, len(targets))
    answered = ensemble.run(x, members)
    assert answered.dtype == np.float32
    assert_allclose(answered, expected if members is None else expected[members], rtol=1e-4, atol=1e-4)
    assert ensemble.manifest.outputs == targets
    assert ensemble.final_estimator is None


# What is there ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("write", "files", "strategies"),
    [
        (tiny.write_ensemble, ["m1.onnx", "m2.onnx", "m3.onnx"], []),
        (tiny.write_packed, ["ensemble.onnx"], []),
        (tiny.write_stacked, ["m1.onnx", "m2.onnx", "m3.onnx", "final.onnx"], ["stacking"]),
        (tiny.write_packed_stacked, ["ensemble.onnx"], ["stacking"]),
        (tiny.write_cascade, ["m1.onnx", "m2.onnx", "m3.onnx"], ["cascade"]),
    ],
)
def test_an_ensemble_offers_the_strategies_that_it_has_what_they_take_for(
    write: Callable[..., Path], files: list[str], strategies: list[str], tmp_path: Path
) -> None:
    ensemble = load_version(write(tmp_path))
    assert graph_files(ensemble.manifest) == files
    pools = [name for name in STRATEGIES if name != "stacking"]
    assert offered_strategies(ensemble.manifest) == ensemble.strategies == [*pools, *strategies]
    for strategy in strategies:
        assert_array_equal(ensemble.weights(strategy), [1, 1, 1])


def test_a_regression_offers_its_own_strategies(tmp_path: Path) -> None:
    ensemble = load_version(tiny.write_regression(tmp_path))
    assert offered_strategies(ensemble.manifest) == ensemble.strategies == list(REGRESSION)
    assert_array_equal(ensemble.weights("weighted"), [3, 2, 1])
    assert_array_equal(ensemble.weights("mean"), [1, 1, 1])


# Failures -----------------------------------------------------------------------------------------------------------


def raising() -> bytes:
    """Wants three rows at least."""
    return one_member(
        helper.make_node("Gather", ["X", "at"], ["row"], axis=0),
        helper.make_node("Slice", ["X", "from", "to", "axis"], ["three"]),
        helper.make_node("Slice", ["row", "from", "to", "axis"], ["one"]),
        helper.make_node("Add", ["three", "one"], ["probabilities"]),
        **{"at": [2], "from": [0], "to": [3], "axis": [1]},
    )


def dropping() -> bytes:
    """Answers only the rows whose first feature is positive."""
    return one_member(
        helper.make_node("Slice", ["X", "from", "to", "axis"], ["three"]),
        helper.make_node("Gather", ["X", "first"], ["firsts"], axis=1),
        helper.make_node("Greater", ["firsts", "nought"], ["kept"]),
        helper.make_node("Compress", ["three", "kept"], ["probabilities"], axis=0),
        **{"from": [0], "to": [3], "axis": [1], "first": 0, "nought": np.float32(0)},
    )


def square_root() -> bytes:
    """Not a number for what is negative."""
    return one_member(
        helper.make_node("Slice", ["X", "from", "to", "axis"], ["three"]),
        helper.make_node("Sqrt", ["three"], ["probabilities"]),
        **{"from": [0], "to": [3], "axis": [1]},
    )


def test_a_graph_that_raises_fails_its_member() -> None:
    ensemble = build({"bad.onnx": raising()}, [{"name": "bad", "file": "bad.onnx"}])
    assert ensemble.run(thirds(3) / np.float32(2)).shape == (1, 3, 3)
    with pytest.raises(MemberFailed, match=r"^models/tiny/1/bad\.onnx: ") as caught:
        ensemble.run(tiny.rows(2))
    assert "\n" not in caught.value.message


def test_a_graph_that_answers_another_number_of_rows_fails_its_member() -> None:
    files = {"m1.onnx": linear(), "some.onnx": dropping()}
    ensemble = build(files, [{"name": "m1", "file": "m1.onnx"}, {"name": "some", "file": "some.onnx"}])
    x = thirds(5)
    assert ensemble.run(x).shape == (2, 5, 3)
    x[3] = -1
    with pytest.raises(MemberFailed, match=r"member 'some': expected .* shape \(5, 3\), got \(4, 3\)"):
        ensemble.run(x)


@pytest.mark.parametrize("value", [-1, 1], ids=["not a number", "sum of more than 1"])
def test_an_answer_that_is_no_distribution_fails_its_member(value: float) -> None:
    files = {"m1.onnx": linear(), "root.onnx": square_root()}
    ensemble = build(files, [{"name": "m1", "file": "m1.onnx"}, {"name": "root", "file": "root.onnx"}])
    x = thirds(4) ** 2
    assert ensemble.run(x).shape == (2, 4, 3)
    x[2, 1] = value
    with pytest.raises(MemberFailed, match=r"member 'root': expected a distribution, got for row 2 \["):
        ensemble.run(x)
    with pytest.raises(MemberFailed, match="member 'root'"):
        ensemble.run(x, [1, 0])
    assert ensemble.run(x, [0]).shape == (1, 4, 3)


def test_rows_of_another_shape_fail_the_members(ensemble: Ensemble) -> None:
    with pytest.raises(MemberFailed, match=r"\.onnx: "):
        ensemble.run(np.zeros((2, 5), dtype=np.float32))


def test_a_packed_graph_that_answers_only_open_gates_fails_its_members() -> None:
    ensemble = build({"all.onnx": only_open()}, [gated("m1", 0), gated("m2", 1)])
    assert ensemble.run(thirds(5)).shape == (2, 5, 3)
    for members in ([0], [1]):
        with pytest.raises(MemberFailed, match=r"member 'm\d': expected .* shape \(2, 5, 3\), got \(1, 5, 3\)"):
            ensemble.run(tiny.rows(5), members)


def thirds(n: int) -> NDArray[np.float32]:
    """`(n, 4)`: the first three features are a distribution, for graphs that hand them on."""
    return np.full((n, 4), 1 / 3, dtype=np.float32)


def only_open() -> bytes:
    """Two gates, and an output that holds the members whose gate is open instead of zeros for the others."""
    return tiny.graph(
        [
            helper.make_node("Slice", ["X", "from", "to", "axis"], ["three"]),
            helper.make_node("Unsqueeze", ["three", "from"], ["one"]),
            helper.make_node("Concat", ["one", "one"], ["both"], axis=0),
            helper.make_node("Compress", ["both", "members"], ["member_probabilities"], axis=0),
        ],
        [
            helper.make_tensor_value_info("X", TensorProto.FLOAT, ["n", 4]),
            helper.make_tensor_value_info("members", TensorProto.BOOL, [2]),
        ],
        [helper.make_tensor_value_info("member_probabilities", TensorProto.FLOAT, ["open", "n", 3])],
        {"from": np.array([0]), "to": np.array([3]), "axis": np.array([1])},
    )


# Contracts ----------------------------------------------------------------------------------------------------------


def identity(x: Any, probabilities: Any, *more: Any, operator: str = "Identity") -> bytes:
    """A graph of this input and this output, each a type and a shape, and of further inputs (name, type, shape)."""
    nodes = [helper.make_node(operator, ["X"], ["probabilities"])]
    outputs = [helper.make_tensor_value_info("probabilities", *probabilities)]
    for name, type_, shape in more:
        nodes.append(helper.make_node("Identity", [name], [f"{name}_again"]))
        outputs.append(helper.make_tensor_value_info(f"{name}_again", type_, shape))
    inputs = [helper.make_tensor_value_info("X", *x), *(helper.make_tensor_value_info(*other) for other in more)]
    return tiny.graph(nodes, inputs, outputs)


FLOAT, DOUBLE, BOOL = TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.BOOL
RIGHT = (FLOAT, ["n", 3])


@pytest.mark.parametrize(
    ("data", "changes", "message"),
    [
        (
            identity(RIGHT, RIGHT, ("Y", FLOAT, ["n", 3])),
            {"inputs": [{"name": "Z", "shape": [3]}]},
            "expected an input 'Z', got ['X', 'Y']",
        ),
        (
            identity(RIGHT, RIGHT),
            {"inputs": [{"name": "Y", "shape": [3]}, {"name": "Z", "shape": [3]}]},
            "expected some of the inputs Y, Z, got ['X']",
        ),
        (
            identity(RIGHT, RIGHT),
            {"inputs": [{"name": "X", "shape": [4]}]},
            "expected 'X' to be tensor(float) of shape [n, 4], got tensor(float) of shape [n, 3]",
        ),
        (
            identity(RIGHT, RIGHT),
            {"inputs": [{"name": "X", "shape": [3, 1]}]},
            "expected 'X' to be tensor(float) of shape [n, 3, 1], got tensor(float) of shape [n, 3]",
        ),
        (
            identity((DOUBLE, ["n", 3]), (DOUBLE, ["n", 3])),
            {},
            "expected 'X' to be tensor(float) of shape [n, 3], got tensor(double) of shape [n, 3]",
        ),
        (
            identity((FLOAT, [1, 3]), (FLOAT, [1, 3])),
            {},
            "expected 'X' to be tensor(float) of shape [n, 3], got tensor(float) of shape [1, 3]",
        ),
        (
            identity(RIGHT, RIGHT),
            {"classes": ["a", "b"]},
            "expected 'probabilities' to be tensor(float) of shape [n, 2], got tensor(float) of shape [n, 3]",
        ),
        (
            identity(RIGHT, (BOOL, ["n", 3]), operator="IsNaN"),
            {},
            "expected 'probabilities' to be tensor(float) of shape [n, 3], got tensor(bool) of shape [n, 3]",
        ),
        (
            identity(RIGHT, RIGHT),
            {"members": [{"name": "m1", "file": "m1.onnx", "output": "label"}]},
            "expected an output 'label', got ['probabilities']",
        ),
        (identity(RIGHT, RIGHT, ("mask", BOOL, [3])), {}, "the graph wants inputs that nobody gives: ['mask']"),
        (identity(RIGHT, RIGHT, ("members", BOOL, [3])), {}, "the graph wants inputs that nobody gives: ['members']"),
    ],
    ids=["input", "inputs", "features", "rank", "double", "fixed batch", "classes", "type", "output", "mask", "gates"],
)
def test_a_graph_that_is_not_what_the_manifest_says_is_refused(
    data: bytes, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidRepository) as caught:
        build(
            {"m1.onnx": data},
            **{"members": [{"name": "m1", "file": "m1.onnx"}], "inputs": [{"name": "X", "shape": [3]}], **changes},
        )
    assert caught.value.message.startswith("models/tiny/1/m1.onnx: member 'm1': ")
    assert message in caught.value.message


@pytest.mark.parametrize("write", [tiny.write_ensemble, tiny.write_packed])
def test_of_one_input_the_graphs_own_name_does_not_matter(write: Callable[..., Path], tmp_path: Path) -> None:
    folder = write(tmp_path)
    named = parse_manifest((folder / MANIFEST_FILE).read_bytes(), where="")
    spec = named.inputs[0].model_copy(update={"name": "features"})
    files = {file.name: (folder / file.name).read_bytes() for file in named.files}
    ensemble = Ensemble(named.model_copy(update={"inputs": [spec]}), files, where="renamed")
    x = tiny.rows(5)
    assert_array_equal(ensemble.run(x), load_version(folder).run(x))


def test_graphs_that_are_open_already_are_taken_as_they_are() -> None:
    contents = tiny.manifest(1, files=[{"name": "m1.onnx", "sha256": "0" * 64, "bytes": 1}])
    ensemble = Ensemble(
        Manifest.model_validate(contents), {}, where="here", graphs={"m1.onnx": Session(linear(), where="open")}
    )
    assert ensemble.run(tiny.rows(2)).shape == (1, 2, 3)


def test_dimensions_that_a_graph_leaves_free_are_let_through() -> None:
    data = identity((FLOAT, ["n", "features"]), (FLOAT, ["n", "classes"]))
    ensemble = build({"m1.onnx": data}, [{"name": "m1", "file": "m1.onnx"}], inputs=[{"name": "X", "shape": [3]}])
    x = np.full((2, 3), 1 / 3, dtype=np.float32)
    assert_array_equal(ensemble.run(x)[0], x)
    with pytest.raises(MemberFailed, match=r"expected probabilities of shape \(2, 3\), got \(2, 4\)"):
        ensemble.run(tiny.rows(2))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (linear(), "has a gate, but the graph has no input 'members' of booleans"),
        (identity((FLOAT, ["n", 4]), (FLOAT, ["n", 4]), ("members", FLOAT, [2])), "no input 'members' of booleans"),
        (identity((FLOAT, ["n", 4]), (FLOAT, ["n", 4]), ("members", BOOL, ["m"])), "no input 'members' of booleans"),
        (identity((FLOAT, ["n", 4]), (FLOAT, ["n", 4]), ("members", BOOL, [1, 2])), "no input 'members' of booleans"),
        (tiny.packed_members(tiny.coefficients(1)), "gate 1 is not below the graph's 1 gates"),
    ],
    ids=["none", "float", "free", "matrix", "too few"],
)
def test_a_gate_that_the_graph_does_not_have_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(InvalidRepository) as caught:
        build({"all.onnx": data}, [gated("m2", 1)])
    assert caught.value.message.startswith("models/tiny/1/all.onnx: member 'm2': ")
    assert message in caught.value.message


def test_an_output_of_another_number_of_members_than_gates_is_refused() -> None:
    data = identity((FLOAT, ["n", 4]), (FLOAT, ["n", 4]), ("members", BOOL, [2]))
    with pytest.raises(InvalidRepository, match=r"expected 'probabilities' to be tensor\(float\) of shape \[2, n, 3\]"):
        build({"all.onnx": data}, [{"name": "m1", "file": "all.onnx", "gate": 0}])


@pytest.mark.parametrize("n_classes", [2, 10, 1000])
def test_a_row_in_a_message_fits_on_one_line(n_classes: int) -> None:
    shown = on_one_line(np.linspace(-1e3, 1e3, n_classes, dtype=np.float32))
    assert "\n" not in shown
    assert shown.startswith("[-1000.")
    assert len(shown) < 200
