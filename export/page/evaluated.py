"""The page of an evaluation: how a published ensemble answers rows that it has not seen, at what cost, and against
another."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from export.page import mistakes, words
from export.page.blocks import Block, Cell, Plot, Plots, Section, Table, Tile, Tiles, Words
from export.page.charts import ACCENT, WIDE, axes, label, logarithmic, rows_of
from export.page.frontier import frontier
from export.page.metrics import NAMES, UNITS, difference, interval, value
from export.page.svg import INK, SERIES, SOFT, tip
from export.page.whole import whole_page

Record = Mapping[str, Any]
LOOKS = {"strategy": ACCENT, "member": SERIES[1], "other": SERIES[2]}
MUCH = 4
"""Figures that are so many times each other are shown on a logarithmic axis."""
MOST_OPEN = 12
"""Rows of a table that is not folded."""


def render(record: Record) -> str:
    """One HTML page that needs nothing else: the same for the same record of `export.evaluating.record`."""
    name = f"{record['ensemble']} {record['version']}, evaluated"
    return whole_page(name, record["description"], _sections(record), _facts(record))


def default_answer(record: Record) -> Any:
    """The default strategy's entry among the answers."""
    default = record["default_strategy"]
    return next(one for one in record["answers"] if (one["kind"], one["name"]) == ("strategy", default))


def shown_metrics(record: Record) -> tuple[str, str]:
    """The two that are drawn."""
    return ("accuracy", "log_loss") if record["task"] == "classification" else ("rmse", "r2")


def told_of_differences(differences: Mapping[str, Any]) -> str:
    """`Better: accuracy by 0.42 points (+0.10 to +0.75, p 0.004). No real difference: ECE (−0.01 to +0.02, p 0.32).`"""
    told = []
    for verdict in ("better", "worse", "no real difference"):
        found = {metric: one for metric, one in differences.items() if one["verdict"] == verdict}
        if found:
            said = words.listed(_told(metric, one) for metric, one in found.items())
            told.append(f"{verdict[0].upper()}{verdict[1:]}: {said}.")
    return " ".join(told)


def _told(metric: str, found: Mapping[str, Any]) -> str:
    bounds = found["difference"]
    between = f"{difference(metric, bounds['low'])} to {difference(metric, bounds['high'])}, p {p_value(found)}"
    name = "cost" if metric == "cost_us" else NAMES[metric]
    if found["verdict"] == "no real difference":
        return f"{name} ({between})"
    return f"{name} by {difference(metric, abs(bounds['value']))[1:]}{UNITS.get(metric, '')} ({between})"


def p_value(found: Mapping[str, Any]) -> str:
    """`0.0420`, `below 0.001`"""
    return "below 0.001" if found["p_value"] < 0.001 else words.figure(found["p_value"], 3)


def _sections(record: Record) -> Iterator[Section]:
    yield _summary(record)
    if record.get("against"):
        yield _against(record)
    yield frontier(record, shown_metrics(record))
    yield _strategies(record)
    yield from _subsets(record)
    yield from _cascade(record)
    yield from _selective(record)
    classes = [str(name) for name in record["data"]["outputs"]]
    yield from mistakes.sections(record, classes)


def _summary(record: Record) -> Section:
    default = default_answer(record)
    told = (
        f"{record['ensemble']} {record['version']} answers {words.number(record['data']['rows'], 'row')} of "
        f"{record['data']['path']} by {record['default_strategy']}, its default strategy."
    )
    tiles = [
        Tile(
            NAMES[metric],
            value(metric, bounds["value"]),
            f"{value(metric, bounds['low'])} to {value(metric, bounds['high'])}",
        )
        for metric, bounds in default["scores"].items()
    ]
    tiles.append(Tile("a row", words.microseconds(default["cost_us"]), "one thread, batches of 64"))
    return Section("Summary", [Words(told), Tiles(tiles), *(Words(f"Note: {note}.") for note in record["notes"])])


