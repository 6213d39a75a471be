"""Every candidate: what it costs and reaches on the validation rows, and what it was made of."""

from collections.abc import Mapping, Sequence
from typing import Any

from export.page import words
from export.page.blocks import Block, Plot, Section, Table, Words
from export.page.charts import WIDE, axes, draw_front, label, legend, logarithmic
from export.page.svg import INK, SERIES, SOFT, tip

Candidate = Mapping[str, Any]
FAMILIES = {
    "network": ("o", SERIES[0]),
    "student": ("D", SERIES[1]),
    "pruned": ("v", SERIES[2]),
    "quantised": ("s", SERIES[3]),
    "trees": ("^", SERIES[4]),
}
"""A mark and a colour each."""
TREES = ("decision_tree", "random_forest", "extra_trees", "xgboost", "lightgbm")


def sections(numbers: Mapping[str, Any]) -> list[Section]:
    candidates = [candidate for candidate in numbers.get("candidates") or [] if candidate.get("cost_us") is not None]
    if not candidates:
        return []
    ensembles = numbers.get("ensembles") or []
    blocks: list[Block] = [
        Words(_told(candidates)),
        *[Words(_lesson(candidate, candidates)) for candidate in candidates if candidate.get("teachers")],
        _plot(candidates, ensembles),
        _table(candidates, ensembles),
        *_failures(numbers.get("failed") or []),
    ]
    return [Section("Every candidate", blocks)]


def family(candidate: Candidate) -> str:
    if candidate.get("teachers"):
        return "student"
    kind = candidate["kind"]
    return {"pruned_cnn": "pruned", "quantised": "quantised"}.get(kind, "trees" if kind in TREES else "network")


def _told(candidates: Sequence[Candidate]) -> str:
    best, cheapest = (min(candidates, key=lambda candidate: float(candidate[key])) for key in ("log_loss", "cost_us"))
    told = (
        f"{words.number(len(candidates), 'candidate')}. Best alone: {best['name']}, accuracy "
        f"{words.figure(best['accuracy'])}, log-loss {words.figure(best['log_loss'])} at "
        f"{words.microseconds(best['cost_us'])} a row."
    )
    if cheapest is best:
        return f"{told} It is the cheapest, too."
    return (
        f"{told} Cheapest: {cheapest['name']}, {words.microseconds(cheapest['cost_us'])}; its accuracy is "
        f"{words.moved(cheapest['accuracy'] - best['accuracy'], in_points=True)}."
    )


def _lesson(student: Candidate, candidates: Sequence[Candidate]) -> str:
    """How a distilled network compares with those it learned from."""
    teachers = [candidate for candidate in candidates if candidate["name"] in student["teachers"]]
    told = f"{student['name']} learned from {words.listed(student['teachers'])}"
    if not teachers:
        return f"{told}."
    best = min(teachers, key=lambda teacher: float(teacher["log_loss"]))
    dearer = words.microseconds(sum(teacher["cost_us"] for teacher in teachers))
    several = len(teachers) > 1
    return (
        f"{told}: it costs {words.microseconds(student['cost_us'])} a row where "
        f"{f'they cost {dearer} together' if several else f'that costs {dearer}'}. Against {best['name']}"
        f"{', the best of them' if several else ''}, its accuracy is "
        f"{words.moved(student['accuracy'] - best['accuracy'], in_points=True)} and its log-loss "
        f"{words.moved(student['log_loss'] - best['log_loss'])}."
    )


