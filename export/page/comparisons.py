"""Comparisons of one network with itself: under other activations, and otherwise held back from learning by heart."""

from collections.abc import Mapping, Sequence
from itertools import chain
from statistics import mean
from typing import Any

from matplotlib.ticker import PercentFormatter

from export.page import words
from export.page.blocks import Block, Plot, Plots, Section, Table, Words
from export.page.charts import ACCENT, axes, bars, legend, logarithmic, rows_of, whole
from export.page.svg import SERIES, SOFT, tip

Row = Mapping[str, Any]
SMALL = 280
SKEWED = 2.5
"""Losses that span more than this are drawn on a logarithmic axis, where the good ones stay apart."""


def activations(record: Mapping[str, Any]) -> list[Section]:
    if not record.get("summary"):
        return []
    summary = sorted(record["summary"], key=lambda row: float(row["log_loss"]))
    rows = record.get("rows", [])
    blocks: list[Block] = [
        Words(_told_of_activations(summary)),
        Words(words.settings(record.get("settings", {})), soft=True),
        _activations_table(summary),
        Plots(
            [
                _dots(summary, rows, "log_loss", "validation log-loss", "Log-loss, every seed"),
                _bars(summary, "cost_us", "µs a row", "Cost"),
                _bars(summary, "dead_units", "share of the hidden units", "Dead units"),
            ],
            small=True,
        ),
        Plots(_activation_curves(summary, rows), small=True),
    ]
    return [Section("Activations", blocks)]


