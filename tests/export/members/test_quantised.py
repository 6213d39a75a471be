import re
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from export.datasets import Dataset, Split
from export.errors import ConversionFailed, InvalidRecipe, NothingFits
from export.library import Entry
from export.members import Task
from export.members.quantised import LEAST_VALUES, float16, int8, train_quantised
from export.packed import check_packed, pack_graphs
from export.parity import check_parity
from export.recipe import Conv, Dense, Flatten, KerasCnn, MaxPool, Quantised
from server.session import Session
from tests.export.members.entries import kept, task_with
from tests.export.small import TREE, train
from tests.tiny import coefficients, linear_member

NET = KerasCnn(
    kind="keras_cnn",
    name="net",
    layers=[
        Conv(layer="conv", filters=16, padding="same", batch_norm=True),
        MaxPool(layer="maxpool"),
        Conv(layer="conv", filters=16, separable=True, activation="swish"),
        Flatten(layer="flatten"),
        Dense(layer="dense", units=32, batch_norm=True),
    ],
    learning_rate=0.01,
    epochs=4,
)


def _recipe(to: str, **changed: Any) -> Quantised:
    return Quantised.model_validate({"kind": "quantised", "name": "less", "of": "net", "to": to, **changed})


def _constants(model: ModelProto) -> dict[int, list[tuple[int, ...]]]:
    """The shapes of a graph's constants, by their element's type."""
    found: dict[int, list[tuple[int, ...]]] = {}
    for constant in model.graph.initializer:
        found.setdefault(constant.data_type, []).append(tuple(constant.dims))
    return found


# ---- Members --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("to", "share", "drift"), [("int8", 0.75, 0.3), ("float16", 0.75, 0.01)])
def test_it_is_a_smaller_member_that_answers_nearly_the_same(
    to: str, share: float, drift: float, entry: Entry, task: Task, dataset: Dataset
) -> None:
    member = train_quantised(_recipe(to, tolerance=0.02, drift=drift), task)
    model = member.to_onnx()
    record = member.record
    assert {"of", "to", "cost_us", "source_cost_us", "accuracy", "source_accuracy"} < record.keys()
    assert (record["bytes"], record["source_bytes"]) == (model.ByteSize(), entry.bytes)
    assert record["bytes"] < share * record["source_bytes"]
    assert 0 < record["largest_drift"] <= drift
    assert re.fullmatch(rf"onnxruntime \S+ {to} of keras \S+", member.framework)
    np.testing.assert_array_equal(member.predict_proba(dataset.validation.x), _run(entry.candidate.model, dataset))
    report = check_parity(member, model, dataset)
    assert report.lossy
    assert report.rows["validation"] == 250
    assert report.largest_difference >= record["largest_drift"] > 1e-5
    assert [(task.description, task.finished) for task in task.progress.tasks] == [("less", True)]


def test_the_same_seed_gives_the_same_graph(task: Task) -> None:
    for to in ("int8", "float16"):
        one, two = (train_quantised(_recipe(to, tolerance=1, drift=1), task).to_onnx() for _ in range(2))
        assert one == two


def test_they_are_packed_with_their_source(entry: Entry, task: Task, dataset: Dataset) -> None:
    graphs = {"net": entry.candidate.model}
    for to in ("int8", "float16"):
        graphs[to] = train_quantised(_recipe(to, tolerance=1, drift=1), task).to_onnx()
        opsets = {opset.domain: opset.version for opset in graphs[to].opset_import}
        assert (opsets, graphs[to].ir_version) == ({"": 18, "ai.onnx.ml": 3}, 10)
        assert {node.domain for node in graphs[to].graph.node} == {""}
        assert all("/" in name for name in _own_names(graphs[to]))
    check_packed(pack_graphs(graphs, dataset.inputs, 10), graphs, dataset.validation.x)


def _own_names(model: ModelProto) -> list[str]:
    names = [name for node in model.graph.node for name in node.output if name != "probabilities"]
    return [*names, *(constant.name for constant in model.graph.initializer)]


def _run(model: ModelProto, dataset: Dataset) -> Any:
    session = Session(model.SerializeToString(), where="net.onnx", threads=2)
    return session.run(["probabilities"], {"image": dataset.validation.x})[0]


