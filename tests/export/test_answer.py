from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from export.answer import Answer
from server.session import Session


def _in_onnx(answer: Answer, values: np.ndarray, element: int = TensorProto.FLOAT) -> np.ndarray:
    shape = ["n", *values.shape[1:]]
    source = helper.make_tensor_value_info("y", element, shape)
    nodes, constants = answer.nodes(source, "probabilities")
    output = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", len(answer.order)])
    graph = helper.make_graph(nodes, "tail", [source], [output], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return np.asarray(Session(model.SerializeToString(), where="tail").run(["probabilities"], {"y": values})[0])


SIGMOID = 1 / (1 + np.exp(-1.5))
THREE = np.exp([0.0, 1.0, 2.0]) / np.exp([0.0, 1.0, 2.0]).sum()


@pytest.mark.parametrize(
    ("answer", "outputs", "expected"),
    [
        (Answer(3, (0, 1, 2)), [[0.2, 0.3, 0.5]], [[0.2, 0.3, 0.5]]),
        (Answer(3, (2, 0, 1)), [[0.2, 0.3, 0.5]], [[0.5, 0.2, 0.3]]),
        (Answer(3, (0, 2, 1), logits=True), [[0.0, 1.0, 2.0]], [THREE[[0, 2, 1]]]),
        (Answer(1, (0, 1)), [[0.25]], [[0.75, 0.25]]),
        (Answer(1, (1, 0)), [0.25], [[0.25, 0.75]]),
        (Answer(1, (0, 1), logits=True), [[1.5]], [[1 - SIGMOID, SIGMOID]]),
        (Answer(2, (0, 1), logits=True), [[0.0, 1.5]], [[1 - SIGMOID, SIGMOID]]),
    ],
)
def test_outputs_become_probabilities_in_both(answer: Answer, outputs: list[Any], expected: list[Any]) -> None:
    values = np.array(outputs, dtype=np.float32)
    np.testing.assert_allclose(answer.probabilities(values), expected, atol=1e-6)
    np.testing.assert_allclose(_in_onnx(answer, values), expected, atol=1e-6)
    np.testing.assert_allclose(_in_onnx(answer, values.astype(np.float64), TensorProto.DOUBLE), expected, atol=1e-6)


def test_scores_are_in_the_order_of_the_classes() -> None:
    np.testing.assert_array_equal(Answer(3, (2, 0, 1), logits=True).scores(np.array([[1.0, 2.0, 3.0]])), [[3, 1, 2]])
    np.testing.assert_array_equal(Answer(1, (0, 1), logits=True).scores(np.array([[4.0]])), [[0, 4]])
