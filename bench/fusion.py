"""What the fusion engine costs, and what it bears: `python -m bench.fusion`, written to bench/results/fusion.json.

- A subset of the members costs those members and a little more: the packed graph against each member's graph alone.
- Requests of different strategies in one batch against requests of one.
- The cascade against all members, at batches of 64 real rows.
- A member that hangs for ever, and one that fails every other time: how late the others' answers are, what is lost.

Compared are only times of one run, taken in turn; medians.
"""

import asyncio
import json
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper
from rich.console import Console
from rich.progress import track
from rich.table import Table

from export.datasets import load_dataset
from server import telemetry
from server.engine import Engine, Limits
from server.ensemble import Ensemble
from server.plan import Options, make_plan
from server.predicting import predict
from server.repository import Repository, load_version
from server.session import Session
from tests import faulty

RESULTS = Path("bench/results/fusion.json")
FASHION = (Path("models/fashion/1"), Path("models/fashion/3"))
ROUNDS = 300
HANGS = 200
HANG_MS = 150
HALVES = 400


def main() -> int:
    console = Console()
    found: dict[str, Any] = {}
    for folder in FASHION:
        ensemble = load_version(folder)
        name = f"{ensemble.manifest.name} {ensemble.manifest.version}"
        found[name] = {"subset": subsets(folder, ensemble), "mixed": asyncio.run(mixed(ensemble))}
        if "cascade" in ensemble.strategies:
            found[name]["cascade"] = cascade(ensemble)
    found["hanging member"] = asyncio.run(hanging())
    found["member that fails half the time"] = asyncio.run(half_failing())
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(found, indent=2) + "\n")
    console.print(_table(found))
    console.print(str(RESULTS))
    return 0


# ---- Costs ----------------------------------------------------------------------------------------------------------


def subsets(folder: Path, ensemble: Ensemble) -> dict[str, dict[str, float]]:
    """Microseconds of a call with one row: of each member's graph alone, and of the ensemble asked for it alone."""
    model = onnx.load(folder / ensemble.manifest.members[0].file)
    row = _pixels(1)
    calls: dict[str, Callable[[], object]] = {}
    for index, name in enumerate(ensemble.names):
        alone = Session(_unpacked(model, name), where=name)
        calls[f"{name} alone"] = lambda alone=alone: alone.run(list(alone.outputs), {"image": row})  # type: ignore[misc]
        calls[f"{name} of the ensemble"] = lambda index=index: ensemble.ask(row, (index,))  # type: ignore[misc]
    took = _in_turn(calls)
    return {
        name: {
            "alone_us": took[f"{name} alone"],
            "of_the_ensemble_us": took[f"{name} of the ensemble"],
            "more_us": round(took[f"{name} of the ensemble"] - took[f"{name} alone"], 1),
        }
        for name in ensemble.names
    }


async def mixed(ensemble: Ensemble) -> dict[str, float]:
    """64 requests of one row at once: all of one strategy, each in turn, and of all strategies."""
    engine = Engine(Repository([ensemble]), default=ensemble.manifest.name)
    pools = [name for name in ensemble.strategies if name not in ("stacking", "cascade")]
    rows = [_pixels(1, seed) for seed in range(64)]

    def asking(strategies: Sequence[str]) -> Callable[[], Awaitable[object]]:
        options = [Options(strategy=strategies[k % len(strategies)]) for k in range(64)]
        return lambda: asyncio.gather(*(engine.infer(ensemble, x, o) for x, o in zip(rows, options, strict=True)))

    calls = {**{name: asking([name]) for name in pools}, "mixed": asking(pools)}
    took: dict[str, list[float]] = {name: [] for name in calls}
    for _ in track(range(60), description=f"mixed strategies, {ensemble.manifest.name}", transient=True):
        for name, call in calls.items():
            began = time.perf_counter()
            await call()
            took[name].append(time.perf_counter() - began)
    await engine.close()
    medians = {name: round(1e6 * float(np.median(times[5:])) / 64, 1) for name, times in took.items()}
    one = float(np.mean([medians[name] for name in pools]))
    return {**medians, "mixed_over_one": round(medians["mixed"] / one, 3)}


def cascade(ensemble: Ensemble) -> dict[str, float]:
    """Microseconds a row in batches of 64 test rows, and accuracy, of the cascade and of all members fused alike."""
    test = load_dataset("fashion_mnist", seed=1).test
    fused_by = ensemble.manifest.cascade.strategy if ensemble.manifest.cascade else ""
    took: dict[str, list[float]] = {"cascade": [], fused_by: []}
    right: Counter[str] = Counter()
    starts = range(0, len(test.x), 64)
    for start in track(starts, description="cascade", transient=True):
        rows, y = test.x[start : start + 64], test.y[start : start + 64]
        for strategy, times in took.items():
            began = time.thread_time()
            prediction = predict(ensemble, rows, make_plan(ensemble, Options(strategy=strategy)))
            times.append((time.thread_time() - began) / len(rows))
            right[strategy] += int((prediction.fused.labels == y).sum())
    us = {strategy: 1e6 * float(np.mean(times)) for strategy, times in took.items()}
    accuracy = {strategy: right[strategy] / len(test.x) for strategy in took}
    return {
        "cascade_us": round(us["cascade"], 1),
        "all_members_us": round(us[fused_by], 1),
        "cost_of_all": round(us["cascade"] / us[fused_by], 3),
        "cascade_accuracy": accuracy["cascade"],
        "all_members_accuracy": accuracy[fused_by],
        "points_lost": round(100 * (accuracy[fused_by] - accuracy["cascade"]), 3),
    }


