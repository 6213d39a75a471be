"""Where an ensemble's answers go wrong: confidence that does not hold, and classes taken for one another."""

from collections.abc import Mapping, Sequence
from typing import Any

from export.page import words
from export.page.answers import plain
from export.page.blocks import Block, Cell, Heat, Plot, Plots, Section, Table, Words
from export.page.charts import ACCENT, axes
from export.page.svg import LINE, SOFT, tip

Bins = Sequence[Mapping[str, float]]
MOST_CLASSES = 20
MOST_PAIRS = 10
TICKS = (0, 0.25, 0.5, 0.75, 1)
FEW = 10
"""A bin of fewer rows is drawn faintly: chance has much to do with it."""


def sections(ensemble: Mapping[str, Any], classes: Sequence[str]) -> list[Section]:
    return [*_reliability(ensemble), *_confusion(ensemble, classes)]


def _reliability(ensemble: Mapping[str, Any]) -> list[Section]:
    answers = _distinct(ensemble, "reliability")
    if not answers:
        return []
    errors = {answer: _ece(bins) for answer, bins in answers.items()}
    best, worst = min(errors, key=errors.__getitem__), max(errors, key=errors.__getitem__)
    told = f"Confidence holds best in {plain(best)} (ECE {words.figure(errors[best], 3)})"
    if worst != best:
        leaning = "too sure of itself" if _leaning(answers[worst]) > 0 else "not sure enough"
        told += f" and least in {plain(worst)} ({words.figure(errors[worst], 3)}), which is {leaning}"
    about = "Of answers given with a confidence of 0.8, eight in ten should be right: points on the diagonal. "
    about += "A point’s area is the share of rows; bars show how far they are off. Bins of few rows are faint."
    default = ensemble.get("default_strategy")
    plots = [_diagram(answer, bins, accent=answer == default) for answer, bins in answers.items()]
    return [
        Section(
            "Can its confidence be trusted?", [Words(f"{told}."), Words(about, soft=True), Plots(plots, small=True)]
        )
    ]


def _distinct(ensemble: Mapping[str, Any], key: str) -> dict[str, Any]:
    """What each answer has under this key, the default strategy's first; of answers that are all the same, one."""
    default, found = ensemble.get("default_strategy"), ensemble.get(key) or {}
    kept: dict[str, Any] = {}
    for answer in sorted(found, key=lambda answer: answer != default):
        if found[answer] and found[answer] not in kept.values():
            kept[answer] = found[answer]
    return kept


def _ece(bins: Bins) -> float:
    total = sum(entry["count"] for entry in bins) or 1
    return sum(entry["count"] * abs(entry["confidence"] - entry["accuracy"]) for entry in bins) / total


def _leaning(bins: Bins) -> float:
    """Mean confidence less accuracy: above zero, too sure."""
    total = sum(entry["count"] for entry in bins) or 1
    return sum(entry["count"] * (entry["confidence"] - entry["accuracy"]) for entry in bins) / total


def _diagram(answer: str, bins: Bins, *, accent: bool) -> Plot:
    drawn = axes("confidence", "accuracy", width=280, height=270)
    colour = ACCENT if accent else SOFT
    total = sum(entry["count"] for entry in bins) or 1
    drawn.plot([0, 1], [0, 1], color=LINE, linewidth=1.5, zorder=1)
    for entry in bins:
        x, y, part = entry["confidence"], entry["accuracy"], entry["count"] / total
        drawn.plot([x, x], [x, y], color=colour, linewidth=2.5, alpha=0.1 if entry["count"] < FEW else 0.35)
        hint = tip(f"{words.count(entry['count'])} rows: confidence {words.figure(x, 3)}, right {words.figure(y, 3)}")
        drawn.scatter(
            x,
            y,
            s=14 + 160 * part,
            color=colour,
            linewidths=0,
            alpha=0.3 if entry["count"] < FEW else 0.9,
            zorder=3,
            clip_on=False,
            gid=hint,
        )
    drawn.set(xlim=(0, 1.02), ylim=(0, 1.02), xticks=TICKS, yticks=TICKS)
    leaning = _leaning(bins)
    how = "too sure by" if leaning > 0 else "too modest by"
    says = f"ECE {words.figure(_ece(bins), 3)}; on the whole {how} {words.figure(abs(100 * leaning), 1)} points."
    return Plot(drawn.figure, plain(answer), says)