def _against(record: Record) -> Section:
    other, default = record["against"], default_answer(record)
    first, second = (f"{entry['ensemble']} {entry['version']}" for entry in (record, other))
    rows = []
    for metric, found in other["differences"].items():
        own, theirs = (
            words.cost(entry["cost_us"]) if metric == "cost_us" else value(metric, entry["scores"][metric]["value"])
            for entry in (default, other)
        )
        bounds = found["difference"]
        shown = (difference(metric, bounds[end]) for end in ("value", "low", "high"))
        rows.append([NAMES[metric], own, theirs, "{} ({} to {})".format(*shown), p_value(found), found["verdict"]])
    marked = frozenset(k for k, row in enumerate(rows) if row[-1] != "no real difference")
    about = (
        f"{first} by {record['default_strategy']} beside {second} by {other['strategy']}, on the same rows. "
        f"{told_of_differences(other['differences'])}"
    )
    columns = [first, second, "difference", "p", f"{first} is"]
    points = ", accuracy’s in points," if "accuracy" in other["differences"] else ""
    caption = f"Differences{points} with 95% intervals of a paired bootstrap; in bold the real ones."
    blocks: list[Block] = [Words(about), Table(caption, ["metric"], columns, rows, marked)]
    if "mcnemar" in other:
        test = other["mcnemar"]
        blocks.append(
            Words(
                f"McNemar’s test, exact: {words.number(test['only_first'], 'row')} only {first} has right, "
                f"{words.number(test['only_second'], 'row')} only {second}; p {p_value(test)}.",
                soft=True,
            )
        )
    return Section(f"Against {second}", blocks)


# ---- Answers --------------------------------------------------------------------------------------------------------


def _strategies(record: Record) -> Section:
    strategies, members = ([one for one in record["answers"] if one["kind"] == kind] for kind in ("strategy", "member"))
    lines = [*_ranked(strategies, record), *_ranked(members, record)]
    if record.get("against"):
        other = record["against"]
        lines.append({**other, "kind": "other", "name": f"{other['ensemble']} {other['version']}"})
    default = record["default_strategy"]
    plots = [_forest(lines, metric, default) for metric in shown_metrics(record)]
    return Section("Strategies and members", [Plots(plots), _table(lines, record)])


def _ranked(answers: Sequence[Any], record: Record) -> list[Any]:
    """By the measure that a strategy is chosen by."""
    metric = "log_loss" if record["task"] == "classification" else "rmse"
    return sorted(answers, key=lambda one: float(one["scores"][metric]["value"]))


def _forest(lines: Sequence[Any], metric: str, default: str) -> Plot:
    """A value and its interval a line, strategies on top."""
    drawn = rows_of([one["name"] for one in lines], NAMES[metric])
    for k, one in enumerate(lines):
        bounds, colour = one["scores"][metric], LOOKS[one["kind"]]
        drawn.plot([bounds["low"], bounds["high"]], [k, k], color=colour, linewidth=2.5, alpha=0.55)
        fill = INK if (one["kind"], one["name"]) == ("strategy", default) else colour
        hint = tip(f"{one['name']}: {interval(metric, bounds)}")
        drawn.scatter(bounds["value"], k, s=42, linewidths=0, zorder=3, gid=hint, facecolor=fill)
        if k and one["kind"] != lines[k - 1]["kind"]:
            drawn.axhline(k - 0.5, color=SOFT, linewidth=0.8, alpha=0.6)
    if metric != "r2" and (low := min(one["scores"][metric]["low"] for one in lines)) > 0:
        high = max(one["scores"][metric]["high"] for one in lines)
        if high > MUCH * low:
            logarithmic(drawn.xaxis, low, high)
    says = "With 95% bootstrap intervals. Strategies, the default’s dot set off, above members."
    return Plot(drawn.figure, NAMES[metric], says)


def _table(lines: Sequence[Any], record: Record, *, caption: str = "", folded: bool = False) -> Table:
    default = ("strategy", record["default_strategy"])
    metrics = list(lines[0]["scores"])
    rows: list[list[str | Cell]] = []
    for one in lines:
        kind = "default" if (one["kind"], one["name"]) == default else one["kind"]
        figures = [
            interval(metric, one["scores"][metric]) if k < 2 else value(metric, one["scores"][metric]["value"])
            for k, metric in enumerate(metrics)
        ]
        rows.append([one["name"], kind, *figures, words.cost(one["cost_us"])])
    marked = frozenset(k for k, one in enumerate(lines) if (one["kind"], one["name"]) == default)
    numbers = [*(NAMES[metric] for metric in metrics), "µs a row"]
    said = caption or "95% bootstrap intervals; in bold the default."
    return Table(said, ["answer", "what"], numbers, rows, marked, folded)


