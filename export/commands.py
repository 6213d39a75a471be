"""The commands of `committee-export` that take a recipe: each step alone, and all of them."""

import argparse
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.progress import Progress

if TYPE_CHECKING:
    from export.run import Run


@dataclass(frozen=True, slots=True)
class Done:
    """What a command has made, for standard output, and what it has to show, for the terminal."""

    paths: list[Path]
    shown: list[RenderableType] = field(default_factory=list)


Command = Callable[[argparse.Namespace, Progress], Done]

# The steps, and with them TensorFlow and its like, load for seconds: not for --help.


def train(options: argparse.Namespace, progress: Progress) -> Done:
    from export import shown, steps

    folders = steps.train(run := _run(options, progress), options.out)
    return Done(folders, [shown.candidates(run), *(table for folder in folders for table in shown.version(folder))])


def search(options: argparse.Namespace, progress: Progress) -> Done:
    from export import shown
    from export.run import search_file

    run = _run(options, progress)
    names = [options.search] if options.search else [search.name for search in run.recipe.searches]
    records = {name: run.search(name, trials=options.trials, budget=options.budget) for name in names or [""]}
    paths = [run.folder / search_file(name) for name in records]
    return Done(paths, [shown.front(record) for record in records.values()])


def compare(options: argparse.Namespace, progress: Progress) -> Done:
    from export import shown
    from export.run import comparison_file

    run = _run(options, progress)
    table = {"activations": shown.activations, "regularisation": shown.regularisation}[options.what]
    return Done([run.folder / comparison_file(options.what)], [table(run.compare(options.what))])


def make_members(options: argparse.Namespace, progress: Progress) -> Done:
    from export import shown, steps

    run = _run(options, progress)
    entries = steps.make_members(run, options.command, options.member)
    return Done([entry.folder for entry in entries], [shown.candidates(run, entries)])


def select(options: argparse.Namespace, progress: Progress) -> Done:
    from export import shown, steps
    from export.run import SELECTION_FILE

    run = _run(options, progress)
    limits = steps.Limits(options.max_cost_us, options.max_size_mb)
    chosen = {choice.name: steps.select_members(run, choice, limits) for choice in steps.choices(run, options.ensemble)}
    paths = [run.folder / name / SELECTION_FILE for name in chosen]
    return Done(paths, [shown.candidates(run), *(shown.selection(name, found) for name, found in chosen.items())])


def fit(options: argparse.Namespace, progress: Progress) -> Done:
    from export import shown, steps
    from export.run import FIT_FILE

    run = _run(options, progress)
    fits = {choice.name: steps.fit(run, choice)[1] for choice in steps.choices(run, options.ensemble)}
    paths = [run.folder / name / FIT_FILE for name in fits]
    return Done(paths, [shown.fitted(name, found) for name, found in fits.items()])


def publish(options: argparse.Namespace, progress: Progress) -> Done:
    from export import shown, steps

    run = _run(options, progress)
    folders = [steps.publish(run, choice, options.out) for choice in steps.choices(run, options.ensemble)]
    return Done(folders, [table for folder in folders for table in shown.version(folder)])


def report(options: argparse.Namespace, progress: Progress) -> Done:
    from export import steps

    run = _run(options, progress)
    page = steps.report(run)
    return Done([page, page.with_suffix(".json")])


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Put every command of this module into a parser."""
    _out(_add(commands, "train", "do every step of a recipe and publish its ensembles", train))
    found = _add(commands, "search", "search architectures for the least log-loss, cost and size at once", search)
    found.add_argument("--search", metavar="NAME", help="one of the recipe's [[searches]] (default: all)")
    found.add_argument("--trials", type=count, help="in place of the recipe's")
    found.add_argument(
        "--budget", type=_budget, metavar="TIME", help="such as 90s, 20m or 2h, in place of the recipe's"
    )
    compared = commands.add_parser("compare", help="train one network in several ways and compare them")
    compared_with = compared.add_subparsers(dest="what", required=True, metavar="WHAT")
    _add(compared_with, "activations", "train it with each activation function", compare)
    _add(compared_with, "regularisation", "train it held back in each of several ways", compare)
    for name, what in (
        ("tune", "tune the members that have a [members.tune]: cross-validation, grid search"),
        ("distil", "train the members that have teachers"),
        ("prune", "take filters and units out of trained networks, and fine-tune them"),
        ("quantise", "store members in fewer bits, where that is measured to be better"),
    ):
        made = _add(commands, name, what, make_members)
        made.add_argument(
            "--member", action="append", default=[], metavar="NAME", help="only this one; may be repeated"
        )
    selected = _add(commands, "select", "choose the members of each ensemble, within limits of cost and size", select)
    selected.add_argument("--max-cost-us", type=positive, metavar="US", help="microseconds a row, of all members")
    selected.add_argument("--max-size-mb", type=positive, metavar="MB", help="of all members' graphs")
    _ensemble(selected)
    _ensemble(_add(commands, "fit", "fit temperatures, weights and the default strategy", fit))
    published = _add(commands, "publish", "pack and publish the next version of each ensemble", publish)
    _ensemble(published)
    _out(published)
    _add(commands, "report", "write report.html and report.json about what was done so far", report)


def _add(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, what: str, run: Command
) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=what, description=f"{what[0].upper()}{what[1:]}.")
    command.add_argument("recipe", type=Path, help="a TOML file, such as export/recipes/fashion.toml")
    command.add_argument("--data", type=Path, help="a folder with the data set's files, if not in a usual place")
    command.add_argument(
        "--work", type=Path, default=Path("runs"), help="where candidates and results are kept (default: runs)"
    )
    command.set_defaults(run=run)
    return command


def _out(command: argparse.ArgumentParser) -> None:
    command.add_argument("--out", type=Path, default=Path("models"), help="the model repository (default: models)")


def _ensemble(command: argparse.ArgumentParser) -> None:
    command.add_argument("--ensemble", metavar="NAME", help="one of the recipe's [[ensembles]] (default: all)")


def _run(options: argparse.Namespace, progress: Progress) -> "Run":
    from export.recipe import load_recipe
    from export.run import Run

    return Run(load_recipe(options.recipe), work=options.work, data=options.data, progress=progress)


def count(text: str) -> int:
    """For an option. Raises ArgumentTypeError, as `positive` does."""
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"expected a whole number above zero, got {text!r}")
    return int(text)


def positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number above zero, got {text!r}")
    return value


def _budget(text: str) -> str:
    from export.recipe.members import BUDGET_PATTERN

    if not re.fullmatch(BUDGET_PATTERN, text):
        raise argparse.ArgumentTypeError(f"expected a time such as 90s, 20m or 2h, got {text!r}")
    return text
