"""Architecture searches: what every trial cost and reached, the front, and how they learned."""

from collections.abc import Mapping, Sequence
from typing import Any

from export.page import words
from export.page.blocks import Block, Plot, Plots, Section, Table, Words
from export.page.charts import ACCENT, WIDE, axes, draw_front, front, label, legend, logarithmic, whole
from export.page.svg import LINE, SOFT, tip

Trial = Mapping[str, Any]


def sections(searches: Sequence[Mapping[str, Any]]) -> list[Section]:
    return [_section(record) for record in searches if record.get("trials")]


def _section(record: Mapping[str, Any]) -> Section:
    trials = record["trials"]
    best = sorted((trial for trial in trials if trial.get("front")), key=lambda trial: trial["cost_us"])
    blocks: list[Block] = [Words(_told(record, trials)), Words(words.settings(record.get("settings", {})), soft=True)]
    placed = [trial for trial in trials if trial.get("cost_us") and _loss(trial)]
    if placed:
        blocks.append(_front_plot(placed, best))
    if best:
        blocks.append(_table(best))
    blocks.append(Plots([*_size_plot(placed, best), *_curves_plot(trials)]))
    return Section(f"Search “{record['name']}”", blocks)


def _told(record: Mapping[str, Any], trials: Sequence[Trial]) -> str:
    states = [trial["state"] for trial in trials]
    counts = words.listed(f"{states.count(s)} {s}" for s in ("complete", "pruned", "failed") if s in states)
    told = f"{words.number(len(trials), 'trial')} of “{record['space'].replace('_', ' ')}” networks"
    told = f"{told} in {words.duration(record['seconds'])}: {counts}."
    unlearned = sum(trial["state"] == "pruned" and not trial.get("curve") for trial in trials)
    return f"{told} {unlearned} of the pruned never trained: their cost ruled them out." if unlearned else told


def _gain(best: Sequence[Trial]) -> str:
    """What the dearest trial of the front brings over the cheapest."""
    steps = front((trial["cost_us"], trial["log_loss"]) for trial in best)
    if len(steps) < 2:
        return ""
    (low, high_loss), (high, low_loss) = steps[0], steps[-1]
    return (
        f"Along the front, from {words.microseconds(low)} to {words.microseconds(high)} a row, {high / low:.1f} times "
        f"the cost buys {words.share(1 - low_loss / high_loss)} less log-loss."
    )


def _front_plot(trials: Sequence[Trial], best: Sequence[Trial]) -> Plot:
    drawn = axes("µs a row, logarithmic", "validation log-loss", width=WIDE, height=400)
    complete = [trial for trial in trials if trial["state"] == "complete"]
    costs, losses = [trial["cost_us"] for trial in trials], [_loss(trial) or 0.0 for trial in trials]
    ceiling = _ceiling(complete) if complete else max(losses)
    places = [(cost, min(loss, ceiling)) for cost, loss in zip(costs, losses, strict=True)]
    logarithmic(drawn.xaxis, min(costs), max(costs))
    room = ceiling - min(losses) or 0.1
    drawn.set_ylim(min(losses) - 0.1 * room, ceiling + 0.12 * room)
    draw_front(drawn, [(trial["cost_us"], trial["log_loss"]) for trial in complete if trial["log_loss"] <= ceiling])
    largest = max((trial.get("bytes") or 0 for trial in trials), default=0) or 1
    for trial in sorted(trials, key=lambda trial: bool(trial.get("front"))):
        place = trial["cost_us"], _loss(trial) or 0.0
        mark: dict[str, Any] = {"s": 20 + 180 * (trial.get("bytes") or 0) / largest}
        if place[1] > ceiling:
            place, mark = (place[0], ceiling + 0.09 * room), {"s": 30, "marker": "^"}
        drawn.scatter(*place, gid=tip(_tip(trial)), **mark, **_look(trial))
    for kind, example in {_kind(trial): trial for trial in trials}.items():
        drawn.scatter([], [], s=40, label=kind, **_look(example))
    label(
        drawn,
        [(t["cost_us"], t["log_loss"], f"#{t['number']}") for t in best if t["log_loss"] <= ceiling],
        others=places,
    )
    legend(drawn)
    says = f"{_gain(best)} A mark’s area is the size of the file; hollow marks were stopped early."
    if max(losses) > ceiling:
        says += " Triangles lie further up than the plot reaches."
    return Plot(drawn.figure, "Log-loss against cost", says.strip(), wide=True)


def _kind(trial: Trial) -> str:
    return "on the front" if trial.get("front") else str(trial["state"])


def _look(trial: Trial) -> dict[str, Any]:
    return {
        "on the front": {"facecolor": ACCENT, "alpha": 0.85, "edgecolor": "none", "zorder": 3},
        "complete": {"facecolor": SOFT, "alpha": 0.45, "edgecolor": "none"},
    }.get(_kind(trial), {"facecolor": "none", "edgecolor": SOFT, "alpha": 0.5})