def _confusion(ensemble: Mapping[str, Any], classes: Sequence[str]) -> list[Section]:
    answers = _distinct(ensemble, "confusion")
    if not answers:
        return []
    default = ensemble.get("default_strategy")
    first = str(default) if default in answers else next(iter(answers))
    names = [str(name) for name in classes] or [str(k) for k in range(len(answers[first]))]
    blocks: list[Block] = [Words(_told(first, answers[first], names))]
    if len(names) <= MOST_CLASSES:
        blocks.append(_heat(first, answers[first], names))
    if len(answers) > 1:
        blocks.append(_recalls(answers, names))
    blocks.append(_pairs(answers, names))
    return [Section("What is taken for what", blocks)]


def _worst(counts: Sequence[Sequence[int]]) -> list[tuple[int, int, int]]:
    """`(count, true, answered)` of what was answered wrongly, the commonest first."""
    wrong = [(n, i, j) for i, row in enumerate(counts) for j, n in enumerate(row) if i != j and n]
    return sorted(wrong, key=lambda entry: (-entry[0], entry[1:]))


def _told(answer: str, counts: Sequence[Sequence[int]], names: Sequence[str]) -> str:
    wrong = _worst(counts)
    if not wrong:
        return f"{plain(answer)} takes no class for another."
    n, i, j = wrong[0]
    errors = sum(count for count, *_ in wrong)
    both = n + counts[j][i]
    return (
        f"{plain(answer)} errs most by answering {names[j]} for {names[i]}, {words.number(n, 'time')}; the two are "
        f"{words.share(both / errors)} of its {words.number(errors, 'mistake')}."
    )


def _heat(answer: str, counts: Sequence[Sequence[int]], names: Sequence[str]) -> Heat:
    totals = [sum(row) or 1 for row in counts]
    highest = max([n / totals[i] for n, i, _ in _worst(counts)], default=1.0)
    cells = [
        [Cell(words.count(n) if n else "", 0.0 if i == j else n / totals[i] / highest) for j, n in enumerate(row)]
        for i, row in enumerate(counts)
    ]
    caption = f"{plain(answer)}: true classes down, answers across; the deeper, the larger the share of the class."
    return Heat(caption, "true", names, names, cells)


def _recalls(answers: Mapping[str, Any], names: Sequence[str]) -> Heat:
    """Share of each class that each answer gets right: who is good at what."""
    shares = [[row[i] / (sum(row) or 1) for i, row in enumerate(counts)] for counts in answers.values()]
    lows = [min(column) for column in zip(*shares, strict=True)]
    highs = [max(column) for column in zip(*shares, strict=True)]
    cells = [
        [
            Cell(words.share(value, 1), (value - low) / (high - low) if high > low else 0.0)
            for value, low, high in zip(row, lows, highs, strict=True)
        ]
        for row in shares
    ]
    # Classes go down, since there may be many of them.
    turned = [list(column) for column in zip(*cells, strict=True)]
    columns = [plain(answer) for answer in answers]
    return Heat("Share of each class that is answered right; a row’s best is deepest.", "class", names, columns, turned)


def _pairs(answers: Mapping[str, Any], names: Sequence[str]) -> Table:
    rows = [
        [plain(answer), names[i], names[j], words.count(n), words.share(n / (sum(counts[i]) or 1), 1)]
        for answer, counts in answers.items()
        for n, i, j in _worst(counts)[: MOST_PAIRS if len(answers) == 1 else 3]
    ]
    caption = "The commonest mistakes of each, with their share of the true class."
    return Table(caption, ["answer", "true class", "taken for"], ["rows", "of the class"], rows, folded=True)
