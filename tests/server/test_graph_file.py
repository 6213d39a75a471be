from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from server.errors import InvalidRepository
from server.graph_file import check_graph
from server.session import Session
from tests import tiny

GOOD = tiny.linear_member(tiny.coefficients(1)[0])
SECRET = b"0123456789abcdef"


def refusal(data: bytes) -> str:
    with pytest.raises(InvalidRepository) as caught:
        check_graph(data, where="m1.onnx")
    message = str(caught.value)
    assert message.startswith("m1.onnx: expected ")
    assert "\n" not in message
    return message


def external(location: str) -> onnx.TensorProto:
    """A tensor whose numbers are in another file, or, by a name that ONNX Runtime knows, in the process's memory."""
    tensor = onnx.TensorProto(name="W", data_type=TensorProto.UINT8, dims=[16], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", "0"), ("length", "16")):
        tensor.external_data.add(key=key, value=value)
    return tensor


def in_initializer(tensor: onnx.TensorProto) -> onnx.ModelProto:
    model = onnx.load_from_string(GOOD)
    model.graph.initializer.append(tensor)
    return model


def in_constant(tensor: onnx.TensorProto) -> onnx.ModelProto:
    model = onnx.load_from_string(GOOD)
    model.graph.node.append(helper.make_node("Constant", [], ["c"], value=tensor))
    return model


def in_sparse(tensor: onnx.TensorProto) -> onnx.ModelProto:
    model = onnx.load_from_string(GOOD)
    indices = numpy_helper.from_array(np.arange(16, dtype=np.int64))
    model.graph.sparse_initializer.append(onnx.SparseTensorProto(values=tensor, indices=indices, dims=[16]))
    return model


def in_branch(tensor: onnx.TensorProto) -> onnx.ModelProto:
    model = onnx.load_from_string(GOOD)
    output = helper.make_tensor_value_info("W", TensorProto.UINT8, [16])
    branch = helper.make_graph([], "branch", [], [output], [tensor])
    inner = helper.make_graph(
        [helper.make_node("If", ["c"], ["W"], then_branch=branch, else_branch=branch)], "outer", [], [output]
    )
    model.graph.node.append(helper.make_node("If", ["c"], ["o"], then_branch=inner, else_branch=inner))
    return model


def in_function(tensor: onnx.TensorProto) -> onnx.ModelProto:
    model = onnx.load_from_string(GOOD)
    constant = helper.make_node("Constant", [], ["b"], value=tensor)
    model.functions.append(helper.make_function("own", "F", ["a"], ["b"], [constant], [helper.make_opsetid("", 17)]))
    return model


PLACES = [in_initializer, in_constant, in_sparse, in_branch, in_function]


class TestWeights:
    @pytest.mark.parametrize("place", PLACES)
    @pytest.mark.parametrize("location", ["/etc/passwd", "w.bin", "../w.bin", "*/_ORT_MEM_ADDR_/*", ""])
    def test_are_in_the_file(self, place: Callable[[onnx.TensorProto], onnx.ModelProto], location: str) -> None:
        data = place(external(location)).SerializeToString()
        assert refusal(data) == "m1.onnx: expected all weights in the graph; got some in another file"

    @pytest.mark.parametrize("place", PLACES)
    def test_the_least_hint_will_do(self, place: Callable[[onnx.TensorProto], onnx.ModelProto]) -> None:
        """The place without the name, and the name without the place."""
        located, named = external("w.bin"), external("w.bin")
        del located.external_data[:]
        named.data_location = TensorProto.DEFAULT
        for tensor in (located, named):
            assert "in another file" in refusal(place(tensor).SerializeToString())

    @pytest.mark.parametrize("place", PLACES)
    def test_that_are_there_are_good(self, place: Callable[[onnx.TensorProto], onnx.ModelProto]) -> None:
        data = place(numpy_helper.from_array(np.zeros(16, np.uint8), "W")).SerializeToString()
        check_graph(data, where="m1.onnx")

    def test_a_session_never_opens_another_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "w.bin").write_bytes(SECRET)
        monkeypatch.chdir(tmp_path)
        with pytest.raises(InvalidRepository, match="got some in another file"):
            Session(in_initializer(external("w.bin")).SerializeToString(), where="m1.onnx")


