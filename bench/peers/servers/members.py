"""What each peer does with a request's rows: asks the members, one session each, and averages what they answer.

It stands in the environments of all peers, so it needs nothing but numpy and ONNX Runtime.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray


class Member:
    """One graph, from `image (n, 28, 28, 1)` to `probabilities (n, n_classes)`, on one thread."""

    def __init__(self, path: Path) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Threads that spin while they wait take the cores from the server around them.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        (self._input,) = (value.name for value in self._session.get_inputs())

    def __call__(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Rows `(n, 784)` to probabilities `(n, n_classes)`."""
        fed = {self._input: np.ascontiguousarray(rows, dtype=np.float32).reshape(-1, 28, 28, 1)}
        answer: Any = self._session.run(None, fed)[0]
        return np.asarray(answer, dtype=np.float32)


class Members:
    """The members of the folder that the variable `MEMBERS` names, in the order of their files' names."""

    def __init__(self) -> None:
        self._members = [Member(path) for path in member_files()]

    def __call__(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Rows `(n, 784)` to the mean of the members' probabilities, `(n, n_classes)`."""
        total = self._members[0](rows)
        for member in self._members[1:]:
            total = total + member(rows)
        mean: NDArray[np.float32] = total * np.float32(1 / len(self._members))
        return mean


def member_files() -> list[Path]:
    """The graphs of the folder that the variable `MEMBERS` names."""
    return sorted(Path(os.environ["MEMBERS"]).glob("*.onnx"))