def _subsets(record: Record) -> Iterator[Section]:
    subsets = [one for one in record["answers"] if one["kind"] == "subset"]
    if not subsets:
        return
    told = f"Of {words.number(len(record['members']), 'member')}, fused by {record['subset_strategy']}."
    caption = f"{words.number(len(subsets), 'subset')}, the best first."
    table = _table(_ranked(subsets, record), record, caption=caption, folded=len(subsets) > MOST_OPEN)
    yield Section("Fewer members", [Words(told), table])


def _cascade(record: Record) -> Iterator[Section]:
    found = [one for one in record["answers"] if "answered_by_stage" in one]
    if len(found) < 2:
        return
    n_stages = max(len(one["answered_by_stage"]) for one in found)
    metrics = list(found[0]["scores"])[:2]
    rows: list[Sequence[str | Cell]] = [
        [
            "as published" if one.get("threshold") is None else words.figure(one["threshold"], 3),
            *(interval(metric, one["scores"][metric]) for metric in metrics),
            *(Cell(words.share(share, 1), share) for share in one["answered_by_stage"]),
            words.cost(one["cost_us"]),
        ]
        for one in found
    ]
    columns = [*(NAMES[metric] for metric in metrics), *(f"stage {k + 1}" for k in range(n_stages)), "µs a row"]
    caption = "A row goes on to the next stage unless its answer is at least so sure. Of each stage, the share of rows."
    yield Section("Thresholds of the cascade", [Table(caption, ["threshold"], columns, rows)])


def _selective(record: Record) -> Iterator[Section]:
    found = record.get("selective") or []
    if len(found) < 2:
        return
    drawn = axes("share of rows that is answered", "accuracy of these", width=WIDE, height=260)
    drawn.plot([one["answered"] for one in found], [one["accuracy"] for one in found], color=ACCENT, linewidth=1.5)
    for one in found:
        hint = tip(
            f"abstain_below {one['abstain_below']:g}: {words.share(one['answered'], 1)} answered, "
            f"{words.figure(one['accuracy'])} right"
        )
        drawn.scatter(one["answered"], one["accuracy"], s=18, color=ACCENT, linewidths=0, zorder=3, gid=hint)
    drawn.margins(x=0.05, y=0.12)
    picked = _few(found)
    label(drawn, [(one["answered"], one["accuracy"], f"{one['abstain_below']:g}") for one in picked])
    rows: list[Sequence[str | Cell]] = [
        [
            f"{one['abstain_below']:g}",
            Cell(words.share(one["answered"], 1), one["answered"]),
            words.figure(one["accuracy"]),
        ]
        for one in picked
    ]
    table = Table("Where it abstains below a confidence.", ["abstain_below"], ["answered", "accuracy"], rows)
    told = (
        f"With abstain_below, {record['default_strategy']} leaves out the rows that it is least sure of: at "
        f"{picked[-1]['abstain_below']:g} it answers {words.share(picked[-1]['answered'], 1)} of them, and "
        f"{words.figure(picked[-1]['accuracy'])} of these rightly."
    )
    says = "The numbers are the values of abstain_below."
    plot = Plot(drawn.figure, "Accuracy against share answered", says, wide=True)
    yield Section("Answering fewer rows", [Words(told), plot, table])


def _few(found: Sequence[Any]) -> list[Any]:
    """Eight at most, the first and the last among them, spread over the shares."""
    kept = [found[0]]
    for one in found[1:-1]:
        if kept[-1]["answered"] - one["answered"] >= (found[0]["answered"] - found[-1]["answered"]) / 7:
            kept.append(one)
    return [*kept[:7], found[-1]]


def _facts(record: Record) -> list[tuple[str, str]]:
    data = record["data"]
    outputs = [str(name) for name in data["outputs"]]
    facts = {
        "ensemble": record["folder"],
        "data": data["path"],
        "rows": words.count(data["rows"]),
        "classes" if record["task"] == "classification" else "targets": (
            f"{len(outputs)}: {', '.join(outputs[:20])}{' …' if len(outputs) > 20 else ''}"
        ),
        "seed": record["seed"],
        "made": record["created"],
        "machine": record["machine"],
        "software": ", ".join(f"{name} {version}" for name, version in record["software"].items()),
        **{NAMES.get(name, name): about for name, about in record["metrics"].items()},
    }
    return [(name, str(about)) for name, about in facts.items()]
