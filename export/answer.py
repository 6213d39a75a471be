"""How a model's outputs become probabilities of the ensemble's classes: in numpy for the source, in ONNX for its graph.

outputs (n, k) ─ softmax, or the sigmoid of one, if they are logits ─ p becomes (1 - p, p) ─ columns in order
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper


@dataclass(frozen=True, slots=True)
class Answer:
    """`n_outputs` columns, logits or probabilities; `order (n_classes,)` names the column of each of the classes.

    One column alone is the second class's of two.
    """

    n_outputs: int
    order: tuple[int, ...]
    logits: bool = False

    def probabilities(self, outputs: NDArray[Any]) -> NDArray[np.float64]:
        """`(n, k)` → `(n, n_classes)`."""
        values = np.asarray(outputs, dtype=np.float64).reshape(-1, self.n_outputs)
        if self.logits:
            values = _softmax(values) if self.n_outputs > 1 else np.exp(-np.logaddexp(0, -values))
        return self._ordered(np.concatenate([1 - values, values], axis=1) if self.n_outputs == 1 else values)

    def scores(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        """Logits `(n, k)` in the order of the classes; of one alone, which says how much likelier the second is."""
        values = logits.reshape(-1, self.n_outputs)
        return self._ordered(np.concatenate([np.zeros_like(values), values], axis=1) if self.n_outputs == 1 else values)

    def nodes(self, source: ValueInfoProto, target: str) -> tuple[list[NodeProto], list[TensorProto]]:
        """Nodes, and their constants, from the model's output to probabilities in float32."""
        nodes: list[NodeProto] = []
        constants: dict[str, NDArray[Any]] = {}

        def add(operator: str, *inputs: str, **attributes: Any) -> None:
            read = [nodes[-1].output[0] if nodes else source.name] if not inputs else list(inputs)
            nodes.append(helper.make_node(operator, read, [f"/answer/{len(nodes)}"], **attributes))

        if source.type.tensor_type.elem_type != TensorProto.FLOAT:
            add("Cast", to=TensorProto.FLOAT)
        if len(source.type.tensor_type.shape.dim) != 2:
            constants["/answer/shape"] = np.array([-1, self.n_outputs], dtype=np.int64)
            add("Reshape", nodes[-1].output[0] if nodes else source.name, "/answer/shape")
        if self.logits:
            add("Softmax", axis=1) if self.n_outputs > 1 else add("Sigmoid")
        if self.n_outputs == 1:
            constants["/answer/one"] = np.array(1, dtype=np.float32)
            p = nodes[-1].output[0] if nodes else source.name
            add("Sub", "/answer/one", p)
            add("Concat", nodes[-1].output[0], p, axis=1)
        if self.order != tuple(range(len(self.order))):
            constants["/answer/order"] = np.array(self.order, dtype=np.int64)
            add("Gather", nodes[-1].output[0] if nodes else source.name, "/answer/order", axis=1)
        add("Identity")
        nodes[-1].output[0] = target
        return nodes, [numpy_helper.from_array(value, name) for name, value in constants.items()]

    def _ordered(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(values[:, list(self.order)])


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))
