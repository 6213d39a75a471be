"""Networks made smaller: filters taken out in rounds, and fewer bits."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.ticker import PercentFormatter

from export.page import words
from export.page.blocks import Block, Plot, Plots, Section, Table, Words
from export.page.charts import ACCENT, axes, legend, whole
from export.page.svg import INK, SERIES, SOFT

Candidate = Mapping[str, Any]
Round = Mapping[str, Any]


def pruned(candidates: Sequence[Candidate]) -> list[Section]:
    shown = [candidate for candidate in candidates if isinstance(candidate.get("record", {}).get("rounds"), list)]
    parts = [_pruned(candidate["name"], candidate["record"]) for candidate in shown if candidate["record"]["rounds"]]
    if not parts:
        return []
    what = (
        "Whole filters and units of least weight are taken out in rounds, each followed by some training. The control "
    )
    what += "is the network as it was, trained as long: what of a change is the pruning’s, and what the training’s."
    return [Section("Pruning", [Words(what, soft=True)], parts)]


def _pruned(name: str, record: Mapping[str, Any]) -> Section:
    rounds, control = record["rounds"], record.get("control") or []
    kept = next((step for step in reversed(rounds) if step.get("kept")), rounds[-1])
    blocks: list[Block] = [
        Words(_told(rounds[0], kept, control)),
        Plots([_accuracy_plot(rounds, control, kept), _shrinking_plot(rounds, kept)]),
        _rounds_table(rounds, control, kept),
    ]
    return Section(f"{name}, of {record['of']}", blocks)


def _told(first: Round, kept: Round, control: Sequence[Round]) -> str:
    if kept is first:
        return "No round was worth keeping: the network stayed as it was."
    moved = words.moved(kept["accuracy"] - first["accuracy"], in_points=True)
    told = (
        f"Round {kept['round']} was kept: it costs {words.compared(kept['cost_us'], first['cost_us'])}, with "
        f"{words.share(1 - kept['parameters'] / first['parameters'])} of the parameters gone. Its accuracy is {moved}"
    )
    same = next((step for step in control if step["round"] == kept["round"]), None)
    if same is None:
        return f"{told}."
    against = words.moved(kept["accuracy"] - same["accuracy"], in_points=True)
    return f"{told}; against the control, which trained as long, {against}."


def _accuracy_plot(rounds: Sequence[Round], control: Sequence[Round], kept: Round) -> Plot:
    drawn = axes("round", "validation accuracy")
    for steps, name, colour, style in ((control, "control", SERIES[1], "--"), (rounds, "pruned", ACCENT, "-")):
        if steps:
            places = [step["round"] for step in steps], [step["accuracy"] for step in steps]
            drawn.plot(*places, style, color=colour, marker="o", markersize=5, label=name)
    drawn.plot(kept["round"], kept["accuracy"], "o", markersize=13, markerfacecolor="none", markeredgecolor=INK)
    whole(drawn.xaxis)
    drawn.margins(y=0.15)
    legend(drawn)
    return Plot(drawn.figure, "Accuracy, round by round", "The ring marks the round that was kept.")


def _shrinking_plot(rounds: Sequence[Round], kept: Round) -> Plot:
    drawn = axes("round", "share of what it was")
    first, places = rounds[0], [step["round"] for step in rounds]
    for key, name, colour in (("parameters", "parameters", SOFT), ("cost_us", "µs a row", ACCENT)):
        shares = [step[key] / first[key] for step in rounds]
        drawn.plot(places, shares, color=colour, marker="o", markersize=5, label=name)
        drawn.plot(
            kept["round"], kept[key] / first[key], "o", markersize=13, markerfacecolor="none", markeredgecolor=INK
        )
    drawn.set_ylim(0, None)
    drawn.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    whole(drawn.xaxis)
    legend(drawn)
    freed = 1 - kept["cost_us"] / first["cost_us"], 1 - kept["parameters"] / first["parameters"]
    says = f"Kept: {words.share(freed[1])} of the parameters gone, {words.share(freed[0])} of the cost."
    return Plot(drawn.figure, "Parameters and cost", says)


def _rounds_table(rounds: Sequence[Round], control: Sequence[Round], kept: Round) -> Table:
    controls = {step["round"]: step for step in control}
    rows = [
        [
            "as it was" if step["round"] == 0 else f"round {step['round']}",
            " · ".join(map(str, step.get("widths", []))),
            words.count(step["parameters"]),
            words.cost(step["cost_us"]),
            words.figure(step["accuracy"]),
            words.figure(step["log_loss"]),
            words.figure(controls.get(step["round"], {}).get("accuracy")),
            words.figure(controls.get(step["round"], {}).get("log_loss")),
        ]
        for step in rounds
    ]
    numbers = ["parameters", "µs a row", "accuracy", "log-loss", "control’s accuracy", "control’s log-loss"]
    marked = frozenset([list(rounds).index(kept)])
    return Table("In bold the round that was kept.", ["", "widths"], numbers, rows, marked)


def quantised(candidates: Sequence[Candidate]) -> list[Section]:
    records = {
        candidate["name"]: candidate["record"]
        for candidate in candidates
        if "source_cost_us" in (candidate.get("record") or {})
    }
    if not records:
        return []
    rows = [
        [
            name,
            record["of"],
            record["to"],
            words.cost(record["source_cost_us"]),
            words.cost(record["cost_us"]),
            words.size(record["source_bytes"]),
            words.size(record["bytes"]),
            words.figure(record["source_accuracy"]),
            words.figure(record["accuracy"]),
            words.figure(record.get("largest_drift"), 3),
        ]
        for name, record in records.items()
    ]
    numbers = ["µs before", "µs a row", "size before", "size", "accuracy before", "accuracy", "largest drift"]
    caption = "Drift: how far any probability moved, on the validation rows."
    told = [Words(_told_of_bits(name, record)) for name, record in records.items()]
    return [Section("Quantisation", [*told, Table(caption, ["candidate", "of", "to"], numbers, rows)])]


def _told_of_bits(name: str, record: Mapping[str, Any]) -> str:
    moved = words.moved(record["accuracy"] - record["source_accuracy"], in_points=True)
    return (
        f"{name}, against {record['of']}: it takes {words.compared(record['bytes'], record['source_bytes'])} space and "
        f"costs {words.compared(record['cost_us'], record['source_cost_us'])}; its accuracy is {moved}."
    )
