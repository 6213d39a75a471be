from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from export.answer import Answer
from export.convert import normalised
from export.errors import ConversionFailed
from export.reading import Port, Reading
from export.recipe import Member
from server.manifest import InputSpec
from server.session import Session
from tests.export.small import CNN, TREE, XGB, digits, train
from tests.tiny import linear_member

SPEC = InputSpec(name="X", shape=[4])


def _normalised(model: ModelProto, spec: InputSpec = SPEC, n_classes: int = 3) -> ModelProto:
    """A model of one input `X (n, 4)`, made a member of an ensemble of one input."""
    reading = Reading((Port("X", (spec.name,), (4,), reshaped=spec.shape != [4]),))
    return normalised(model, reading, Answer(n_classes, tuple(range(n_classes))), [spec], output="probabilities")


def _run(model: ModelProto, x: NDArray[np.float32], name: str = "X") -> NDArray[np.float32]:
    return Session(model.SerializeToString(), where="test").run(["probabilities"], {name: x})[0]


def _linear(
    nodes: Sequence[NodeProto] = (),
    *,
    outputs: Sequence[str] = ("probabilities",),
    opset: int = 18,
    domains: Sequence[tuple[str, int]] = (),
    width: int = 3,
) -> ModelProto:
    """The tiny linear member, with more nodes in front of its own."""
    model = onnx.load_from_string(linear_member(np.ones((4, width), dtype=np.float32)))
    own = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *own])
    del model.graph.output[:]
    model.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", width]) for name in outputs)
    del model.opset_import[:]
    model.opset_import.extend(helper.make_opsetid(*domain) for domain in [("", opset), *domains])
    return model


@pytest.mark.parametrize("recipe", [CNN, TREE, XGB], ids=lambda recipe: str(recipe.kind))
def test_every_family_keeps_the_contract(recipe: Member) -> None:
    dataset = digits()
    member = train(recipe, dataset)
    model = member.to_onnx()
    session = Session(model.SerializeToString(), where=member.name)
    (image,), (probabilities,) = session.inputs.values(), session.outputs.values()
    assert (image.name, image.type, image.shape) == ("image", "tensor(float)", (None, 8, 8, 1))
    assert (probabilities.name, probabilities.type) == ("probabilities", "tensor(float)")
    assert probabilities.shape == (None, 10)
    assert {opset.domain: opset.version for opset in model.opset_import} == {"": 18, "ai.onnx.ml": 3}
    assert model.ir_version == 10
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "n"
    assert model.graph.output[0].type.tensor_type.shape.dim[0].dim_param == "n"
    for rows in (dataset.test.x, dataset.test.x[:1], dataset.test.x[:0]):
        np.testing.assert_allclose(
            _run(model, rows, "image"), member.predict_proba(dataset.test.x)[: len(rows)], atol=1e-5
        )


def test_graphs_are_lean() -> None:
    dataset = digits()
    cnn, tree, xgb = (train(recipe, dataset).to_onnx() for recipe in (CNN, TREE, XGB))
    lean = ["Mul", "Reshape", "Conv", "Relu", "MaxPool", "Transpose", "Reshape", "MatMul", "Add", "Softmax"]
    assert [node.op_type for node in cnn.graph.node] == lean
    for model in (tree, xgb):
        assert [node.op_type for node in model.graph.node] == ["Reshape", "TreeEnsembleClassifier"]
    constants = {initializer.name for initializer in cnn.graph.initializer}
    assert constants == {name for node in cnn.graph.node for name in node.input if name.startswith("constant/")}


def test_the_model_given_is_left_as_it_is() -> None:
    model = _linear()
    before = model.SerializeToString()
    _normalised(model)
    assert model.SerializeToString() == before