# ---- Refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("to", ["int8", "float16"])
def test_trees_have_no_weights(to: str, dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> None:
    entry = kept(train(TREE, dataset), dataset, tmp_path_factory.mktemp("library"))
    with pytest.raises(
        InvalidRecipe, match=rf"'less': expected 'tree' to have weights to be stored as {to}, .* of scik"
    ):
        train_quantised(_recipe(to, of="tree"), task_with(entry, dataset))


def test_one_that_answers_something_else_is_refused_with_the_figures(task: Task) -> None:
    with pytest.raises(NothingFits) as caught:
        train_quantised(_recipe("int8", tolerance=1, drift=1e-6), task)
    assert re.fullmatch(
        r"member 'less': a probability moves by more than 1e-06: 'net' and its int8 take \S+ and \S+ µs a row, "
        r"\d+ and \d+ bytes, accuracy 0.\d{4} and 0.\d{4}, probabilities up to 0.\d{4} apart",
        caught.value.message,
    )


def test_one_that_is_right_on_fewer_rows_is_refused(entry: Entry, dataset: Dataset) -> None:
    """Labels are what the source answers, and one row fewer: whatever changes is a loss."""
    answers = entry.answers["validation"]
    other = replace(entry, answers={"validation": np.eye(10, dtype=np.float32)[dataset.validation.y]})
    assert (answers.argmax(axis=1) != dataset.validation.y).any()
    with pytest.raises(NothingFits, match=r"accuracy falls by more than 0: .* accuracy 1.0000 and 0.\d{4}"):
        train_quantised(_recipe("float16", tolerance=0, drift=1), task_with(other, dataset))


def test_one_that_is_neither_smaller_nor_faster_is_refused(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    (source,) = task.sources.values()
    monkeypatch.setattr("export.members.quantised.float16", lambda model: source.candidate.model)
    monkeypatch.setattr("export.members.quantised.measure_costs", lambda *_: {"source": 10.0, "quantised": 9.8})
    with pytest.raises(
        NothingFits, match=r"member 'less': neither smaller nor faster: 'net' and its float16 take 10.0"
    ):
        train_quantised(_recipe("float16"), task)


# ---- Graphs ---------------------------------------------------------------------------------------------------------


def test_all_products_but_the_last_are_of_whole_numbers(entry: Entry, dataset: Dataset) -> None:
    model = int8(entry.candidate.model, iter([{"image": dataset.train.x[:64]}]))
    assert model is not None
    made = {node.output[0]: node for node in model.graph.node}
    products = [node for node in model.graph.node if node.op_type in ("Conv", "MatMul", "Gemm")]
    of_wholes = [made[name].op_type == "DequantizeLinear" for product in products for name in product.input[:1]]
    assert of_wholes == [True] * 4 + [False]
    wide = [np.abs(numpy_helper.to_array(c)).max() for c in model.graph.initializer if c.data_type == TensorProto.INT8]
    assert max(wide) <= 64


def test_int8_needs_two_products() -> None:
    model = onnx.load_from_string(linear_member(coefficients(1)[0]))
    assert int8(model, iter([{"X": np.zeros((1, 4), dtype=np.float32)}])) is None


def test_what_onnx_runtime_says_is_said(entry: Entry) -> None:
    with pytest.raises(ConversionFailed, match=r"ONNX Runtime cannot quantise it: "):
        int8(entry.candidate.model, iter([]))


def test_few_training_rows_are_all_looked_at(entry: Entry, dataset: Dataset) -> None:
    few = replace(dataset, train=Split(dataset.train.x[:100], dataset.train.y[:100]))
    member = train_quantised(_recipe("int8", tolerance=1, drift=1), task_with(entry, few))
    expected = int8(entry.candidate.model, iter([{"image": few.train.x}]))
    assert member.to_onnx() == expected


def test_only_large_constants_within_its_range_become_float16() -> None:
    """A matrix of 256 values does, one of 255 does not, nor one that float16 has no numbers for."""
    generator = np.random.default_rng(0)
    weights = {
        "large": generator.normal(size=(4, LEAST_VALUES // 4)),
        "far": generator.normal(size=(LEAST_VALUES // 4, 8)) * 1e6,
        "small": generator.normal(size=(8, 3)),
    }
    nodes, value = [], "X"
    for name in weights:
        nodes.append(helper.make_node("MatMul", [value, name], [value := f"after_{name}"]))
    nodes.append(helper.make_node("Softmax", [value], ["probabilities"], axis=1))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    made = float16(model)
    assert made is not None
    assert _constants(made) == {TensorProto.FLOAT16: [(4, 64)], TensorProto.FLOAT: [(64, 8), (8, 3)]}
    assert [node.op_type for node in made.graph.node] == ["Cast", "MatMul", "MatMul", "MatMul", "Softmax"]
    assert _constants(model) == {TensorProto.FLOAT: [(4, 64), (64, 8), (8, 3)]}
    assert float16(onnx.load_from_string(linear_member(coefficients(1)[0]))) is None