def _told_of_activations(summary: Sequence[Row]) -> str:
    best = summary[0]
    told = (
        f"Lowest log-loss: {best['activation']}, {words.figure(best['log_loss'])} at accuracy "
        f"{words.figure(best['accuracy'])}."
    )
    priced = [row for row in summary[: max(2, len(summary) // 2)] if row.get("cost_us")]
    if best not in priced:
        return told
    cheapest = min(priced, key=lambda row: float(row["cost_us"]))
    if cheapest is best:
        return f"{told} None of the better half costs less."
    return (
        f"{told} {cheapest['activation']}, the cheapest of the better half, costs "
        f"{words.compared(cheapest['cost_us'], best['cost_us'])}; its log-loss is "
        f"{words.moved(cheapest['log_loss'] - best['log_loss'])} and its accuracy "
        f"{words.moved(cheapest['accuracy'] - best['accuracy'], in_points=True)}."
    )


def _activations_table(summary: Sequence[Row]) -> Table:
    rows = [
        [
            row["activation"],
            words.spread(row["accuracy"], row.get("accuracy_std")),
            words.spread(row["log_loss"], row.get("log_loss_std")),
            words.share(row.get("dead_units"), 1),
            words.cost(row.get("gradient_norm")),
            words.cost(row.get("cost_us")),
        ]
        for row in summary
    ]
    numbers = ["accuracy", "log-loss", "dead units", "gradient norm", "µs a row"]
    caption = "Mean and standard deviation over the seeds; the lowest log-loss first."
    return Table(caption, ["activation"], numbers, rows, frozenset([0]))


def _dots(summary: Sequence[Row], rows: Sequence[Row], key: str, x: str, title: str) -> Plot:
    names = [row["activation"] for row in summary]
    drawn = rows_of(names, x, width=SMALL)
    for row in rows:
        if row["activation"] in names and row.get(key) is not None:
            hint = tip(f"{row['activation']}, seed {row['seed']}: {words.figure(row[key])}")
            drawn.scatter(
                row[key], names.index(row["activation"]), s=22, color=SOFT, alpha=0.55, linewidths=0, gid=hint
            )
    values = [row[key] for row in [*rows, *summary] if row.get(key) is not None]
    lowest, highest = min(values), max(values)
    if 0 < SKEWED * lowest < highest:
        logarithmic(drawn.xaxis, lowest, highest)
    for k, row in enumerate(summary):
        drawn.plot(row[key], k, "|", color=ACCENT, markersize=16, markeredgewidth=2.5)
    return Plot(drawn.figure, title, "A dot is a seed, the bar their mean.")


def _bars(summary: Sequence[Row], key: str, x: str, title: str) -> Plot:
    drawn = rows_of([row["activation"] for row in summary], x, width=SMALL)
    values = [row.get(key) or 0.0 for row in summary]
    shown = words.cost if key == "cost_us" else words.share
    bars(drawn, values, [*map(shown, values)], [ACCENT if k == 0 else SOFT for k in range(len(values))])
    drawn.set_xlim(0, max([*values, 0.01]) * 1.25)
    if key != "cost_us":
        drawn.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    return Plot(drawn.figure, title)


def _activation_curves(summary: Sequence[Row], rows: Sequence[Row]) -> list[Plot]:
    curves = {row["activation"]: _mean_curve(rows, row["activation"]) for row in summary}
    curves = {name: curve for name, curve in curves.items() if curve}
    plots = []
    low, high = min(map(min, curves.values()), default=1.0), max(map(max, curves.values()), default=1.0)
    skewed = 0 < SKEWED * low < high
    for name, curve in curves.items():
        drawn = axes("epoch", "validation log-loss", width=SMALL, height=180)
        for other in curves.values():
            drawn.plot(range(1, len(other) + 1), other, color=SOFT, linewidth=1, alpha=0.3)
        drawn.plot(range(1, len(curve) + 1), curve, color=ACCENT)
        if skewed:
            logarithmic(drawn.yaxis, low, high)
        whole(drawn.xaxis)
        plots.append(Plot(drawn.figure, name, f"Ends at {words.figure(curve[-1])}."))
    return plots


def _mean_curve(rows: Sequence[Row], activation: str) -> list[float]:
    curves = [row["curve"] for row in rows if row["activation"] == activation and row.get("curve")]
    return [mean(values) for values in zip(*curves, strict=False)]


def regularisation(record: Mapping[str, Any]) -> list[Section]:
    variants = record.get("variants", [])
    if not variants:
        return []
    blocks: list[Block] = [
        Words(_told_of_variants(variants)),
        Words(words.settings(record.get("settings", {})), soft=True),
        _variants_table(variants),
        Plots(_variant_curves([variant for variant in variants if variant.get("curves")]), small=True),
    ]
    return [Section("Regularisation", blocks)]


def _told_of_variants(variants: Sequence[Row]) -> str:
    best = min(variants, key=lambda row: float(row["log_loss"]))
    closest, widest = (pick(variants, key=lambda row: float(row["gap"])) for pick in (min, max))
    sparsest = max(variants, key=lambda row: row.get("near_zero") or 0.0)
    told = (
        f"Lowest validation log-loss: {best['name']}, {words.figure(best['log_loss'])}. The gap between validation "
        f"and training is widest for {widest['name']} ({words.signed(widest['gap'])}) and narrowest for "
        f"{closest['name']} ({words.signed(closest['gap'])})."
    )
    right = max(variants, key=lambda row: float(row["accuracy"]))
    if right is not best:
        told += f" Most often right: {right['name']}, {words.figure(right['accuracy'])}."
    if (sparsest.get("near_zero") or 0) < 0.05:
        return told
    return f"{told} {sparsest['name']} leaves {words.share(sparsest['near_zero'])} of the weights next to zero."


def _variants_table(variants: Sequence[Row]) -> Table:
    ordered = sorted(variants, key=lambda row: float(row["log_loss"]))
    rows = [
        [
            row["name"],
            words.count(row.get("epochs_run")),
            words.figure(row["accuracy"]),
            words.figure(row["log_loss"]),
            words.figure(row["train_log_loss"]),
            words.signed(row["gap"]),
            words.share(row.get("near_zero"), 1),
        ]
        for row in ordered
    ]
    return Table(
        "Gap: validation less training log-loss, of the weights that were kept. "
        "Near zero: kernel weights smaller than 0.001.",
        ["variant"],
        ["epochs", "accuracy", "log-loss", "train log-loss", "gap", "near zero"],
        rows,
        frozenset([0]),
    )


def _variant_curves(variants: Sequence[Row]) -> list[Plot]:
    kinds = (("train_log_loss", "training", SERIES[1]), ("validation_log_loss", "validation", ACCENT))
    bottom, top = _limits(variant["curves"].get(key, []) for variant in variants for key, *_ in kinds)
    plots = []
    for k, variant in enumerate(variants):
        drawn = axes("epoch", "log-loss", width=SMALL, height=180)
        train, validation = (variant["curves"].get(key, []) for key, *_ in kinds)
        shared = range(1, min(len(train), len(validation)) + 1)
        drawn.fill_between(shared, train[: len(shared)], validation[: len(shared)], color=SOFT, alpha=0.15, linewidth=0)
        for curve, (_, name, colour) in zip((train, validation), kinds, strict=True):
            drawn.plot(range(1, len(curve) + 1), curve, color=colour, label=name)
        drawn.set_ylim(bottom, top)
        whole(drawn.xaxis)
        if k == 0:
            legend(drawn)
        kept = variant.get("best_epoch")
        if kept is not None and kept + 1 < len(validation):
            drawn.plot(kept + 1, validation[kept], "o", color=ACCENT, markersize=6)
        says = f"Gap {words.signed(variant['gap'])}, accuracy {words.figure(variant['accuracy'])}."
        plots.append(Plot(drawn.figure, variant["name"], says))
    return plots


def _limits(curves: Any) -> tuple[float, float]:
    """That all curves share: from the lowest to where all but the worst twentieth of the values are."""
    values = sorted(chain.from_iterable(curves)) or [0.0, 1.0]
    low, high = values[0], values[min(len(values) - 1, int(0.97 * len(values)))]
    margin = 0.06 * (high - low) or 0.05
    return low - margin, high + margin
