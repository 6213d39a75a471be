"""What members cost: microseconds a row, measured on the server's own session."""

from collections.abc import Mapping
from time import thread_time

import numpy as np
from onnx import ModelProto

from export.convert import OUTPUT
from server.rows import Rows, split_rows
from server.session import Session

BATCH = 64
REPEATS = 30


def measure_costs(models: Mapping[str, ModelProto], rows: Rows, *, repeats: int = REPEATS) -> dict[str, float]:
    """Microseconds a row of each member alone, on one thread: the median of `repeats` calls with `BATCH` rows.

    Processor time, not time on the clock: a session of one thread runs in the thread that calls it, and what else the
    machine is doing does not count. The members take turns, call by call, so that what still falls on them falls on all
    alike: their ratios are surer than the figures.
    """
    batch = rows[:BATCH]
    sessions = {
        name: Session(model.SerializeToString(), where=f"{name}.onnx", threads=1) for name, model in models.items()
    }
    feeds = {name: split_rows(batch, session.inputs) for name, session in sessions.items()}
    times: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(repeats + 1):
        for name, session in sessions.items():
            start = thread_time()
            session.run([OUTPUT], feeds[name])
            times[name].append(thread_time() - start)
    # Without the first call of each, which warms up.
    return {name: float(np.median(taken[1:])) / len(batch) * 1e6 for name, taken in times.items()}


def measure_cost(model: ModelProto, rows: Rows) -> float:
    """Microseconds a row of one member."""
    return measure_costs({"member": model}, rows)["member"]
