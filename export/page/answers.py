"""How an ensemble answers: every strategy, member and baseline on the test rows, and what fewer members would do."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from export.page import words
from export.page.blocks import Block, Plot, Plots, Section, Table, Words
from export.page.charts import ACCENT, HALF, axes, draw_front, front, label, legend, logarithmic, rows_of
from export.page.svg import INK, SERIES, SOFT, tip

Ensemble = Mapping[str, Any]
MEMBER = "member:"
NEARLY = 0.0025
"""A subset is nearly as good if it loses no more accuracy than this."""
MOST_ROWS = 12


def sections(ensemble: Ensemble) -> list[Section]:
    return [*_strategies(ensemble), *_subsets(ensemble)]


def plain(answer: str) -> str:
    return answer.removeprefix(MEMBER)


def _strategies(ensemble: Ensemble) -> list[Section]:
    test = ensemble.get("test") or {}
    if not test:
        return []
    baselines = {
        _of_baseline(ensemble, name): found["test"] for name, found in (ensemble.get("baselines") or {}).items()
    }
    strategies = {name: scores for name, scores in test.items() if not name.startswith(MEMBER)}
    members = {plain(name): scores for name, scores in test.items() if name.startswith(MEMBER)}
    groups = {"strategy": strategies, "member": members, "baseline": baselines}
    lines = [(kind, name, scores) for kind, found in groups.items() for name, scores in _ranked(found)]
    default = ensemble.get("default_strategy")
    blocks: list[Block] = [
        *_told(ensemble, strategies),
        Plots([_forest(lines, "accuracy", default), _forest(lines, "log_loss", default)]),
        _table(lines, default),
        *_gains(ensemble),
    ]
    return [Section("Strategies, members and baselines", blocks)]


def _of_baseline(ensemble: Ensemble, name: str) -> str:
    """A baseline's name, told from the strategy that is called the same."""
    return f"scikit-learn’s {name}" if name in (ensemble.get("test") or {}) else name