class TestOperators:
    def test_of_other_libraries(self) -> None:
        model = onnx.load_from_string(GOOD)
        model.graph.node.append(helper.make_node("Op", ["X"], ["o"], domain="com.evil"))
        assert refusal(model.SerializeToString()).endswith("operators of ONNX and ONNX Runtime; got some of 'com.evil'")

    def test_of_the_file_itself(self) -> None:
        model = onnx.load_from_string(GOOD)
        relu = helper.make_node("Relu", ["a"], ["b"])
        model.functions.append(helper.make_function("own", "F", ["a"], ["b"], [relu], [helper.make_opsetid("", 17)]))
        model.opset_import.append(helper.make_opsetid("own", 1))
        model.graph.node.append(helper.make_node("F", ["X"], ["o"], domain="own"))
        check_graph(model.SerializeToString(), where="m1.onnx")

    @pytest.mark.parametrize("domain", ["ai.onnx.ml", "com.microsoft", "ai.onnx"])
    def test_that_onnx_runtime_has(self, domain: str) -> None:
        model = onnx.load_from_string(GOOD)
        model.opset_import.append(helper.make_opsetid(domain, 1))
        check_graph(model.SerializeToString(), where="m1.onnx")


class TestForm:
    def test_trees(self) -> None:
        """Thousands of numbers and words, each a field."""
        n = 5000
        node = helper.make_node(
            "TreeEnsembleClassifier",
            ["X"],
            ["label", "p"],
            domain="ai.onnx.ml",
            nodes_values=[0.5] * n,
            nodes_treeids=list(range(n)),
            nodes_modes=["BRANCH_LEQ", "LEAF"] * n,
            names=["x" * 100] * 3,
        )
        check_graph(helper.make_model(helper.make_graph([node], "g", [], [])).SerializeToString(), where="x")

    def test_onnx_runtimes_own(self) -> None:
        assert "ONNX Runtime's own format" in refusal(b"\x18\0\0\0ORTM" + bytes(100))

    @pytest.mark.parametrize("data", [b"hello world", b"PK\x03\x04" + bytes(100), b"\xff" * 20, b"\x0d\x01", b"\x80"])
    def test_what_is_none(self, data: bytes) -> None:
        assert "got bytes that are none: " in refusal(data)

    def test_what_is_cut_short(self) -> None:
        for size in (1, 10, 50):
            with pytest.raises(InvalidRepository):
                Session(GOOD[:-size], where="m1.onnx")

    def test_too_deep(self) -> None:
        data = b""
        for _ in range(80):  # graph, node, attribute, graph, …
            for key in (0x32, 0x2A, 0x0A):  # attribute.g, node.attribute, graph.node
                size = len(data)
                length = bytes([size & 0x7F | 0x80, size >> 7 & 0x7F | 0x80, size >> 14])
                data = bytes([key]) + length + data
        size = len(data)
        data = bytes([0x3A, size & 0x7F | 0x80, size >> 7 & 0x7F | 0x80, size >> 14]) + data
        assert "nested more than 64 deep" in refusal(data)


@given(st.data())
def test_whatever_comes_is_let_through_or_refused(data: st.DataObject) -> None:
    model = bytearray(in_branch(numpy_helper.from_array(np.zeros(16, np.uint8), "W")).SerializeToString())
    for _ in range(data.draw(st.integers(1, 6))):
        model[data.draw(st.integers(0, len(model) - 1))] = data.draw(st.integers(0, 255))
    try:
        check_graph(bytes(model), where="m1.onnx")
    except InvalidRepository:
        return


@given(st.sampled_from(PLACES), st.data())
def test_no_other_file_goes_by(place: Callable[[onnx.TensorProto], onnx.ModelProto], data: st.DataObject) -> None:
    """What the reference parser finds in a damaged file, this finds too."""
    model = bytearray(place(external("w.bin")).SerializeToString())
    for _ in range(data.draw(st.integers(0, 3))):
        model[data.draw(st.integers(0, len(model) - 1))] = data.draw(st.integers(0, 255))
    try:
        parsed = onnx.load_from_string(bytes(model))
    except Exception:  # no ONNX any more
        return
    tensors = [*parsed.graph.initializer, *(sparse.values for sparse in parsed.graph.sparse_initializer)]
    if any(tensor.external_data or tensor.data_location for tensor in tensors):
        refusal(bytes(model))