def test_what_changes_nothing_is_dropped() -> None:
    nodes = [
        helper.make_node("Identity", ["X"], ["same"]),
        helper.make_node("Add", ["same", "zero"], ["still"]),
        helper.make_node("Constant", [], ["unused"], value_float=1.0),
    ]
    model = _linear(nodes)
    model.graph.initializer.append(numpy_helper.from_array(np.array(0, dtype=np.float32), "zero"))
    model.graph.node[3].input[0] = "still"
    result = _normalised(model)
    assert [node.op_type for node in result.graph.node] == ["MatMul", "Softmax"]
    assert [initializer.name for initializer in result.graph.initializer] == ["constant/0"]
    np.testing.assert_allclose(_run(result, np.ones((2, 4), dtype=np.float32)), 1 / 3, atol=1e-6)


def test_other_outputs_go_with_the_nodes_that_only_they_need() -> None:
    label = helper.make_node("ReduceSum", ["X"], ["label"], keepdims=1)
    result = _normalised(_linear([label], outputs=("label", "probabilities")))
    assert [node.op_type for node in result.graph.node] == ["MatMul", "Softmax"]
    assert [output.name for output in result.graph.output] == ["probabilities"]


def test_a_flat_model_is_given_the_inputs_shape() -> None:
    x = np.random.default_rng(0).random((2, 2, 2, 1), dtype=np.float32)
    result = _normalised(_linear(), InputSpec(name="image", shape=[2, 2, 1]))
    np.testing.assert_array_equal(_run(result, x, "image"), _run(_linear(), x.reshape(2, 4)))


def test_an_older_opset_is_brought_to_ours_even_beside_trees() -> None:
    nodes = [
        helper.make_node("Split", ["X"], ["left", "right"], axis=1),
        helper.make_node("Concat", ["right", "left"], ["swapped"], axis=1),
        helper.make_node("Normalizer", ["swapped"], ["normal"], domain="ai.onnx.ml", norm="L1"),
    ]
    model = _linear(nodes, opset=13, domains=[("ai.onnx.ml", 1)])
    model.graph.node[3].input[0] = "normal"
    x = np.random.default_rng(0).random((5, 4), dtype=np.float32)
    result = _normalised(model)
    assert {opset.domain: opset.version for opset in result.opset_import} == {"": 18, "ai.onnx.ml": 3}
    np.testing.assert_allclose(_run(result, x), _run(model, x), atol=1e-7)


def test_a_reshape_that_mixes_rows_is_left_alone() -> None:
    """Only one that keeps the batch dimension in front, and knows the others, gets a constant shape."""
    nodes = [
        helper.make_node("Reshape", ["X", "column"], ["tall"]),
        helper.make_node("Reshape", ["tall", "four"], ["rows"]),
    ]
    model = _linear(nodes)
    model.graph.initializer.extend(
        [numpy_helper.from_array(np.array(shape), name) for shape, name in (([-1, 1], "column"), ([-1, 4], "four"))]
    )
    model.graph.node[2].input[0] = "rows"
    x = np.random.default_rng(0).random((5, 4), dtype=np.float32)
    np.testing.assert_array_equal(_run(_normalised(model), x), _run(model, x))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (_linear(width=2), r"expected 3 columns, one a class, got \[n, 2\]"),
        (_linear(outputs=("logits",)), "expected an output 'probabilities' of floats, got 'logits' of FLOAT"),
        (_linear([helper.make_node("Gelu", ["X"], ["y"], domain="com.microsoft")]), r"got \['com.microsoft'\]"),
        (_linear(domains=[("ai.onnx.ml", 5)]), r"ai.onnx.ml up to version 3, got \{.*'ai.onnx.ml': 5\}"),
        (
            _linear([helper.make_node("Gelu", ["X"], ["probabilities"])]),
            "expected operators of ONNX, got Gelu, which it does not have",
        ),
    ],
)
def test_what_cannot_keep_the_contract_is_refused(model: ModelProto, message: str) -> None:
    with pytest.raises(ConversionFailed, match=message):
        _normalised(model)


def test_two_inputs_are_refused() -> None:
    model = _linear()
    model.graph.input.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["n", 4]))
    with pytest.raises(ConversionFailed, match=r"expected no inputs but \['X'\], got also \['mask'\]"):
        _normalised(model)