def _ranked(found: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return sorted(found.items(), key=lambda item: float(item[1]["log_loss"]["value"]))


def _told(ensemble: Ensemble, strategies: Mapping[str, Any]) -> list[Words]:
    if not strategies:
        return []
    best = max(strategies, key=lambda name: float(strategies[name]["accuracy"]["value"]))
    lowest = min(strategies, key=lambda name: float(strategies[name]["log_loss"]["value"]))
    told = f"On the test rows {best} is right most often, {words.figure(strategies[best]['accuracy']['value'])}"
    told += ", and has" if lowest == best else f"; {lowest} has"
    told += f" the lowest log-loss, {words.figure(strategies[lowest]['log_loss']['value'])}."
    beaten = [
        _of_baseline(ensemble, name)
        for name, found in (ensemble.get("baselines") or {}).items()
        if (found.get("difference") or {}).get("log_loss", {}).get("high", 0) < 0
    ]
    if beaten:
        told += f" The default strategy’s log-loss is surely lower than that of {words.listed(beaten)}."
    return [Words(told)]


def _forest(lines: Sequence[tuple[str, str, Any]], metric: str, default: str | None) -> Plot:
    """A value and its interval a line, strategies on top."""
    shown = "accuracy" if metric == "accuracy" else "log-loss"
    drawn = rows_of([name for _, name, _ in lines], shown, width=HALF)
    looks = {"strategy": ACCENT, "member": SOFT, "baseline": SERIES[1]}
    seen = set()
    for k, (kind, name, scores) in enumerate(lines):
        bounds, colour = scores[metric], looks[kind]
        low, high = bounds.get("low", bounds["value"]), bounds.get("high", bounds["value"])
        drawn.plot([low, high], [k, k], color=colour, linewidth=2.5, alpha=0.55)
        hint = tip(f"{name}: {words.interval(bounds)}")
        fill = {"facecolor": INK if name == default and kind == "strategy" else colour}
        drawn.scatter(bounds["value"], k, s=42, linewidths=0, zorder=3, gid=hint, **fill)
        seen.add(kind)
    for k in range(1, len(lines)):
        if lines[k][0] != lines[k - 1][0]:
            drawn.axhline(k - 0.5, color=SOFT, linewidth=0.8, alpha=0.6)
    lows, highs = (
        [scores[metric].get(end, scores[metric]["value"]) for *_, scores in lines] for end in ("low", "high")
    )
    if metric == "log_loss" and min(lows) > 0 and max(highs) > 4 * min(lows):
        logarithmic(drawn.xaxis, min(lows), max(highs))
    says = "With 95% bootstrap intervals. From the top: strategies, the default’s dot set off, members and baselines."
    return Plot(drawn.figure, f"Test {shown}", says)


def _table(lines: Sequence[tuple[str, str, Any]], default: str | None) -> Table:
    rows = [
        [
            name,
            "default strategy" if kind == "strategy" and name == default else kind,
            words.interval(scores["accuracy"]),
            words.interval(scores["log_loss"]),
            words.figure(_value(scores.get("brier"))),
            words.figure(_value(scores.get("ece")), 3),
        ]
        for kind, name, scores in lines
    ]
    marked = frozenset(k for k, (kind, name, _) in enumerate(lines) if kind == "strategy" and name == default)
    numbers = ["accuracy", "log-loss", "Brier", "ECE"]
    return Table("Test rows, 95% bootstrap intervals; in bold the default.", ["answer", "what"], numbers, rows, marked)


def _value(bounds: Any) -> float | None:
    return bounds.get("value") if isinstance(bounds, Mapping) else bounds


def _gains(ensemble: Ensemble) -> list[Table]:
    """Paired differences: strategies against the best member, the default strategy against the baselines."""
    rows = []
    for strategy, metrics in (ensemble.get("over_best_member") or {}).items():
        against = dict.fromkeys(metrics[key]["member"] for key in ("accuracy", "log_loss") if key in metrics)
        rows.append(
            [
                strategy,
                " / ".join(against),
                _change(metrics.get("accuracy"), words.points),
                _change(metrics.get("log_loss"), words.signed),
            ]
        )
    default = str(ensemble.get("default_strategy", ""))
    for name, found in (ensemble.get("baselines") or {}).items():
        difference = found.get("difference") or {}
        rows.append(
            [
                default,
                _of_baseline(ensemble, name),
                _change(difference.get("accuracy"), words.points),
                _change(difference.get("log_loss"), words.signed),
            ]
        )
    if not rows:
        return []
    caption = "What a strategy gains on the same rows: over the member that is best at it, and over the baselines."
    return [Table(caption, ["strategy", "against"], ["accuracy, points", "log-loss"], rows)]


def _change(bounds: Mapping[str, Any] | None, written: Callable[[float], str]) -> str:
    """A difference and its interval, each as `written` has it."""
    if not bounds:
        return words.NONE
    low, value, high = (written(bounds[key]) for key in ("low", "value", "high"))
    return f"{value} ({low} to {high})"


# ---- Fewer members --------------------------------------------------------------------------------------------------


def _subsets(ensemble: Ensemble) -> list[Section]:
    subsets = ensemble.get("subsets") or []
    if not subsets:
        return []
    best = max(subsets, key=lambda subset: (subset["accuracy"], -subset["cost_us"]))
    near = min(
        (subset for subset in subsets if subset["accuracy"] >= best["accuracy"] - NEARLY),
        key=lambda subset: (subset["cost_us"], -subset["accuracy"]),
    )
    blocks: list[Block] = [
        Words(_told_of_subsets(subsets, best, near)),
        Plots([_subsets_plot(ensemble, subsets, metric, near) for metric in ("accuracy", "log_loss")]),
        _subsets_table(subsets),
    ]
    return [Section("What fewer members would do", blocks)]


def _told_of_subsets(subsets: Sequence[Any], best: Any, near: Any) -> str:
    n_sets = len({tuple(subset["members"]) for subset in subsets})
    told = (
        f"{words.number(n_sets, 'set')} of members, under every strategy, on validation rows. Most often right: "
        f"{words.listed(best['members'])} by {best['strategy']}, {words.figure(best['accuracy'])} at "
        f"{words.microseconds(best['cost_us'])} a row."
    )
    if near["cost_us"] >= best["cost_us"]:
        return f"{told} None that is cheaper comes within {words.points(NEARLY)[1:]} points of it."
    return (
        f"{told} {words.listed(near['members'])} by {near['strategy']} costs "
        f"{words.compared(near['cost_us'], best['cost_us'])} and comes within "
        f"{words.figure(100 * (best['accuracy'] - near['accuracy']), 2)} points of it."
    )


def _subsets_plot(ensemble: Ensemble, subsets: Sequence[Any], metric: str, near: Any) -> Plot:
    shown = "accuracy" if metric == "accuracy" else "log-loss"
    drawn = axes("µs a row, logarithmic", f"validation {shown}")
    costs = [subset["cost_us"] for subset in subsets]
    logarithmic(drawn.xaxis, min(costs), max(costs))
    drawn.set_ylim(*_limits(subsets, metric))
    alone = [subset for subset in subsets if len(subset["members"]) == 1]
    several = [subset for subset in subsets if len(subset["members"]) > 1]
    for group, look in (
        (several, {"color": SOFT, "alpha": 0.22, "s": 12, "label": "several"}),
        (alone, {"color": SERIES[1], "s": 26, "label": "one", "zorder": 3}),
    ):
        if group:
            places = [subset["cost_us"] for subset in group], [subset[metric] for subset in group]
            drawn.scatter(*places, linewidths=0, **look)
    draw_front(drawn, [(subset["cost_us"], subset[metric]) for subset in subsets], higher=metric == "accuracy")
    for subset in _front(subsets, metric):
        drawn.scatter(
            subset["cost_us"], subset[metric], s=30, color=ACCENT, linewidths=0, zorder=4, gid=tip(_tip(subset))
        )
    for subset in (subset for subset in subsets if _published(ensemble, subset)):
        drawn.scatter(
            subset["cost_us"], subset[metric], s=130, marker="*", color=INK, linewidths=0, zorder=5, label="published"
        )
    if metric == "accuracy":
        hint = f"{len(near['members'])} members" if len(near["members"]) > 1 else near["members"][0]
        drawn.plot(
            near["cost_us"], near[metric], "o", markersize=13, markerfacecolor="none", markeredgecolor=INK, zorder=5
        )
        label(drawn, [(near["cost_us"], near[metric], hint)])
    legend(drawn)
    says = "Of the worst, not all are within the plot."
    if metric == "accuracy":
        says += " The line is the front; the ring, the cheapest that is nearly the best."
    return Plot(drawn.figure, f"{shown.capitalize()} against cost", says)


def _published(ensemble: Ensemble, subset: Any) -> bool:
    everyone = len(subset["members"]) == len(ensemble.get("members") or {})
    return everyone and bool(subset["strategy"] == ensemble.get("default_strategy"))


def _limits(subsets: Sequence[Any], metric: str) -> tuple[float, float]:
    """From the best to the worst of the front, or to where three quarters of all are: these are to stay apart."""
    sign = -1 if metric == "accuracy" else 1
    ordered = sorted(sign * subset[metric] for subset in subsets)
    worst = max(ordered[3 * (len(ordered) - 1) // 4], *(sign * subset[metric] for subset in _front(subsets, metric)))
    margin = 0.08 * (worst - ordered[0]) or 0.01
    low, high = sorted((sign * (ordered[0] - margin), sign * (worst + margin)))
    return low, high


def _front(subsets: Sequence[Any], metric: str) -> list[Any]:
    sign = -1 if metric == "accuracy" else 1
    places = {(subset["cost_us"], sign * subset[metric]): subset for subset in reversed(subsets)}
    return [places[place] for place in front(places)]


def _subsets_table(subsets: Sequence[Any]) -> Table:
    steps = _front(subsets, "log_loss")
    if len(steps) > MOST_ROWS:
        kept = {round(k * (len(steps) - 1) / (MOST_ROWS - 1)) for k in range(MOST_ROWS)}
        steps = [step for k, step in enumerate(steps) if k in kept]
    rows = [
        [
            ", ".join(step["members"]),
            step["strategy"],
            words.cost(step["cost_us"]),
            words.figure(step["accuracy"]),
            words.figure(step["log_loss"]),
        ]
        for step in steps
    ]
    caption = "The front of log-loss and cost, cheapest first: none that costs less has a lower log-loss."
    return Table(caption, ["members", "strategy"], ["µs a row", "accuracy", "log-loss"], rows)


def _tip(subset: Any) -> str:
    return (
        f"{', '.join(subset['members'])}\nby {subset['strategy']}\naccuracy {words.figure(subset['accuracy'])}, "
        f"log-loss {words.figure(subset['log_loss'])}\n{words.microseconds(subset['cost_us'])}"
    )
