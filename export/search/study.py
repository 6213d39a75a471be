"""Runs a search for networks, or goes on with one: trials of a space, in turn, and what they come to."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from onnx import ModelProto
from pydantic import ValidationError
from rich.progress import Progress

from export.costs import measure_cost
from export.datasets import Dataset, Split
from export.errors import InvalidRecipe, NothingFits
from export.library import content_key, fingerprint
from export.recipe import Search, seconds
from export.search.front import nondominated
from export.search.ledger import Entry, Ledger
from export.search.spaces import SPACES, Draws, propose
from export.search.trial import Conditions, Result, try_network
from server.rows import Rows


def run_search(
    search: Search,
    dataset: Dataset,
    *,
    seed: int,
    folder: Path,
    progress: Progress,
    trials: int | None = None,
    budget: str | None = None,
    measure: Callable[[ModelProto, Rows], float] = measure_cost,
) -> dict[str, Any]:
    """Search, or go on, until there are as many trials, or as much time has gone into them, as the recipe says, or
    `trials` and `budget` in its place. `measure` answers the microseconds a row of a graph on some rows.

    Trials are kept in `folder`, by the search's settings, the data and the seed: a search that was stopped goes on
    after its last whole trial, one that is asked for more trials goes on after those it has, and what was asked before
    is answered from there. The same seed and the same measured costs, to a tenth, lead to the same trials.

    Answers the search's record, ready for JSON: its `settings`, the `seconds` that went into it, and for each of its
    `trials` what was drawn, the network that it made, and what came of it. The `front` are those complete ones that no
    other beats in log-loss, cost and size at once.

    Raises InvalidRecipe, CorruptLibrary, and NothingFits if no trial is complete, with the first reason.
    """
    asked = _as_asked(search, trials, budget)
    conditions = Conditions(asked, dataset, _rows(asked, dataset, seed), seed, measure)
    limit = np.inf if asked.budget is None else seconds(asked.budget)
    shown = progress.add_task(f"search {search.name}", total=asked.trials)
    taken: list[Entry] = []
    spent = 0.0
    with Ledger(folder / f"{search.name}-{_key(asked, dataset, seed)}.db", seed=seed) as ledger:
        kept = ledger.entries()
        while len(taken) < asked.trials and spent < limit:
            if len(taken) < len(kept):
                entry = kept[len(taken)]
            else:
                attempt = partial(_attempt, conditions, [entry.result for entry in taken])
                entry = ledger.run(len(taken), attempt)
            taken.append(entry)
            spent += entry.result.seconds
            progress.advance(shown)
    progress.update(shown, total=len(taken))
    return _record(asked, taken, spent)


def _as_asked(search: Search, trials: int | None, budget: str | None) -> Search:
    overrides = {name: value for name, value in (("trials", trials), ("budget", budget)) if value is not None}
    try:
        return Search.model_validate(search.model_dump() | overrides)
    except ValidationError as exc:
        first = exc.errors(include_url=False)[0]
        raise InvalidRecipe(
            f"search {search.name!r}: {first['loc'][0]}: {first['msg']}, got {first['input']!r}"
        ) from exc


def _rows(search: Search, dataset: Dataset, seed: int) -> Split:
    """Those to train on. Raises InvalidRecipe."""
    if len(dataset.inputs) > 1 or len(dataset.input.shape) != 3:
        raise InvalidRecipe(f"search {search.name!r}: expected pictures, (height, width, channels), got other rows")
    train, n_classes = dataset.train, len(dataset.classes)
    if search.rows is None or search.rows >= len(train):
        return train
    if not n_classes <= search.rows <= len(train) - n_classes:
        raise InvalidRecipe(
            f"search {search.name!r}: rows: expected {n_classes} to {len(train) - n_classes}, or all, got {search.rows}"
        )
    return train.some(search.rows, seed=seed)


def _key(search: Search, dataset: Dataset, seed: int) -> str:
    settings = search.model_dump(mode="json", exclude={"name", "trials", "budget"}, exclude_defaults=True)
    return content_key(settings, fingerprint(dataset), seed, optuna.__version__)


def _attempt(conditions: Conditions, earlier: list[Result], draws: Draws) -> Result:
    height, width, _ = conditions.dataset.input.shape
    proposal = propose(SPACES[conditions.search.space], draws, min(height, width))
    return try_network(proposal, conditions, earlier)


def _record(search: Search, entries: list[Entry], spent: float) -> dict[str, Any]:
    trials = [{"number": number, **_trial(entry)} for number, entry in enumerate(entries)]
    complete = [trial for trial in trials if trial["state"] == "complete"]
    if not complete:
        raise NothingFits(
            f"search {search.name!r}: expected a complete trial, got none of {len(trials)}; the first: "
            f"{trials[0]['reason']}"
        )
    figures = np.array([[trial[figure] for figure in ("log_loss", "cost_us", "bytes")] for trial in complete])
    for trial, is_front in zip(complete, nondominated(figures), strict=True):
        trial["front"] = bool(is_front)
    return {
        "name": search.name,
        "space": search.space,
        "settings": search.model_dump(mode="json"),
        "seconds": spent,
        "trials": trials,
    }


def _trial(entry: Entry) -> dict[str, Any]:
    result, load = entry.result, entry.result.load
    return {
        "state": result.state,
        "reason": result.reason,
        "log_loss": result.curve[-1] if result.curve else None,
        "accuracy": result.accuracy,
        "cost_us": None if load is None else load.cost_us,
        "bytes": None if load is None else load.bytes,
        "parameters": None if load is None else load.parameters,
        "front": False,
        "params": entry.params,
        "layers": result.layers,
        "learning_rate": result.learning_rate,
        "batch_size": result.batch_size,
        "curve": result.curve,
        "seconds": result.seconds,
    }
