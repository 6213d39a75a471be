"""What the fusion engine costs, and what it bears: `python -m bench.fusion`, written to bench/results/fusion.json.

- A subset of the members costs those members and a little more: a request to them against one to an ensemble of them
  alone.
- Requests of different strategies in one batch against requests of one.
- The cascade against all members, at batches of 64 real rows.
- A member that hangs for ever, and one that fails every other time: how late the others' answers are, what is lost.

Compared are only times of one run, taken in turn; medians.
"""

import asyncio
import json
import logging
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import tomli_w
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
from tests import faulty

RESULTS = Path("bench/results/fusion.json")
FASHION = (Path("models/fashion/1"), Path("models/fashion/3"))
ROUNDS = 300
HANGS = 200
HANG_MS = 150
HALVES = 400


def main() -> int:
    console = Console()
    logging.disable()  # members are to fail here
    found: dict[str, Any] = {}
    for folder in FASHION:
        ensemble = load_version(folder)
        name = f"{ensemble.manifest.name} {ensemble.manifest.version}"
        found[name] = {"subset": asyncio.run(subsets(folder, ensemble)), "mixed": asyncio.run(mixed(ensemble))}
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


async def subsets(folder: Path, ensemble: Ensemble) -> dict[str, dict[str, float]]:
    """Microseconds of a request of one row: to an ensemble of one member alone, and to this one for that member."""
    model = onnx.load(folder / ensemble.manifest.members[0].file)
    row = _pixels(1)
    found = {}
    for name in ensemble.names:
        lone = _alone(model, name, ensemble)
        engine = Engine(Repository([ensemble, lone]), default=ensemble.manifest.name)
        calls = {
            "alone_us": partial(engine.infer, lone, row, Options(strategy="average")),
            "of_the_ensemble_us": partial(engine.infer, ensemble, row, Options(strategy="average", members=[name])),
        }
        took = await _in_turn(calls, f"subsets, {ensemble.manifest.name}")
        found[name] = {**took, "more_us": round(took["of_the_ensemble_us"] - took["alone_us"], 1)}
        await engine.close()
    return found


async def mixed(ensemble: Ensemble) -> dict[str, float]:
    """64 requests of one row at once: all of one strategy, each in turn, and of all strategies."""
    engine = Engine(Repository([ensemble]), default=ensemble.manifest.name)
    pools = [name for name in ensemble.strategies if name not in ("stacking", "cascade")]
    rows = [_pixels(1, seed) for seed in range(64)]

    def asking(strategies: Sequence[str]) -> Callable[[], Awaitable[object]]:
        options = [Options(strategy=strategies[k % len(strategies)]) for k in range(64)]
        return lambda: asyncio.gather(*(engine.infer(ensemble, x, o) for x, o in zip(rows, options, strict=True)))

    took = await _in_turn(
        {**{name: asking([name]) for name in pools}, "mixed": asking(pools)},
        f"mixed strategies, {ensemble.manifest.name}",
        rounds=60,
    )
    await engine.close()
    a_request = {name: round(us / 64, 1) for name, us in took.items()}
    return {**a_request, "mixed_over_one": round(took["mixed"] / float(np.mean([took[name] for name in pools])), 3)}


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
    telemetry.flush()
    metrics = telemetry.REGISTRY.collect()
    samples = [sample for metric in metrics for sample in metric.samples]
    return {
        sample.labels["outcome"]: int(sample.value)
        for sample in samples
        if sample.name == "committee_member_requests_total" and sample.labels["member"] == faulty.FAULTY
    }


# ---- Parts ----------------------------------------------------------------------------------------------------------


def _alone(packed: onnx.ModelProto, member: str, ensemble: Ensemble) -> Ensemble:
    """One member of a packed graph as an ensemble of its own."""
    gate = next(node for node in packed.graph.node if node.op_type == "If" and node.name == member)
    branch = next(attribute.g for attribute in gate.attribute if attribute.name == "then_branch")
    image = next(value for value in packed.graph.input if value.name == "image")
    needed = {name for node in branch.node for name in node.input}
    outer = [value for value in packed.graph.initializer if value.name in needed]
    closed = branch.node[-1]  # it adds the axis of the members, which a graph of one does not have
    output = helper.make_tensor_value_info(
        closed.input[0], onnx.TensorProto.FLOAT, ["n", len(ensemble.manifest.classes)]
    )
    graph = helper.make_graph(list(branch.node[:-1]), member, [image], [output], [*branch.initializer, *outer])
    model = helper.make_model(graph, opset_imports=list(packed.opset_import), ir_version=packed.ir_version)
    said = {"classes": ensemble.manifest.classes, "members": [{"name": member, "file": f"{member}.onnx"}]}
    inputs = [spec.model_dump(exclude_none=True) for spec in ensemble.manifest.inputs]
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root) / f"alone_{member}" / "1"
        folder.mkdir(parents=True)
        (folder / f"{member}.onnx").write_bytes(model.SerializeToString())
        (folder / "ensemble.toml").write_text(tomli_w.dumps({**said, "inputs": inputs}))
        return load_version(folder)


async def _in_turn(
    calls: Mapping[str, Callable[[], Awaitable[object]]], what: str, *, rounds: int = ROUNDS
) -> dict[str, float]:
    """The median of each, in microseconds."""
    took: dict[str, list[float]] = {name: [] for name in calls}
    for _ in track(range(rounds), description=what, transient=True):
        for name, call in calls.items():
            began = time.perf_counter()
            await call()
            took[name].append(time.perf_counter() - began)
    return {name: round(1e6 * float(np.median(times[5:])), 1) for name, times in took.items()}


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
