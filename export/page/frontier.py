"""Accuracy for its cost: every answer of an evaluation by what it costs and how good it is, and the front of them."""

from collections.abc import Mapping, Sequence
from typing import Any

from export.evaluate import HIGHER_IS_BETTER
from export.page import words
from export.page.blocks import Plot, Plots, Section, Table, Words
from export.page.charts import axes, draw_front, front, label, legend, logarithmic
from export.page.metrics import NAMES, interval, value
from export.page.svg import INK, SERIES, SOFT, tip

MOST_LABELS = 8
LEAST_COST = 1e-3
"""Microseconds: less has no place on a logarithmic axis."""
LOOKS: Mapping[str, Mapping[str, Any]] = {
    "subset": {"color": SOFT, "s": 16, "alpha": 0.5},
    "cascade": {"color": SERIES[3], "s": 28, "marker": "D", "zorder": 3},
    "member": {"color": SERIES[1], "s": 32, "zorder": 3},
    "strategy": {"color": SERIES[0], "s": 40, "zorder": 3},
    "other": {"color": SERIES[2], "s": 60, "marker": "s", "zorder": 4},
}


def frontier(record: Mapping[str, Any], metrics: Sequence[str]) -> Section:
    """A plot a metric, and a table of the front of the first."""
    answers = [*record["answers"], *_other(record)]
    first = metrics[0]
    steps = on_front(answers, first)
    cheapest, best = steps[0], steps[-1]
    told = f"Best by {NAMES[first]}: {told_of(best)}, {value(first, best['scores'][first]['value'])} at "
    told += f"{words.microseconds(best['cost_us'])} a row."
    if len(steps) > 1:
        told += f" The cheapest, {told_of(cheapest)}, has {value(first, cheapest['scores'][first]['value'])} and costs "
        told += f"{words.compared(cheapest['cost_us'], best['cost_us'])}."
    rows = [
        [
            one["name"],
            one["kind"],
            one["strategy"],
            words.cost(one["cost_us"]),
            *(interval(metric, one["scores"][metric]) for metric in metrics),
        ]
        for one in steps
    ]
    caption = f"The front of {NAMES[first]} and cost, cheapest first: none that costs less is better."
    columns = ["µs a row", *(NAMES[metric] for metric in metrics)]
    table = Table(caption, ["answer", "what", "by"], columns, rows)
    plots = [_plot(answers, metric, record["default_strategy"]) for metric in metrics]
    title = f"What {NAMES[first]} costs"
    return Section(title, [Words(told), Plots(plots), table])


def on_front(answers: Sequence[Any], metric: str) -> list[Any]:
    """Those that none beats in both metric and cost, cheapest first."""
    sign = -1 if metric in HIGHER_IS_BETTER else 1
    places = {(one["cost_us"], sign * one["scores"][metric]["value"]): one for one in reversed(answers)}
    return [places[place] for place in front(places)]


def told_of(one: Mapping[str, Any]) -> str:
    return f"{one['name']} by {one['strategy']}" if one["kind"] in ("subset", "other") else str(one["name"])


def _other(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    other = record.get("against")
    return [{**other, "kind": "other", "name": f"{other['ensemble']} {other['version']}"}] if other else []


def _plot(answers: Sequence[Any], metric: str, default: str) -> Plot:
    drawn = axes("µs a row, logarithmic", "")  # the legend has the place of the name, which the title says
    costs = [_place(one, metric)[0] for one in answers]
    logarithmic(drawn.xaxis, min(costs), max(costs))
    chosen = next(one for one in answers if (one["kind"], one["name"]) == ("strategy", default))
    drawn.set_ylim(*_limits(answers, metric, chosen))
    for kind, look in LOOKS.items():
        own = [one for one in answers if one["kind"] == kind]
        for k, one in enumerate(own):
            named = {"label": one["name"] if kind == "other" else kind} if k == 0 else {}
            drawn.scatter(*_place(one, metric), linewidths=0, gid=tip(_tip(one, metric)), **look, **named)
    steps = on_front(answers, metric)
    draw_front(drawn, [_place(one, metric) for one in steps], higher=metric in HIGHER_IS_BETTER)
    ring = {"markersize": 12, "markerfacecolor": "none", "markeredgecolor": INK}
    drawn.plot(*_place(chosen, metric), "o", zorder=5, **ring)
    label(drawn, [(*_place(one, metric), one["name"]) for one in [chosen, *reversed(steps)][: 1 + MOST_LABELS]])
    legend(drawn)
    says = "The line is the front; the ring, the default strategy. Of the worst, not all are within the plot."
    return Plot(drawn.figure, f"{NAMES[metric]} against cost", says)


def _place(one: Mapping[str, Any], metric: str) -> tuple[float, float]:
    return max(one["cost_us"], LEAST_COST), one["scores"][metric]["value"]


def _tip(one: Mapping[str, Any], metric: str) -> str:
    figures = f"{NAMES[metric]} {interval(metric, one['scores'][metric])}"
    return f"{told_of(one)}\n{figures}\n{words.microseconds(one['cost_us'])}"


def _limits(answers: Sequence[Any], metric: str, chosen: Any) -> tuple[float, float]:
    """From the best to the worst of the front, of what is chosen, or of three quarters of all: these stay apart."""
    sign = -1 if metric in HIGHER_IS_BETTER else 1
    losses = sorted(sign * one["scores"][metric]["value"] for one in answers)
    needed = [*on_front(answers, metric), chosen, *(one for one in answers if one["kind"] == "other")]
    worst = max(losses[3 * (len(losses) - 1) // 4], *(sign * one["scores"][metric]["value"] for one in needed))
    margin = 0.08 * (worst - losses[0]) or 0.01
    low, high = sorted((sign * (losses[0] - margin), sign * (worst + margin)))
    return low, high
