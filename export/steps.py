"""The steps from a recipe to published ensembles. Each does its own work and asks the run for what it is made of.

search ─┐
        ├─ members (train, tune, distil, prune, quantise) ─ select ─ fit ─ publish ─ report
compare │                                                     an ensemble at a time
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from export.build import build
from export.costs import measure_costs
from export.errors import InvalidRecipe, NothingFits
from export.fusing.fit import Fitted, fit_fusion
from export.library import Entry
from export.page import render
from export.page.collect import collect
from export.recipe import EnsembleChoice, Member, PrunedCnn, Quantised
from export.run import COMPARISONS, COSTS_FILE, FIT_FILE, PUBLISHED_FILE, SELECTION_FILE, Run
from export.select import Selection, select

REPORT_PAGE, REPORT_NUMBERS = "report.html", "report.json"


# ---- Members --------------------------------------------------------------------------------------------------------


MAKES: Mapping[str, Callable[[Member], bool]] = {
    "tune": lambda member: getattr(member, "tune", None) is not None,
    "distil": lambda member: bool(getattr(member, "teachers", ())),
    "prune": lambda member: isinstance(member, PrunedCnn),
    "quantise": lambda member: isinstance(member, Quantised),
}
"""Which members of a recipe each command makes."""


def make_members(run: Run, command: str, names: Sequence[str]) -> list[Entry]:
    """Those of the recipe's members that `command` makes, or only the named ones. Raises ExportError."""
    known = [member.name for member in run.recipe.members if MAKES[command](member)]
    if not known:
        raise InvalidRecipe(f"recipe {run.recipe.name!r}: expected members for {command} to make, there are none")
    if strangers := [name for name in names if name not in known]:
        raise InvalidRecipe(f"expected members that {command} makes, of {', '.join(known)}; got {strangers[0]!r}")
    return [run.entry(name) for name in names or known]


# ---- Ensembles ------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """What the command line says in place of the recipe; None leaves it to the recipe."""

    max_cost_us: float | None = None
    max_size_mb: float | None = None


AS_THE_RECIPE_SAYS = Limits()


def choices(run: Run, name: str | None = None) -> list[EnsembleChoice]:
    """The recipe's ensembles, or the one of this name. Raises InvalidRecipe."""
    every = run.recipe.published
    if name is None:
        return every
    found = [choice for choice in every if choice.name == name]
    if not found:
        known = ", ".join(choice.name for choice in every)
        raise InvalidRecipe(f"expected an ensemble of recipe {run.recipe.name!r}: {known}; got {name!r}")
    return found


def select_members(run: Run, choice: EnsembleChoice, limits: Limits = AS_THE_RECIPE_SAYS) -> Selection:
    """Choose the members of an ensemble, of all candidates. Raises ExportError."""
    if not run.recipe.ensembles:
        raise InvalidRecipe(
            f"recipe {run.recipe.name!r}: expected [[ensembles]] to select for; without, all are members"
        )
    entries = run.candidates()
    if not entries:
        raise NothingFits(f"recipe {run.recipe.name!r}: no candidate came to be: {'; '.join(run.failed.values())}")
    own = {name: value for name, value in dataclasses.asdict(limits).items() if value is not None}
    found = select(
        entries,
        _costs(run, entries),
        run.dataset.validation.y,
        choice.model_copy(update=own),
        seed=run.recipe.seed,
    )
    run.write(f"{choice.name}/{SELECTION_FILE}", {**found.to_json(), "keys": _keys(entries)})
    return found


def fit(run: Run, choice: EnsembleChoice) -> tuple[list[Entry], Fitted]:
    """Fit the fusion of the members that were selected; selects them if that is yet to be done. Raises ExportError."""
    entries = _selected(run, choice)
    splits = (run.dataset.validation, run.dataset.calibration)
    validation, calibration = (
        np.stack([entry.answers[split] for entry in entries]) for split in ("validation", "calibration")
    )
    names = [entry.name for entry in entries]
    costs = _costs(run, run.candidates())
    fitted = fit_fusion(
        names,
        validation,
        splits[0].y,
        calibration,
        splits[1].y,
        costs_us=[costs[name] for name in names],
        cascade_tolerance=choice.cascade_tolerance,
    )
    run.write(f"{choice.name}/{FIT_FILE}", fitted.to_json())
    return entries, fitted


def publish(run: Run, choice: EnsembleChoice, out: Path) -> Path:
    """Fit, pack, score and publish the next version of an ensemble under `out`; returns its folder.

    Raises ExportError; then nothing is published.
    """
    entries, fitted = fit(run, choice)
    folder = build(
        [entry.candidate for entry in entries],
        run.dataset,
        name=choice.name,
        description=choice.description or run.recipe.description,
        max_batch_size=run.recipe.max_batch_size,
        out=out,
        seed=run.recipe.seed,
        progress=run.progress,
        fitted=fitted,
    )
    run.write(f"{choice.name}/{PUBLISHED_FILE}", {"folder": str(folder.resolve())})
    return folder


def report(run: Run) -> Path:
    """Write `report.html` and `report.json` about everything that this recipe's runs have left; returns the page."""
    _costs(run, run.candidates())
    numbers = run.write(REPORT_NUMBERS, collect(run))
    page = run.folder / REPORT_PAGE
    page.write_text(render(numbers))
    return page


def _selected(run: Run, choice: EnsembleChoice) -> list[Entry]:
    """As `selection.json` says, if it is about the candidates as they are now; else they are selected anew."""
    entries = run.candidates()
    if not run.recipe.ensembles:
        return entries
    known = run.read(f"{choice.name}/{SELECTION_FILE}")
    if known is None or known["keys"] != _keys(entries):
        members = select_members(run, choice).members
    else:
        members = known["members"]
    return [entry for entry in entries if entry.name in members]


def _keys(entries: Sequence[Entry]) -> dict[str, str]:
    return {entry.name: entry.key for entry in entries}


def _costs(run: Run, entries: Sequence[Entry]) -> dict[str, float]:
    """Microseconds a row of each, all measured in turn; measured again only when there is another candidate."""
    keys = _keys(entries)
    known = run.read(COSTS_FILE)
    if known is None or known["keys"] != keys:
        models = {entry.name: entry.candidate.model for entry in entries}
        known = run.write(COSTS_FILE, {"keys": keys, "us": measure_costs(models, run.dataset.validation.x)})
    return dict(known["us"])


# ---- The whole way --------------------------------------------------------------------------------------------------


def train(run: Run, out: Path) -> list[Path]:
    """Every step of the recipe; returns the published folders. Raises ExportError; what was done by then is kept."""
    for search in run.recipe.searches:
        run.search(search.name)
    for what in COMPARISONS:
        if getattr(run.recipe.compare, what) is not None:
            run.compare(what)
    run.candidates()
    for choice in run.recipe.ensembles:
        select_members(run, choice)
    folders = [publish(run, choice, out) for choice in choices(run)]
    report(run)
    return folders
