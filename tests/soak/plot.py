"""The samples as a picture."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from tests.soak.samples import PERCENTILES, Sample

OURS, LESS, WARN = "#0b6e4f", "#9aa5b1", "#c0392b"


def draw(samples: Sequence[Sample], path: Path) -> None:
    """Memory, descriptors and threads of every worker; latency; requests a second; and what was done to them."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "committee"  # the same bytes of the same numbers
    import matplotlib.pyplot as plt

    times = [sample.at / 60 for sample in samples]
    figure, axes = plt.subplots(4, 1, figsize=(10, 9), sharex=True)
    memory, handles, latency, rates = axes
    for pid in dict.fromkeys(pid for sample in samples for pid in sample.workers):
        seen = [(t, sample.workers[pid]) for t, sample in zip(times, samples, strict=True) if pid in sample.workers]
        at = [t for t, _ in seen]
        memory.plot(at, [process.pss for _, process in seen], linewidth=1)
        handles.plot(at, [process.fds for _, process in seen], linewidth=0.8, color=OURS)
        handles.plot(at, [process.threads for _, process in seen], linewidth=0.8, color=LESS)
    memory.set_ylabel("memory (PSS)\nof each worker, MiB")
    handles.set_ylabel("file descriptors,\nthreads (grey)")
    for which, colour in zip(PERCENTILES, (OURS, LESS, WARN), strict=True):
        latency.plot(times, [s.milliseconds.get(f"p{which:g}") for s in samples], linewidth=0.8, color=colour)
    latency.set_yscale("log")
    latency.set_ylabel("p50, p99, p99.9, ms")
    for name, colour in (("right", OURS), ("refused", WARN)):
        rates.plot(times[1:], _rates(samples, name), linewidth=0.8, color=colour)
    rates.set_ylabel("right, refused (red)\nanswers a second")
    rates.set_xlabel("minutes; dotted: SIGHUP, red: a worker killed")
    for t, sample in zip(times, samples, strict=True):
        for event in sample.events:
            if event.startswith("SIG"):
                roll = event == "SIGHUP"
                for axis in axes:
                    axis.axvline(t, color=LESS if roll else WARN, linewidth=0.6, linestyle=":" if roll else "-")
    for axis in (memory, handles, rates):
        axis.set_ylim(bottom=0)
    figure.align_ylabels(axes)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    plt.close(figure)


def _rates(samples: Sequence[Sample], name: str) -> list[float]:
    pairs = pairwise(samples)
    return [(b.counts.get(name, 0) - a.counts.get(name, 0)) / max(b.at - a.at, 1e-9) for a, b in pairs]
