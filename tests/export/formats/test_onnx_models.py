from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import skl2onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper
from sklearn.linear_model import LogisticRegression
from sklearn.tree import DecisionTreeClassifier

from export.adapt import member_of
from export.errors import ConversionFailed, InvalidModel, Mismatch, ParityError
from export.formats import Trust, load_model, source_of
from export.formats.onnx_models import with_free_batch
from export.graph import real_inputs
from export.parity import check_parity
from server.session import Session
from tests.export.small_models import N, of_table, of_vectors, pipeline, vectors

W = np.random.default_rng(0).normal(0, 1, (4, 3)).astype(np.float32)


def _parsed(text: str, **constants: Any) -> ModelProto:
    model = onnx.parser.parse_model(text)
    model.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()
    )
    return model


def _checked(model: ModelProto, dataset: Any = None) -> ModelProto:
    dataset = dataset or of_vectors()
    member = member_of(source_of(model), "m", dataset)
    graph = member.to_onnx()
    report = check_parity(member, graph, dataset)
    assert report.largest_difference < 1e-6
    return graph


def _softmax(x: np.ndarray) -> np.ndarray:
    exponentials = np.exp(x - x.max(axis=1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))


PLAIN = """
<ir_version: 8, opset_import: ["" : 13], producer_name: "pytorch", producer_version: "2.9">
g (float[n, 4] input) => (float[n, 3] output) { y = MatMul(input, W) output = Softmax<axis = 1>(y) }
"""


def test_a_plain_graph_is_brought_to_the_contract(tmp_path: Path) -> None:
    onnx.save(_parsed(PLAIN, W=W), tmp_path / "m.onnx")
    source = source_of(load_model(tmp_path / "m.onnx", Trust()))
    assert source.framework == "onnx pytorch 2.9"
    member = member_of(source, "m", of_vectors())
    x = of_vectors().test.x
    np.testing.assert_allclose(member.predict_proba(x), _softmax(x @ W), atol=1e-6)
    graph = member.to_onnx()
    assert [value.name for value in graph.graph.input] == ["x"]
    assert [value.name for value in graph.graph.output] == ["probabilities"]
    assert check_parity(member, graph, of_vectors()).largest_difference == 0


