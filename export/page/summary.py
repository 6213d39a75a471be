"""What was published, in a few figures: how good, against what, at what cost."""

from collections.abc import Mapping
from typing import Any

from export.page import words
from export.page.answers import plain
from export.page.blocks import Block, Section, Table, Tile, Tiles, Words

Ensemble = Mapping[str, Any]


def sections(numbers: Mapping[str, Any]) -> list[Section]:
    ensembles = [entry for entry in numbers.get("ensembles") or [] if _scores(entry)]
    blocks: list[Block] = [Words(words_) for words_ in [_run(numbers)] if words_]
    for entry in ensembles:
        blocks += [Words(_told(entry)), Tiles(_tiles(entry))]
    if len(ensembles) > 1:
        blocks.append(_table(ensembles))
    return [Section("Summary", blocks)] if blocks else []


def _run(numbers: Mapping[str, Any]) -> str:
    """What the run consisted of."""
    searches = [record for record in numbers.get("searches") or [] if record.get("trials")]
    counted = (
        (sum(len(record["trials"]) for record in searches), "search trial", "search trials"),
        (len((numbers.get("activations") or {}).get("summary") or []), "activation", "activations"),
        (len((numbers.get("regularisation") or {}).get("variants") or []), "kind of training", "kinds of training"),
        (len(numbers.get("candidates") or []), "candidate", "candidates"),
        (len(numbers.get("ensembles") or []), "ensemble", "ensembles"),
    )
    done = [words.number(n, noun, plural) for n, noun, plural in counted if n]
    return f"In this run: {words.listed(done)}." if done else ""


def _scores(ensemble: Ensemble) -> Mapping[str, Any]:
    """The default strategy's, on the test rows."""
    scores: Mapping[str, Any] = (ensemble.get("test") or {}).get(ensemble.get("default_strategy")) or {}
    return scores


def _told(ensemble: Ensemble) -> str:
    name = f"{ensemble['name']} {ensemble.get('version', '')}".strip()
    n_members = len(ensemble.get("members") or {})
    told = f"{name} fuses {words.number(n_members, 'member')} by {ensemble['default_strategy']}"
    gain = (ensemble.get("over_best_member") or {}).get(ensemble["default_strategy"]) or {}
    if n_members == 1:
        return f"{name} is {words.listed(ensemble['members'])} alone: there is nothing to fuse."
    if "accuracy" not in gain or "log_loss" not in gain:
        return f"{told}."
    accuracy, loss = gain["accuracy"], gain["log_loss"]
    return (
        f"{told}. Against its best member, {accuracy['member']}, accuracy changes by {words.points(accuracy['value'])} "
        f"points ({words.points(accuracy['low'])} to {words.points(accuracy['high'])}){_settled(accuracy)}"
        f" and log-loss by {words.signed(loss['value'])} ({words.signed(loss['low'])} to {words.signed(loss['high'])})"
        f"{_settled(loss)}."
    )


def _settled(bounds: Mapping[str, float]) -> str:
    return " – perhaps by chance" if bounds["low"] <= 0 <= bounds["high"] else ""


def _tiles(ensemble: Ensemble) -> list[Tile]:
    scores, members = _scores(ensemble), ensemble.get("members") or {}
    n_bytes, limits = ensemble.get("bytes"), ensemble.get("choice") or {}
    tiles = [
        Tile("test accuracy", words.figure(scores["accuracy"]["value"]), _bounds(scores["accuracy"])),
        Tile("log-loss", words.figure(scores["log_loss"]["value"]), _bounds(scores["log_loss"])),
    ]
    if ensemble.get("cost_us") is not None:
        allowed = limits.get("max_cost_us")
        note = f"of {words.cost(allowed)} allowed" if allowed else "one thread, batches of 64"
        tiles.append(Tile("a row, all members", words.microseconds(ensemble["cost_us"]), note))
    if n_bytes is not None:
        allowed = limits.get("max_size_mb")
        note = f"of {words.figure(allowed, 1)} MB allowed" if allowed else "of the graphs"
        tiles.append(Tile("size", words.size(n_bytes), note))
    if members:
        heaviest = max(members, key=lambda name: float(members[name]))
        tiles.append(
            Tile("members" if len(members) > 1 else "member", str(len(members)), f"heaviest: {plain(heaviest)}")
        )
    return tiles


def _bounds(bounds: Mapping[str, float]) -> str:
    return f"{words.figure(bounds['low'])} to {words.figure(bounds['high'])}" if "low" in bounds else ""


def _table(ensembles: list[Ensemble]) -> Table:
    rows = [
        [
            f"{entry['name']} {entry.get('version', '')}".strip(),
            ", ".join(entry.get("members") or {}),
            entry["default_strategy"],
            words.figure(_scores(entry)["accuracy"]["value"]),
            words.figure(_scores(entry)["log_loss"]["value"]),
            words.cost(entry.get("cost_us")),
            words.size(entry.get("bytes")),
        ]
        for entry in ensembles
    ]
    numbers = ["accuracy", "log-loss", "µs a row", "size"]
    caption = "The default strategy of each, on the test rows."
    return Table(caption, ["ensemble", "members", "strategy"], numbers, rows)