def _ceiling(complete: Sequence[Trial]) -> float:
    """How far up the plot reaches: to the worst of the line, and of all but the worst tenth."""
    losses = sorted(float(trial["log_loss"]) for trial in complete)
    steps = front((trial["cost_us"], float(trial["log_loss"])) for trial in complete)
    return max(losses[int(0.9 * (len(losses) - 1))], steps[0][1])


def _size_plot(trials: Sequence[Trial], best: Sequence[Trial]) -> list[Plot]:
    sized = [trial for trial in trials if trial.get("bytes")]
    if not sized:
        return []
    drawn = axes("kB, logarithmic", "validation log-loss")
    sizes = [trial["bytes"] / 1e3 for trial in sized]
    logarithmic(drawn.xaxis, min(sizes), max(sizes))
    for trial, size in zip(sized, sizes, strict=True):
        look = {"color": ACCENT, "alpha": 0.85} if trial in best else {"color": SOFT, "alpha": 0.4}
        drawn.scatter(size, _loss(trial), s=34, linewidths=0, gid=tip(_tip(trial)), **look)
    complete = [trial for trial in sized if trial["state"] == "complete"]
    if complete:
        low, high = min(_loss(trial) or 0.0 for trial in sized), _ceiling(complete)
        drawn.set_ylim(low - 0.12 * (high - low) - 1e-6, high + 0.12 * (high - low) + 1e-6)
    label(drawn, [(trial["bytes"] / 1e3, _loss(trial) or 0.0, f"#{trial['number']}") for trial in best])
    smallest = min(sized, key=lambda trial: float(trial["bytes"]))
    return [
        Plot(
            drawn.figure,
            "Log-loss against size",
            f"The smallest file is trial #{smallest['number']}’s, {words.size(smallest['bytes'])}. "
            "The front is of loss, cost and size at once.",
        )
    ]


def _curves_plot(trials: Sequence[Trial]) -> list[Plot]:
    learned = [trial for trial in trials if trial.get("curve")]
    if not learned:
        return []
    drawn = axes("epoch", "validation log-loss")
    whole(drawn.xaxis)
    for trial in sorted(learned, key=lambda trial: bool(trial.get("front"))):
        curve = trial["curve"]
        look = {"color": ACCENT, "linewidth": 1.6} if trial.get("front") else {"color": SOFT, "linewidth": 1}
        alpha = 0.9 if trial.get("front") else 0.3
        drawn.plot(range(1, len(curve) + 1), curve, alpha=alpha, gid=tip(_tip(trial)), **look)
        if trial["state"] == "pruned":
            drawn.plot(len(curve), curve[-1], "x", color=SOFT, markersize=5, markeredgewidth=1.2, alpha=0.6)
    losses = sorted(value for trial in learned for value in trial["curve"])
    if losses[-1] > 3 * losses[len(losses) // 2] and losses[0] > 0:
        logarithmic(drawn.yaxis, losses[0], losses[-1])
    drawn.axhline(losses[0], color=LINE, linewidth=1, zorder=1)
    pruned = sum(trial["state"] == "pruned" for trial in learned)
    says = f"Coloured: the front’s. × marks where {words.number(pruned, 'trial')} stopped early." if pruned else ""
    return [Plot(drawn.figure, "How the trials learned", says or "Coloured: the front’s.")]


def _table(best: Sequence[Trial]) -> Table:
    rows = [
        [
            f"#{trial['number']}",
            words.layers(trial.get("layers", [])),
            words.cost(trial["cost_us"]),
            words.size(trial.get("bytes")),
            words.count(trial.get("parameters")),
            words.figure(trial.get("accuracy")),
            words.figure(trial["log_loss"]),
        ]
        for trial in best
    ]
    lowest = min(range(len(best)), key=lambda k: float(best[k]["log_loss"]))
    return Table(
        "The front: none is better in log-loss, cost and size at once. Cheapest first; in bold the lowest log-loss.",
        ["trial", "network"],
        ["µs a row", "size", "parameters", "accuracy", "log-loss"],
        rows,
        frozenset([lowest]),
    )


def _loss(trial: Trial) -> float | None:
    """What it ended with, however early that was."""
    reached = trial.get("log_loss")
    return reached if reached is not None else next(iter(reversed(trial.get("curve") or [])), None)


def _tip(trial: Trial) -> str:
    parts = [
        f"trial {trial['number']}, {trial['state']}",
        f"log-loss {words.figure(_loss(trial))}",
        words.microseconds(trial.get("cost_us")),
        words.size(trial.get("bytes")),
        words.layers(trial.get("layers", [])),
    ]
    return "\n".join(part for part in parts if part and part != words.NONE)
