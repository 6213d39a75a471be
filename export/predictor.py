"""A member's graph as it answers on a server: through the server's own session."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from export.convert import OUTPUT
from server.rows import Rows, split_rows
from server.session import Session

BATCH = 256


class Predictor:
    """Calls a graph that keeps the contract of members; `name` is its member's, for messages."""

    def __init__(self, model: ModelProto, name: str) -> None:
        self._session = Session(model.SerializeToString(), where=f"{name}.onnx", threads=2)

    def feeds(self, rows: Rows) -> Iterator[dict[str, NDArray[Any]]]:
        """The rows in batches, as the graph's inputs take them."""
        for start in range(0, len(rows), BATCH):
            yield split_rows(rows[start : start + BATCH], self._session.inputs)

    def __call__(self, rows: Rows) -> NDArray[np.float32]:
        """Probabilities `(n, n_classes)`."""
        return np.concatenate([self._session.run([OUTPUT], feeds)[0] for feeds in self.feeds(rows)])
