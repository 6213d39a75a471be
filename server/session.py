"""The one module that knows ONNX Runtime: a loaded graph, and what its tensors look like."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.errors import InvalidRepository, MemberFailed, first_line
from server.graph_file import check_graph

CPU = ("cpu",)
PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "rocm": "ROCMExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "dml": "DmlExecutionProvider",
}
"""By the name that people use: ONNX Runtime's word for it. What comes first is preferred."""
TYPES = {"FP32": "tensor(float)", "BYTES": "tensor(string)"}
"""By datatype: ONNX Runtime's word for it."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, element type as ONNX Runtime writes it (`tensor(float)`), and shape; None where a dimension is free."""

    name: str
    type: str
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.type} {shown_shape(self.shape)}"


def shown_shape(shape: Sequence[int | None]) -> str:
    """`[n, 4]`: an `n` where a dimension is free."""
    return "[" + ", ".join("n" if size is None else str(size) for size in shape) + "]"


class Stop:
    """Ends runs that were given it, from any thread. ONNX Runtime looks at it between two nodes of a graph."""

    def __init__(self) -> None:
        import onnxruntime

        self.options = onnxruntime.RunOptions()
        self.options.log_severity_level = 4

    def __call__(self) -> None:
        self.options.terminate = True


class Session:
    """A graph, loaded from bytes, on `threads` intra-op threads, by the `providers` of these names.

    Raises InvalidRepository, naming `where`, if it is no graph that stands alone (`server.graph_file`), if ONNX Runtime
    does not take it, or would run it by other providers than these: it falls back to the CPU without a word.
    """

    def __init__(self, model: bytes, *, where: str, threads: int = 1, providers: Sequence[str] = CPU) -> None:
        check_graph(model, where=where)
        # It reports to Microsoft by default; whoever wants that may still set the variable to 0.
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
        # Not imported at the top: it may start threads, and no process that is to fork may have any of them.
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # what goes wrong is raised, and the log is JSON
        # Threads that spin while idle take the cores from the other workers' sessions. Those of a pool that sessions
        # share cannot be kept from it: each has its own.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.load_model_format", "ONNX")  # it would guess, and has one of its own
        # Weights in files beside the graph have been refused; should one be left, let it be found nowhere.
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
        self.where = where
        wanted = [PROVIDERS[name] for name in providers]
        there = onnxruntime.get_available_providers()
        if absent := [name for name in providers if PROVIDERS[name] not in there]:
            have = ", ".join(name for name, known in PROVIDERS.items() if known in there)
            raise InvalidRepository(f"{where}: expected provider {absent[0]!r}; this onnxruntime has {have}")
        try:
            # It would try again, by other providers, and say so on stdout.
            self._session = onnxruntime.InferenceSession(model, options, providers=wanted, enable_fallback=0)
        except Exception as exc:  # ONNX Runtime's exceptions have no base class of their own
            raise InvalidRepository(f"{where}: ONNX Runtime cannot load it: {first_line(exc)}") from exc
        got = self._session.get_providers()
        if lost := [name for name in providers if PROVIDERS[name] not in got]:
            raise InvalidRepository(
                f"{where}: expected provider {lost[0]!r}, got {', '.join(got)}: "
                "its libraries or its device are not there"
            )
        self.inputs = {arg.name: _spec(arg) for arg in self._session.get_inputs()}
        self.optional_inputs = {arg.name: _spec(arg) for arg in self._session.get_overridable_initializers()}
        self.outputs = {arg.name: _spec(arg) for arg in self._session.get_outputs()}

    def run(
        self, outputs: Sequence[str], feeds: Mapping[str, NDArray[Any]], stop: Stop | None = None
    ) -> list[NDArray[np.float32]]:
        """Run the graph once and return the named outputs. Raises MemberFailed, also if `stop` is called meanwhile."""
        try:
            return self._session.run(outputs, feeds, stop and stop.options)  # type: ignore[no-any-return]
        except Exception as exc:  # as above
            raise MemberFailed(f"{self.where}: {first_line(exc)}") from exc


def _spec(arg: Any) -> TensorSpec:
    shape = tuple(size if isinstance(size, int) else None for size in arg.shape)
    return TensorSpec(arg.name, arg.type, shape)
