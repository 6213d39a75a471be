"""How a model reads the ensemble's rows: said once, done twice, in numpy for the source and in ONNX for its graph.

A model has ports, the inputs of its graph. One that takes an array has one port, which reads a tensor of the ensemble,
or the columns of a table side by side. A pipeline over named columns has a port a column.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from server.rows import Rows

ELEMENTS: dict[int, Any] = {
    TensorProto.FLOAT: np.float32,
    TensorProto.DOUBLE: np.float64,
    TensorProto.UINT8: np.uint8,
    TensorProto.INT32: np.int32,
    TensorProto.INT64: np.int64,
    TensorProto.STRING: object,
}
"""Elements that a port may want: ONNX's number for them, and numpy's type."""


@dataclass(frozen=True, slots=True)
class Port:
    """One input of a model.

    It reads `inputs` of the ensemble, joined along the last axis, and wants rows of `shape`, of `element`. With
    `channels_first` the last axis, the pictures' channels, goes to the front.
    """

    name: str
    inputs: tuple[str, ...]
    shape: tuple[int, ...]
    element: int = TensorProto.FLOAT
    channels_first: bool = False
    reshaped: bool = False


@dataclass(frozen=True, slots=True)
class Reading:
    """All of a model's ports, and the scaling of numbers in front of them: `x * scale + shift`.

    `scale` and `shift` are scalars, or have an entry for each place of the last axis.
    """

    ports: tuple[Port, ...]
    scale: NDArray[np.float32] | None = None
    shift: NDArray[np.float32] | None = None

    @property
    def inputs(self) -> list[str]:
        """The ensemble's inputs that the model reads."""
        return list(dict.fromkeys(name for port in self.ports for name in port.inputs))

    @property
    def scaled(self) -> bool:
        return self.scale is not None or self.shift is not None

    def arrays(self, rows: Rows) -> list[NDArray[Any]]:
        """What each port reads of the rows, `(n, *shape)`."""
        return [self._array(port, rows) for port in self.ports]

    def _array(self, port: Port, rows: Rows) -> NDArray[Any]:
        if rows.dtype.names is None:
            values: NDArray[Any] = rows
        else:
            values = np.concatenate([rows[name] for name in port.inputs], axis=-1)
        if values.dtype != object:
            values = values if self.scale is None else values * self.scale
            values = values if self.shift is None else values + self.shift
        if port.channels_first:
            values = np.moveaxis(values, -1, 1)
        return np.ascontiguousarray(values.reshape(len(rows), *port.shape)).astype(ELEMENTS[port.element], copy=False)

    def nodes(self, targets: Sequence[str]) -> tuple[list[NodeProto], list[TensorProto]]:
        """Nodes, and their constants, from the ensemble's inputs to the values of these names, one a port."""
        draft = _Draft()
        for port, target in zip(self.ports, targets, strict=True):
            value = port.inputs[0]
            if len(port.inputs) > 1:
                value = draft.add("Concat", list(port.inputs), axis=-1)
            if port.element != TensorProto.STRING:
                for operator, constant in (("Mul", self.scale), ("Add", self.shift)):
                    if constant is not None:
                        value = draft.add(operator, [value, draft.constant(constant)])
            if port.channels_first:
                last = len(port.shape)
                value = draft.add("Transpose", [value], perm=[0, last, *range(1, last)])
            if port.reshaped:
                value = draft.add("Reshape", [value, draft.constant(np.array([-1, *port.shape], dtype=np.int64))])
            if port.element not in (TensorProto.FLOAT, TensorProto.STRING):
                value = draft.add("Cast", [value], to=port.element)
            draft.nodes.append(helper.make_node("Identity", [value], [target]))
        return draft.nodes, draft.constants


class _Draft:
    """Nodes being written, each with one output."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []

    def add(self, operator: str, inputs: list[str], **attributes: Any) -> str:
        output = f"/read/{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def constant(self, value: NDArray[Any]) -> str:
        name = f"/read/constant/{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(value, name))
        return name