@pytest.mark.parametrize("zipmap", [True, False])
def test_dictionaries_of_probabilities_become_columns_with_the_names_of_classes(zipmap: bool) -> None:
    x, y = (part[: N // 2] for part in vectors())
    model = LogisticRegression().fit(x, np.array(["c", "a", "b"])[y])
    kind = skl2onnx.common.data_types.FloatTensorType([None, 4])
    graph = skl2onnx.to_onnx(
        model, initial_types=[("x", kind)], options={"zipmap": zipmap}, target_opset={"": 18, "ai.onnx.ml": 3}
    )
    dataset = of_vectors(classes=("b", "c", "a"))
    member = member_of(source_of(graph), "m", dataset)
    np.testing.assert_allclose(
        member.predict_proba(dataset.test.x), model.predict_proba(dataset.test.x)[:, [1, 2, 0]], atol=1e-6
    )
    _checked(graph, dataset)


def test_trees_are_known_to_answer_in_steps() -> None:
    x, y = (part[: N // 2] for part in vectors())
    kind = skl2onnx.common.data_types.FloatTensorType([None, 4])
    graph = skl2onnx.to_onnx(
        DecisionTreeClassifier().fit(x, y), initial_types=[("x", kind)], target_opset={"": 18, "ai.onnx.ml": 3}
    )
    source = source_of(graph)
    assert not source.smooth
    assert source.classes == ("0", "1", "2")
    _checked(graph)


def test_columns_of_a_table_go_by_their_names() -> None:
    dataset = of_table()
    pipe = pipeline(LogisticRegression(max_iter=300))
    graph = member_of(source_of(pipe), "first", dataset).to_onnx()
    assert {value.name for value in _checked(graph, dataset).graph.input} == {"age", "hours per week", "job", "town"}


def test_doubles_in_and_out_are_cast() -> None:
    model = _parsed(
        """
        <ir_version: 10, opset_import: ["" : 18]>
        g (double[n, 4] x) => (double[n, 3] p) { y = MatMul(x, W) p = Softmax <axis = 1> (y) }
        """,
        W=W.astype(np.float64),
    )
    graph = _checked(model)
    assert graph.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT
    assert graph.graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT


FIXED = """
<ir_version: 10, opset_import: ["" : 18]>
g (float[{batch}, 4] x) => (float[{batch}, 3] p)
<int64[2] shape = {{{batch}, 4}}>
{{ flat = Reshape(x, shape) y = MatMul(flat, W) p = Softmax <axis = 1> (y) }}
"""


@pytest.mark.parametrize("batch", [1, 8])
def test_a_graph_for_so_many_rows_takes_any_number(batch: int) -> None:
    model = _parsed(FIXED.format(batch=batch), W=W)
    graph = _checked(model)
    x, _ = vectors()
    session = Session(graph.SerializeToString(), where="m")
    for n in (1, 3, 17):
        (answer,) = session.run(["probabilities"], {"x": x[:n]})
        np.testing.assert_allclose(answer, _softmax(x[:n] @ W), atol=1e-6)


def test_a_graph_that_cannot_take_any_number_of_rows_is_caught() -> None:
    """It mixes the rows that it is made for."""
    model = _parsed(
        """
        <ir_version: 10, opset_import: ["" : 18]>
        g (float[2, 4] x) => (float[2, 3] p) { m = ReduceMean <keepdims = 1> (x, axis)
          c = Sub(x, m) y = MatMul(c, W) p = Softmax <axis = 1> (y) }
        """,
        W=W,
        axis=np.array([0]),
    )
    member = member_of(source_of(model), "m", of_vectors())
    with pytest.raises(ParityError, match="row 0 of 'validation'"):
        check_parity(member, member.to_onnx(), of_vectors())


def test_shapes_in_constants_are_freed_too() -> None:
    shape = numpy_helper.from_array(np.array([1, 4]), "value")
    model = _parsed(FIXED.format(batch=1).replace("<int64[2] shape = {1, 4}>", ""), W=W)
    model.graph.node.insert(0, helper.make_node("Constant", [], ["shape"], value=shape))
    freed = with_free_batch(model)
    assert numpy_helper.to_array(freed.graph.node[0].attribute[0].t).tolist() == [0, 4]
    assert numpy_helper.to_array(model.graph.node[0].attribute[0].t).tolist() == [1, 4]
    _checked(model)


def test_branches_inside_are_taken_along() -> None:
    model = _parsed(
        """
        <ir_version: 10, opset_import: ["" : 18]>
        g (float[n, 4] x) => (float[n, 3] p) <bool yes = {1}, float zero = {0}>
        {
            unused = Add(x, zero)
            y = If (yes) <
                then_branch = t () => (float[n, 3] a) { same = Identity(x) b = MatMul(same, W) a = Identity(b) },
                else_branch = e () => (float[n, 3] a) { b = MatMul(x, W) a = Neg(b) }
            >
            p = Softmax <axis = 1> (y)
        }
        """,
        W=W,
    )
    graph = _checked(model)
    assert [node.op_type for node in graph.graph.node] == ["If", "Softmax"]


def test_functions_of_the_models_own_are_written_out() -> None:
    model = _parsed(
        """
        <ir_version: 10, opset_import: ["" : 18, "own" : 1]>
        g (float[n, 4] x) => (float[n, 3] p) { y = MatMul(x, W) p = own.Normal(y) }
        <domain: "own", opset_import: ["" : 18]>
        Normal (v) => (w) { w = Softmax <axis = 1> (v) }
        """,
        W=W,
    )
    assert [node.op_type for node in _checked(model).graph.node] == ["MatMul", "Softmax"]


def test_constants_among_the_inputs_are_no_inputs() -> None:
    model = _parsed(PLAIN, W=W)
    model.graph.input.append(helper.make_tensor_value_info("W", TensorProto.FLOAT, [4, 3]))
    assert [value.name for value in real_inputs(model.graph)] == ["input"]
    _checked(model)


def test_one_probability_becomes_two_columns() -> None:
    model = _parsed(
        """
        <ir_version: 10, opset_import: ["" : 18]>
        g (float[n, 4] x) => (float[n] p) <int64[1] flat = {-1}>
        { y = MatMul(x, w) z = Sigmoid(y) p = Reshape(z, flat) }
        """,
        w=W[:, :1],
    )
    _checked(model, of_vectors(classes=("no", "yes")))


def _signature(inputs: str, outputs: str, body: str) -> ModelProto:
    return _parsed(f'<ir_version: 10, opset_import: ["" : 18]> g ({inputs}) => ({outputs}) {{ {body} }}')


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (_signature("bool[n, 4] x", "bool[n, 4] y", "y = Identity(x)"), r"got 'x' of BOOL \[\?, 4\]"),
        (_signature("float[n, 4] x", "int64[n] y", "y = ArgMax<axis = 1, keepdims = 0>(x)"), r"got \['y'\]"),
        (
            _signature("float[n, 4] x", "float[n, 4] a, float[n, 4] b", "a = Neg(x) b = Abs(x)"),
            r"expected one output of floats, .* got \['a', 'b'\]",
        ),
        (_signature("float[n, 4, 2] x", "float[n, 4, 2] y", "y = Neg(x)"), "got 3 dimensions"),
        (
            _signature("float[n, 4] x, float[n, 2] z", "float[n, 4] y", "y = Neg(x)"),
            r"expected one array, or columns \[n, 1\]; got 'x' of FLOAT \[\?, 4\], 'z'",
        ),
    ],
)
def test_graphs_that_are_no_classifiers_are_refused(model: ModelProto, message: str) -> None:
    with pytest.raises(InvalidModel, match=message):
        source_of(model)


def test_operators_of_others_are_refused() -> None:
    model = _parsed(
        """
        <ir_version: 10, opset_import: ["" : 18, "com.microsoft" : 1]>
        g (float[n, 4] x) => (float[n, 3] p) { y = com.microsoft.Gelu(x) z = MatMul(y, W) p = Softmax <axis = 1> (z) }
        """,
        W=W,
    )
    member = member_of(source_of(model), "m", of_vectors())
    with pytest.raises(ConversionFailed, match=r"member 'm': expected operators of ONNX .* got \['com.microsoft'\]"):
        member.to_onnx()


def test_columns_of_a_graph_without_shape_are_counted() -> None:
    model = _parsed(PLAIN, W=W)
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_param = "k"
    assert source_of(model).n_outputs == 3
    _checked(model)


def test_other_classes_are_refused() -> None:
    with pytest.raises(Mismatch, match="the model's classes are 3 without names; the data's are no, yes"):
        member_of(source_of(_parsed(PLAIN, W=W)), "m", of_vectors(classes=("no", "yes")))


def test_a_file_that_is_no_graph_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"no graph")
    with pytest.raises(InvalidModel, match=r"m\.onnx: expected an ONNX graph, got"):
        load_model(tmp_path / "m.onnx", Trust())