def _plot(candidates: Sequence[Candidate], ensembles: Sequence[Mapping[str, Any]]) -> Plot:
    drawn = axes("µs a row, logarithmic", "validation log-loss", width=WIDE, height=440)
    whole = [entry for entry in ensembles if (entry.get("selection") or {}).get("log_loss")]
    places = {candidate["name"]: (candidate["cost_us"], candidate["log_loss"]) for candidate in candidates}
    chosen = [(entry["cost_us"], entry["selection"]["log_loss"], entry["name"]) for entry in whole]
    costs = [cost for cost, *_ in [*places.values(), *chosen]]
    losses = [loss for _, loss, *_ in [*places.values(), *chosen]]
    logarithmic(drawn.xaxis, min(costs), max(costs))
    if min(losses) > 0 and max(losses) > 3 * min(losses):
        logarithmic(drawn.yaxis, min(losses), max(losses))
    draw_front(drawn, places.values())
    for candidate in candidates:
        for source in candidate.get("made_of", []):
            if source in places:
                drawn.plot(
                    *zip(places[source], places[candidate["name"]], strict=True), color=SOFT, linewidth=1, alpha=0.5
                )
    for name, (marker, colour) in FAMILIES.items():
        for k, candidate in enumerate(c for c in candidates if family(c) == name):
            drawn.scatter(
                *places[candidate["name"]],
                s=46,
                marker=marker,
                color=colour,
                linewidths=0,
                zorder=3,
                label=name if k == 0 else None,
                gid=tip(_tip(candidate)),
            )
    for k, (cost, loss, name) in enumerate(chosen):
        drawn.scatter(
            cost,
            loss,
            s=130,
            marker="*",
            color=INK,
            linewidths=0,
            zorder=4,
            label="ensemble" if k == 0 else None,
            gid=tip(f"ensemble {name}\nlog-loss {words.figure(loss)}\n{words.microseconds(cost)}"),
        )
    named = [(cost, loss, name) for name, (cost, loss) in places.items()]
    label(drawn, sorted([(cost, loss, name) for cost, loss, name in chosen]) + sorted(named, key=lambda p: p[1]))
    legend(drawn)
    says = "The line is the front of single candidates; thin lines lead from a network to what was made of it."
    if chosen:
        says += " Stars are ensembles: all their members together."
    return Plot(drawn.figure, "Log-loss against cost", says, wide=True)


def _table(candidates: Sequence[Candidate], ensembles: Sequence[Mapping[str, Any]]) -> Table:
    ordered = sorted(candidates, key=lambda candidate: float(candidate["log_loss"]))
    rows = [
        [
            candidate["name"],
            candidate["kind"].replace("_", " "),
            _origin(candidate),
            ", ".join(entry["name"] for entry in ensembles if candidate["name"] in (entry.get("members") or {})),
            words.cost(candidate["cost_us"]),
            words.size(candidate.get("bytes")),
            words.count(_parameters(candidate)),
            words.figure(candidate["accuracy"]),
            words.figure(candidate["log_loss"]),
            words.figure(candidate.get("ece"), 3),
        ]
        for candidate in ordered
    ]
    return Table(
        "On the validation rows, the lowest log-loss first.",
        ["candidate", "kind", "made of", "member of"],
        ["µs a row", "size", "parameters", "accuracy", "log-loss", "ECE"],
        rows,
    )


def _parameters(candidate: Candidate) -> float | None:
    """A pruned network's are those of the round that was kept."""
    kept = (candidate.get("record") or {}).get("kept") or {}
    found: float | None = candidate.get("parameters") or kept.get("parameters")
    return found


def _origin(candidate: Candidate) -> str:
    teachers = candidate.get("teachers") or []
    made_of = [name for name in candidate.get("made_of") or [] if name not in teachers]
    return ", ".join(made_of) + (f"taught by {', '.join(teachers)}" if teachers else "")


def _failures(failed: Sequence[Mapping[str, Any]]) -> list[Table]:
    if not failed:
        return []
    rows = [[entry["name"], entry["reason"]] for entry in failed]
    return [Table("These did not come to be.", ["candidate", "why"], [], rows)]


def _tip(candidate: Candidate) -> str:
    return (
        f"{candidate['name']} ({candidate['kind'].replace('_', ' ')})\nlog-loss {words.figure(candidate['log_loss'])}, "
        f"accuracy {words.figure(candidate['accuracy'])}\n{words.microseconds(candidate['cost_us'])}, "
        f"{words.size(candidate.get('bytes'))}"
    )