# ---- Faults ---------------------------------------------------------------------------------------------------------


async def hanging() -> dict[str, Any]:
    """Requests whose rows make a member run for ever, one after the other, with good ones beside; no breaker."""
    engine, ensemble = _faulty(breaker_failures=0)
    before = threading.active_count()
    late: list[float] = []
    beside: list[float] = []
    fates: Counter[str] = Counter()
    for k in track(range(HANGS), description="a member that hangs", transient=True):
        began = time.perf_counter()
        bad = asyncio.create_task(
            engine.infer(ensemble, faulty.rows(2, faulty.HANG, seed=k), Options(deadline_ms=HANG_MS))
        )
        for _ in range(5):
            begun = time.perf_counter()
            good = await engine.infer(ensemble, faulty.rows(2, seed=k), Options(members=("m1", "m2")))
            beside.append(1e3 * (time.perf_counter() - begun))
            fates["good beside: degraded" if good.missing else "good beside: answered"] += 1
            await asyncio.sleep(0.01)
        try:
            prediction = await bad
            fates[f"answered without {','.join(prediction.missing)}"] += 1
        except Exception as exc:  # counted, whatever it is
            fates[type(exc).__name__] += 1
        late.append(1e3 * (time.perf_counter() - began) - HANG_MS)
    await asyncio.sleep(0.1)
    await engine.close()
    return {
        "requests": HANGS,
        "deadline_ms": HANG_MS,
        "late_ms": _quantiles(late),
        "good_beside_ms": _quantiles(beside),
        "fates": dict(fates),
        "threads_left": threading.active_count() - before,
        "lost_a_thread": engine.stuck,
    }


async def half_failing() -> dict[str, Any]:
    """Every other request makes a member raise: every answer must be that of all, or say that it is degraded."""
    engine, ensemble = _faulty(breaker_failures=0)
    rng = np.random.default_rng(0)
    plan = {members: make_plan(ensemble, Options(members=members)) for members in (None, ("m1", "m2"))}
    fates: Counter[str] = Counter()

    async def one(k: int) -> None:
        fails = bool(rng.random() < 0.5)
        x = faulty.rows(2, faulty.RAISE if fails else None, seed=k)
        prediction = await engine.infer(ensemble, x, Options())
        expected = predict(ensemble, x, plan[("m1", "m2") if prediction.missing else None])
        same = np.array_equal(prediction.fused.probabilities, expected.fused.probabilities)
        fates["right" if same and bool(prediction.missing) == fails else "wrong"] += 1
        fates["degraded" if prediction.missing else "whole"] += 1

    counted = _counted()
    for k in track(range(0, HALVES, 8), description="a member that fails half the time", transient=True):
        await asyncio.gather(*(one(k + i) for i in range(8)))
    await engine.close()
    more = {key: count - counted.get(key, 0) for key, count in _counted().items()}
    return {"requests": HALVES, **fates, "counted": more}


def _faulty(**limits: Any) -> tuple[Engine, Ensemble]:
    with tempfile.TemporaryDirectory() as root:
        ensemble = load_version(faulty.write(Path(root)))
    return Engine(Repository([ensemble]), default="faulty", limits=Limits(**limits)), ensemble


def _counted() -> dict[str, int]:
    """Of member m3, by outcome."""
    metrics = telemetry.REGISTRY.collect()
    samples = [sample for metric in metrics for sample in metric.samples]
    return {
        sample.labels["outcome"]: int(sample.value)
        for sample in samples
        if sample.name == "committee_member_requests_total" and sample.labels["member"] == faulty.FAULTY
    }


# ---- Parts ----------------------------------------------------------------------------------------------------------


def _unpacked(packed: onnx.ModelProto, member: str) -> bytes:
    """A member's branch of a packed graph as a graph of its own."""
    gate = next(node for node in packed.graph.node if node.op_type == "If" and node.name == member)
    branch = next(attribute.g for attribute in gate.attribute if attribute.name == "then_branch")
    image = next(value for value in packed.graph.input if value.name == "image")
    needed = {name for node in branch.node for name in node.input}
    outer = [value for value in packed.graph.initializer if value.name in needed]
    output = helper.make_tensor_value_info(branch.output[0].name, onnx.TensorProto.FLOAT, None)
    graph = helper.make_graph(list(branch.node), member, [image], [output], [*branch.initializer, *outer])
    model = helper.make_model(graph, opset_imports=list(packed.opset_import), ir_version=packed.ir_version)
    return bytes(model.SerializeToString())


def _in_turn(calls: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """The median of each, in microseconds."""
    took: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            took[name].append(time.perf_counter() - began)
    return {name: round(1e6 * float(np.median(times)), 1) for name, times in took.items()}


def _pixels(n: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).integers(0, 256, (n, 28, 28, 1)).astype(np.float32)


def _quantiles(values: Sequence[float]) -> dict[str, float]:
    return {f"p{q}": round(float(np.percentile(values, q)), 1) for q in (50, 99, 100)}


def _table(found: Mapping[str, Any]) -> Table:
    table = Table("what", "figure", "value", title="The fusion engine")
    for what, parts in found.items():
        for path, value in _leaves(parts):
            table.add_row(what, path, str(value))
    return table


def _leaves(parts: Mapping[str, Any], above: str = "") -> list[tuple[str, Any]]:
    return [
        leaf
        for name, value in parts.items()
        for leaf in (_leaves(value, f"{above}{name}: ") if isinstance(value, dict) else [(f"{above}{name}", value)])
    ]


if __name__ == "__main__":
    sys.exit(main())
