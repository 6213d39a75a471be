"""What there is to see on a terminal when a command is done: one table a result."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from export.card import NOTHING_MEASURED
from export.fusing.fit import Fitted
from export.library import Entry, score_alone
from export.page import words
from export.page.evaluated import default_answer, p_value
from export.page.metrics import NAMES, difference, value
from export.run import Run
from export.select import Selection
from server.manifest import REPORT_FILE


def version(folder: Path) -> list[RenderableType]:
    """A published version: its members and strategies on the test rows, and what there is to know about it."""
    path = folder / REPORT_FILE
    if not path.is_file():
        return [Text(NOTHING_MEASURED)]
    report = json.loads(path.read_bytes())
    title = f"{report['ensemble']} {report['version']}, test rows"
    notes = [Text(f"note: {note}", style="yellow") for note in report["notes"]]
    return [
        _scored(f"{title}: member", report["members"], None),
        _scored(f"{title}: strategy", report["strategies"], report["default_strategy"]),
        *notes,
    ]


def candidates(run: Run, entries: Sequence[Entry] | None = None) -> RenderableType:
    """Candidates on the validation rows, and those that came to nothing."""
    entries = run.candidates() if entries is None else entries
    scored = score_alone(entries, run.dataset.validation.y)
    rows = []
    for entry in entries:
        scores = scored.scores(entry.name)
        figures = (f"{scores[metric].value:.4f}" for metric in ("accuracy", "log_loss", "ece"))
        rows.append([entry.name, *figures, f"{entry.bytes / 1e6:.2f}"])
    rows += [[name, "", "", "", reason] for name, reason in run.failed.items()]
    return _table("candidates, validation rows", ("candidate", "accuracy", "log-loss", "ECE", "MB"), rows)


def front(record: Mapping[str, Any]) -> RenderableType:
    """The Pareto front of an architecture search, cheapest first."""
    trials = [trial for trial in record["trials"] if trial["front"]]
    rows = [
        [
            str(trial["number"]),
            f"{trial['cost_us']:.1f}",
            f"{trial['bytes'] / 1e3:.0f}",
            f"{trial['log_loss']:.4f}",
            f"{trial['accuracy']:.4f}",
            words.layers(trial["layers"]),
        ]
        for trial in sorted(trials, key=lambda trial: trial["cost_us"])
    ]
    title = f"search {record['name']}: Pareto front of {len(record['trials'])} trials"
    return _table(title, ("trial", "µs a row", "KB", "log-loss", "accuracy", "layers"), rows)


def activations(record: Mapping[str, Any]) -> RenderableType:
    rows = [
        [
            row["activation"],
            f"{row['accuracy']:.4f}",
            f"{row['log_loss']:.4f}",
            f"{row['dead_units']:.1%}",
            f"{row['gradient_norm']:.3g}",
            f"{row['cost_us']:.1f}",
        ]
        for row in sorted(record["summary"], key=lambda row: row["log_loss"])
    ]
    names = ("activation", "accuracy", "log-loss", "dead units", "gradient norm", "µs a row")
    return _table("activations, validation rows", names, rows)


def regularisation(record: Mapping[str, Any]) -> RenderableType:
    rows = [
        [
            row["name"],
            str(row["epochs_run"]),
            f"{row['accuracy']:.4f}",
            f"{row['log_loss']:.4f}",
            f"{row['train_log_loss']:.4f}",
            f"{row['gap']:+.4f}",
            f"{row['near_zero']:.1%}",
        ]
        for row in record["variants"]
    ]
    names = ("variant", "epochs", "accuracy", "log-loss", "on train rows", "gap", "near-zero weights")
    return _table("regularisation, validation rows", names, rows)


def selection(name: str, found: Selection) -> RenderableType:
    """An ensemble's members, and what they cost together."""
    record = found.to_json()
    rows = [
        [member, f"{weight:.3f}", f"{record['costs_us'][member]:.1f}", f"{record['bytes'][member] / 1e6:.2f}"]
        for member, weight in record["members"].items()
    ]
    rows.append(["together", "1.000", f"{record['cost_us']:.1f}", f"{record['size_mb']:.2f}"])
    return _table(f"{name}: validation log-loss {record['log_loss']:.4f}", ("member", "weight", "µs a row", "MB"), rows)


def fitted(name: str, found: Fitted) -> RenderableType:
    """Every strategy on the validation rows."""
    rows = [
        [f"{strategy} (default)" if strategy == found.default_strategy else strategy, *figures]
        for strategy in found.validation.names
        for scores in [found.validation.scores(strategy)]
        for figures in [[f"{scores[metric].value:.4f}" for metric in ("accuracy", "log_loss", "ece")]]
    ]
    return _table(f"{name}, validation rows", ("strategy", "accuracy", "log-loss", "ECE"), rows)


def evaluation(record: Mapping[str, Any]) -> list[RenderableType]:
    """An ensemble on rows that it has not seen: its strategies, members, subsets and thresholds, and the comparison."""
    title = f"{record['ensemble']} {record['version']}, {record['data']['rows']} rows"
    kinds = {"strategy": "strategy", "member": "member", "subset": f"members by {record['subset_strategy']}"}
    tables: list[RenderableType] = []
    for kind, name in {**kinds, "cascade": "threshold"}.items():
        answers = [one for one in record["answers"] if one["kind"] == kind]
        if answers:
            tables.append(_answers(title, name, answers, record["default_strategy"]))
    tables += [_compared(record)] if record.get("against") else []
    return [*tables, *(Text(f"note: {note}", style="yellow") for note in record["notes"])]


def _answers(title: str, name: str, answers: Sequence[Mapping[str, Any]], default: str) -> Table:
    metrics = list(answers[0]["scores"])
    rows = [
        [
            f"{one['name']} (default)" if (one["kind"], one["name"]) == ("strategy", default) else one["name"],
            *(value(metric, one["scores"][metric]["value"]) for metric in metrics),
            words.cost(one["cost_us"]),
        ]
        for one in answers
    ]
    return _table(title, (name, *(NAMES[metric] for metric in metrics), "µs a row"), rows)


def _compared(record: Mapping[str, Any]) -> Table:
    other, default = record["against"], default_answer(record)
    names = [f"{one['ensemble']} {one['version']}" for one in (record, other)]
    rows = []
    for metric, found in other["differences"].items():
        figures = [
            words.cost(one["cost_us"]) if metric == "cost_us" else value(metric, one["scores"][metric]["value"])
            for one in (default, other)
        ]
        low, high = (difference(metric, found["difference"][end]) for end in ("low", "high"))
        rows.append([NAMES[metric], *figures, f"{low} to {high}", p_value(found), found["verdict"]])
    title = f"{names[0]} by {record['default_strategy']} against {names[1]} by {other['strategy']}"
    return _table(title, ("metric", *names, "difference", "p", f"{names[0]} is"), rows)


def _scored(title: str, scored: Mapping[str, Any], default: str | None) -> Table:
    rows = [
        [
            f"{name} (default)" if name == default else name,
            *(f"{entry['test'][metric]['value']:.4f}" for metric in ("accuracy", "log_loss", "ece")),
        ]
        for name, entry in scored.items()
    ]
    return _table(title.rpartition(": ")[0], (title.rpartition(": ")[2], "accuracy", "log-loss", "ECE"), rows)


def _table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    table = Table(title=title, title_justify="left")
    for place, column in enumerate(columns):
        table.add_column(column, justify="left" if place == 0 else "right")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table
