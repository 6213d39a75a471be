"""What a cascade saves: cost against accuracy, and which stage answers how many rows."""

from collections.abc import Mapping, Sequence
from typing import Any

from export.page import words
from export.page.answers import MEMBER
from export.page.blocks import Block, Cell, Plot, Plots, Section, Table, Words
from export.page.charts import ACCENT, axes, bars, label, legend, logarithmic, rows_of
from export.page.svg import INK, SERIES, SOFT, tip

Ensemble = Mapping[str, Any]


def sections(ensemble: Ensemble) -> list[Section]:
    cascade = ensemble.get("cascade") or {}
    if not cascade.get("stages"):
        return []
    about = (
        "The members of a stage answer only the rows whose answer was not sure enough by then; what a stage answers "
    )
    about += "is the fusion of all members that have run. Its thresholds were fitted on validation and calibration "
    about += "rows; the figures are of the test rows."
    plots = [_sweep(ensemble, cascade), *_shares(cascade["stages"])]
    blocks: list[Block] = [Words(_told(cascade)), Words(about, soft=True), Plots(plots), _table(cascade)]
    return [Section("What a cascade saves", blocks)]


def _told(cascade: Mapping[str, Any]) -> str:
    first, accuracy = cascade["stages"][0], cascade["over_all_members"]["accuracy"]
    perhaps = " – perhaps by chance" if accuracy["low"] <= 0 <= accuracy["high"] and accuracy["value"] else ""
    return (
        f"The cascade costs {words.microseconds(cascade['cost_us'])} a row where all members cost "
        f"{words.microseconds(cascade['all_members_us'])}, "
        f"{words.compared(cascade['cost_us'], cascade['all_members_us'])}: {words.listed(first['members'])} "
        f"answer{'s' if len(first['members']) == 1 else ''} {words.share(first['share'])} of the rows alone. "
        f"Against all members, fused by {cascade['strategy']} too, accuracy changes by "
        f"{words.points(accuracy['value'])} points ({words.points(accuracy['low'])} to "
        f"{words.points(accuracy['high'])}){perhaps}."
    )


def _sweep(ensemble: Ensemble, cascade: Mapping[str, Any]) -> Plot:
    """One threshold for all stages, from low to high, and beside it what was published, all members, and each alone."""
    drawn = axes("µs a row, expected, logarithmic", "test accuracy")
    test, costs = ensemble.get("test") or {}, ensemble.get("costs_us") or {}
    points = cascade.get("sweep") or []
    alone = [(costs[name], test[MEMBER + name]["accuracy"]["value"], name) for name in costs if MEMBER + name in test]
    everyone = (cascade["all_members_us"], test[cascade["strategy"]]["accuracy"]["value"], "all members")
    published = (cascade["cost_us"], test["cascade"]["accuracy"]["value"], "published")
    fixed = [everyone, published]
    every = [point["cost_us"] for point in points] + [cost for cost, *_ in (*alone, *fixed)]
    logarithmic(drawn.xaxis, min(cost for cost in every if cost > 0), max(every))
    drawn.plot(
        [point["cost_us"] for point in points],
        [point["accuracy"] for point in points],
        color=ACCENT,
        linewidth=1.5,
        label="cascade",
    )
    for point in points:
        hint = tip(
            f"one threshold of {words.figure(point['threshold'], 3)} for all stages\naccuracy "
            f"{words.figure(point['accuracy'])}, {words.microseconds(point['cost_us'])}"
        )
        drawn.scatter(point["cost_us"], point["accuracy"], s=18, color=ACCENT, linewidths=0, zorder=3, gid=hint)
    for number, (cost, accuracy, name) in enumerate(alone):
        _dot(drawn, cost, accuracy, name, color=SERIES[1], s=26, **({} if number else {"label": "one member"}))
    _dot(drawn, *everyone, color=SOFT, s=40)
    _dot(drawn, *published, color=INK, s=130, marker="*")
    label(drawn, fixed, others=[(cost, accuracy) for cost, accuracy, _ in alone])
    drawn.margins(y=0.12)
    legend(drawn)
    return Plot(
        drawn.figure,
        "Accuracy against cost",
        f"The line: one threshold of the {cascade['measure']} for all stages. The star: what was published.",
    )


def _dot(drawn: Any, cost: float, accuracy: float, name: str, **look: Any) -> None:
    if cost > 0:
        hint = tip(f"{name}\naccuracy {words.figure(accuracy)}, {words.microseconds(cost)}")
        drawn.scatter(cost, accuracy, linewidths=0, zorder=4, gid=hint, **look)


def _shares(stages: Sequence[Mapping[str, Any]]) -> list[Plot]:
    drawn = rows_of(
        [f"stage {k}: {', '.join(stage['members'])}" for k, stage in enumerate(stages, 1)], "share", right=44
    )
    shares = [stage["share"] for stage in stages]
    bars(drawn, shares, [words.share(share, 1) for share in shares], ACCENT)
    drawn.set_xlim(0, None)
    return [Plot(drawn.figure, "Who answers", "Share of the test rows that stop at each stage.")]


def _table(cascade: Mapping[str, Any]) -> Table:
    left = 1.0
    rows: list[list[str | Cell]] = []
    for number, stage in enumerate(cascade["stages"], 1):
        rows.append(
            [
                f"{number}",
                ", ".join(stage["members"]),
                words.figure(stage["threshold"]),
                words.cost(stage["cost_us"]),
                Cell(words.share(left, 1), left),
                Cell(words.share(stage["share"], 1), stage["share"]),
            ]
        )
        left = max(0.0, left - stage["share"])
    numbers = [f"{cascade['measure']} at least", "µs a row", "rows that come", "rows that stop"]
    return Table("Stage by stage, on the test rows.", ["stage", "members"], numbers, rows)
