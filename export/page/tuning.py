"""Cross-validated searches of the trees' parameters."""

from collections.abc import Mapping, Sequence
from typing import Any

from export.page import words
from export.page.blocks import Block, Plot, Plots, Section, Table, Words
from export.page.charts import ACCENT, axes, logarithmic
from export.page.svg import SOFT, tip

Result = Mapping[str, Any]
TOP = 10
MOST_PLOTS = 6


def sections(candidates: Sequence[Mapping[str, Any]]) -> list[Section]:
    tuned = {candidate["name"]: (candidate.get("record") or {}).get("tuning") for candidate in candidates}
    parts = [_tuned(name, tuning) for name, tuning in tuned.items() if tuning and tuning.get("results")]
    return [Section("Tuning", [], parts)] if parts else []


def _tuned(name: str, tuning: Mapping[str, Any]) -> Section:
    results = sorted(tuning["results"], key=lambda result: int(result["rank"]))
    blocks: list[Block] = [
        Words(_told(tuning, results)),
        Plots(_plots(results, _name(tuning)), small=True),
        _table(results, _name(tuning)),
    ]
    return Section(name, blocks)


def _told(tuning: Mapping[str, Any], results: Sequence[Result]) -> str:
    best, worst = results[0], results[-1]
    how = f"{tuning['method']}, {tuning['folds']} folds of {words.count(tuning['rows'])} rows"
    told = (
        f"Best of {words.number(len(results), 'setting')} ({how}): {words.params(best['params'])}, {_name(tuning)} "
        f"{words.figure(best['mean_score'])}; the worst reached {words.figure(worst['mean_score'])}."
    )
    close = sum(abs(r["mean_score"] - best["mean_score"]) <= (best.get("std_score") or 0) for r in results[1:])
    if not close:
        return told
    return f"{told} {words.number(close, 'other')} came within its spread over the folds."


def _name(tuning: Mapping[str, Any]) -> str:
    """What the score is."""
    return str(tuning.get("score", "score")).replace("log_loss", "log-loss").replace("_", " ")


def _plots(results: Sequence[Result], score: str) -> list[Plot]:
    """Score against each parameter that varied, those of most values first."""
    names = list(dict.fromkeys(name for result in results for name in result["params"]))
    values = {name: {result["params"].get(name) for result in results} for name in names}
    varied = sorted((name for name in names if len(values[name]) > 1), key=lambda name: -len(values[name]))
    return [_plot(name, results, score) for name in varied[:MOST_PLOTS]]


def _plot(name: str, results: Sequence[Result], score: str) -> Plot:
    drawn = axes(name, score, height=240, width=280)
    drawn.margins(x=0.12, y=0.12)
    places = _places(drawn, [result["params"].get(name) for result in results])
    for place, result in reversed(list(zip(places, results, strict=True))):
        first = result is results[0]
        hint = tip(f"{words.params(result['params'])}\n{words.figure(result['mean_score'])}")
        look = {"color": ACCENT, "alpha": 1.0, "zorder": 3} if first else {"color": SOFT, "alpha": 0.4}
        drawn.errorbar(place, result["mean_score"], result.get("std_score") or 0, linewidth=1, **look)
        drawn.scatter(place, result["mean_score"], s=46 if first else 26, linewidths=0, gid=hint, **look)
    return Plot(drawn.figure, f"Against {name}", f"Best: {words.params({name: results[0]['params'].get(name)})}.")


def _places(drawn: Any, values: Sequence[Any]) -> Sequence[float]:
    """Where values go: numbers where they are, logarithmic if they span much, anything else side by side."""
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        if min(values) > 0 and max(values) >= 16 * min(values):
            logarithmic(drawn.xaxis, min(values), max(values))
        return values
    kinds = sorted(set(values), key=lambda value: (isinstance(value, str), value is None, str(value).zfill(12)))
    drawn.set_xticks(range(len(kinds)), [words.params({"": kind}).strip() for kind in kinds])
    drawn.set_xlim(-0.6, len(kinds) - 0.4)
    return [kinds.index(value) for value in values]


def _table(results: Sequence[Result], score: str) -> Table:
    halved = any("rows" in result for result in results)
    rows = [
        [
            words.params(result["params"]),
            words.count(result["rank"]),
            *([words.count(result.get("rows"))] if halved else []),
            words.spread(result["mean_score"], result.get("std_score")),
            _folds(result),
        ]
        for result in results[:TOP]
    ]
    caption = f"The best {min(TOP, len(results))} of {len(results)}: mean and standard deviation over the folds."
    numbers = ["rank", *(["rows"] if halved else []), score, "folds"]
    return Table(caption, ["setting"], numbers, rows, frozenset([0]))


def _folds(result: Result) -> str:
    scores = result.get("fold_scores") or []
    return f"{words.figure(min(scores))} to {words.figure(max(scores))}" if scores else words.NONE
