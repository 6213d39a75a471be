"""What threads of a graph gain, and whether they spin: `python -m bench.threads`. On Linux.

Five sessions over the same six products of 512 by 512, run in turn as an ensemble of hand-made files is. Each way has a
process of its own, for a pool for all sessions can be made once a process only.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console
from rich.table import Table

SESSIONS, LAYERS, WIDTH, ROWS = 5, 6, 512, (1, 64)
SECONDS, PAUSE = 2.0, 0.05
ONE, OWN, SPINNING, POOL = "one thread", "its own, that do not spin", "its own, that spin", "a pool for all sessions"
WAYS = (ONE, OWN, SPINNING, POOL)
THREADS = 2


def main() -> int:
    if len(sys.argv) > 1:
        print(*_measure(sys.argv[1]))  # noqa: T201
        return 0
    table = Table("threads of each session", *(f"{n} rows, ms" for n in ROWS), "busy at 20 rows a second")
    for way in WAYS:
        command = [sys.executable, "-m", "bench.threads", way]
        *times, busy = map(float, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
        table.add_row(way, *(f"{seconds * 1000:.2f}" for seconds in times), f"{busy:.0%}")
    Console().print(table)
    return 0


def _measure(way: str) -> list[float]:
    """Seconds for each number of rows, the shortest of many; and how busy the processor is while few rows come."""
    run = _open(way)
    found = []
    for n in ROWS:
        run(n)
        end, shortest = time.perf_counter() + SECONDS, float("inf")
        while (began := time.perf_counter()) < end:
            run(n)
            shortest = min(shortest, time.perf_counter() - began)
        found.append(shortest)
    began, busy = time.perf_counter(), time.process_time()
    while time.perf_counter() - began < SECONDS:
        run(1)
        time.sleep(PAUSE)
    return [*found, (time.process_time() - busy) / (time.perf_counter() - began)]


def _open(way: str) -> Callable[[int], None]:
    options = onnxruntime.SessionOptions()
    options.inter_op_num_threads = 1
    options.intra_op_num_threads = 1 if way == ONE else THREADS
    if way == POOL:
        onnxruntime.set_global_thread_pool_sizes(THREADS, 1)
        options.use_per_session_threads = False
    elif way == OWN:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    sessions = [onnxruntime.InferenceSession(_model(), options) for _ in range(SESSIONS)]
    rows = {n: np.random.default_rng(1).normal(0, 1, (n, WIDTH)).astype(np.float32) for n in ROWS}

    def run(n: int) -> None:
        for session in sessions:
            session.run(None, {"0": rows[n]})

    return run


def _model() -> bytes:
    weights = np.random.default_rng(0).normal(0, 0.05, (WIDTH, WIDTH)).astype(np.float32)
    nodes = [helper.make_node("MatMul", [str(k), "weights"], [str(k + 1)]) for k in range(LAYERS)]
    ends = [helper.make_tensor_value_info(str(k), TensorProto.FLOAT, ["n", WIDTH]) for k in (0, LAYERS)]
    graph = helper.make_graph(nodes, "products", ends[:1], ends[1:], [numpy_helper.from_array(weights, "weights")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return bytes(model.SerializeToString())


if __name__ == "__main__":
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    sys.exit(main())
