"""How an ensemble's members were chosen: the path, the weights, the budget, and how much the candidates differ."""

from collections.abc import Mapping, Sequence
from typing import Any

from export.page import words
from export.page.blocks import Block, Cell, Heat, Plot, Plots, Section, Table, Words
from export.page.charts import ACCENT, axes, bars, label, rows_of, whole
from export.page.svg import tip

Selection = Mapping[str, Any]
MOST_LABELS = 12


def sections(ensemble: Mapping[str, Any]) -> list[Section]:
    selection = ensemble.get("selection") or {}
    if not selection.get("members"):
        return []
    blocks: list[Block] = [Words(_told(selection))]
    budget = _budget(selection)
    if budget:
        blocks.append(Words(budget))
    blocks.append(Plots([_weights_plot(selection["members"]), *_path_plot(selection.get("path") or [])]))
    blocks.append(_table(selection))
    blocks.extend(_disagreement(selection.get("disagreement") or {}, selection["members"]))
    return [Section("How its members were chosen", blocks)]


def _told(selection: Selection) -> str:
    members, candidates = selection["members"], selection.get("candidates") or []
    heaviest = max(members, key=lambda name: float(members[name]))
    told = f"{words.number(len(members), 'member')} of {words.number(len(candidates), 'candidate')}"
    told = f"{told}; the heaviest is {heaviest} with {words.share(members[heaviest])} of the weight."
    alone = next((step["log_loss"] for step in selection.get("path") or []), None)
    if alone is None or selection.get("log_loss") is None:
        return told
    return (
        f"{told} Together they reach a validation log-loss of {words.figure(selection['log_loss'])}, where the first "
        f"that was picked has {words.figure(alone)} alone."
    )


def _budget(selection: Selection) -> str:
    limits = selection.get("limits") or {}
    spent = []
    for limit, key, unit in (("max_cost_us", "cost_us", "µs a row"), ("max_size_mb", "size_mb", "MB")):
        if limits.get(limit) and selection.get(key) is not None:
            used, allowed = selection[key], limits[limit]
            spent.append(f"{words.cost(used)} of {words.cost(allowed)} {unit} ({words.share(used / allowed)})")
    if limits.get("max_members"):
        spent.append(f"{len(selection['members'])} of {limits['max_members']} members")
    return f"Budget used: {words.listed(spent)}." if spent else ""


def _weights_plot(members: Mapping[str, float]) -> Plot:
    ordered = sorted(members.items(), key=lambda item: -item[1])
    drawn = rows_of([name for name, _ in ordered], "weight", right=44)
    weights = [weight for _, weight in ordered]
    bars(drawn, weights, [words.figure(weight, 3) for weight in weights], ACCENT)
    drawn.set_xlim(0, None)
    return Plot(drawn.figure, "Weights", "As the selection found them, by validation log-loss.")


def _path_plot(path: Sequence[Mapping[str, Any]]) -> list[Plot]:
    if len(path) < 2:
        return []
    drawn = axes("pick", "validation log-loss")
    losses = [step["log_loss"] for step in path]
    picks = range(1, len(path) + 1)
    drawn.plot(picks, losses, color=ACCENT, linewidth=1.5)
    seen: set[str] = set()
    for pick, step in zip(picks, path, strict=True):
        new = step["added"] not in seen
        hint = tip(f"pick {pick}: {step['added']}, {words.figure(step['log_loss'])}")
        drawn.scatter(pick, step["log_loss"], s=40 if new else 16, color=ACCENT, linewidths=0, zorder=3, gid=hint)
        seen.add(step["added"])
    whole(drawn.xaxis)
    drawn.margins(x=0.06, y=0.12)
    firsts = {step["added"]: (pick, step["log_loss"], step["added"]) for pick, step in reversed([*enumerate(path, 1)])}
    label(drawn, sorted(firsts.values())[:MOST_LABELS])
    says = f"From {words.figure(losses[0])} to {words.figure(min(losses))}. Large dots: picked for the first time."
    return [Plot(drawn.figure, "The greedy path", says)]


def _table(selection: Selection) -> Table:
    members, costs, sizes = selection["members"], selection.get("costs_us") or {}, selection.get("bytes") or {}
    names = sorted({*members, *(selection.get("candidates") or [])}, key=lambda name: (-members.get(name, 0.0), name))
    highest = max(members.values())
    rows: list[list[str | Cell]] = [
        [
            name,
            Cell(words.figure(members[name], 3), members[name] / highest) if name in members else words.NONE,
            words.cost(costs.get(name)),
            words.size(sizes.get(name)),
        ]
        for name in names
    ]
    marked = frozenset(k for k, name in enumerate(names) if name in members)
    caption = "Every candidate that was looked at; in bold those that were taken."
    return Table(caption, ["candidate"], ["weight", "µs a row", "size"], rows, marked, folded=len(names) > 12)


def _disagreement(disagreement: Mapping[str, Any], members: Mapping[str, float]) -> list[Block]:
    """Between members only, if there are many candidates."""
    names, matrix = disagreement.get("names") or [], disagreement.get("matrix") or []
    kept = [k for k, name in enumerate(names) if len(names) <= MOST_LABELS or name in members]
    pairs = [(matrix[i][j], names[i], names[j]) for i in kept for j in kept if i < j]
    if not pairs:
        return []
    highest = max(pairs)[0] or 1.0
    cells = [
        [Cell("" if i == j else words.share(matrix[i][j], 1), 0.0 if i == j else matrix[i][j] / highest) for j in kept]
        for i in kept
    ]
    (most, a, b), (least, c, d) = max(pairs), min(pairs)
    told = f"Most apart: {a} and {b}, on {words.share(most, 1)} of the rows."
    if len(pairs) > 1:
        told += f" Most alike: {c} and {d}, on {words.share(least, 1)}."
    shown = [names[k] for k in kept]
    return [
        Words(told),
        Heat("Share of the validation rows on which two give different labels.", "", shown, shown, cells),
    ]
