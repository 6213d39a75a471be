"""What converts: a tiny model of every kind through the conversion and the parity gate of `committee-export pack`.

python -m bench.converters                # writes the tables of docs/converters.md anew
python -m bench.converters --only lstm    # prints those whose family or name has this in it
"""

import argparse
import importlib.metadata
import re
import sys
import tempfile
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench.boosting_cases import boosting_cases
from bench.case import Case, load
from bench.keras_cases import keras_cases
from bench.sklearn_cases import sklearn_cases
from export.adapt import member_of
from export.errors import ExportError, ParityError
from export.formats import Trust, load_model, source_of
from export.parity import check_parity

PAGE = Path(__file__).parents[1] / "docs" / "converters.md"
BEGIN, END = "<!-- begin: written by bench/converters.py -->", "<!-- end -->"
SOFTWARE = (
    "scikit-learn", "skl2onnx", "xgboost-cpu", "lightgbm", "onnxmltools", "keras", "tensorflow-cpu", "tf2onnx", "onnx",
    "onnxruntime",
)  # fmt: skip
TRUST = Trust(
    types=(
        "sklearn.feature_selection._univariate_selection.f_classif",
        "sklearn.metrics._classification.balanced_accuracy_score",
        "xgboost.core.Booster",
        "xgboost.sklearn.XGBClassifier",
    )
)
"""What skops asks about: a user says `--trust` to each."""
FAULT = "nothing but a traceback"
LONGEST = 300
"""Characters of a message in a table."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a case: the largest difference of a probability, or the message that a user gets."""

    case: Case
    difference: float | None
    message: str = ""
    caught: bool = False
    """Whether a converter answered with a graph without a word, and it was the gate that found it wrong."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the cases; writes the page, or with `--only` prints. 1 if some case ends in a traceback, else 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", metavar="TEXT", help="cases whose family or name has this in it; printed, not written"
    )
    parser.add_argument("--page", type=Path, default=PAGE, help="the page to write (default: docs/converters.md)")
    options = parser.parse_args(arguments)
    outcomes = run([case for case in all_cases() if _fits(case, options.only or "")])
    tables = render(outcomes)
    if options.only is None:
        options.page.write_text(replaced(options.page.read_text(), tables))
    else:
        sys.stdout.write(tables)
    return int(any(outcome.message.startswith(FAULT) for outcome in outcomes))


def all_cases() -> list[Case]:
    return [*sklearn_cases(), *boosting_cases(), *keras_cases()]


def run(cases: Sequence[Case]) -> list[Outcome]:
    columns = (TextColumn("{task.description:<60}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=len(cases))
        outcomes = []
        for case in cases:
            progress.update(task, description=f"{case.family}: {case.name}"[:60])
            outcomes.append(try_out(case))
            progress.advance(task)
    return outcomes


def try_out(case: Case) -> Outcome:
    """Train, save, read, convert and check one case, as its user would."""
    training, dataset = load(case.data)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of training so little
        file = case.save(training, Path(folder))
        try:
            member = member_of(source_of(load_model(file, TRUST)), "model", dataset, case.adaptation)
            report = check_parity(member, member.to_onnx(), dataset)
        except ParityError as exc:
            return Outcome(case, None, _shortened(exc, folder), caught=True)
        except ExportError as exc:
            return Outcome(case, None, _shortened(exc, folder))
        except Exception as exc:  # a traceback for a user: a fault of ours
            return Outcome(case, None, f"{FAULT}: {type(exc).__name__}: {exc}"[:LONGEST].partition("\n")[0])
    return Outcome(case, report.largest_difference)


def render(outcomes: Iterable[Outcome]) -> str:
    """A table a family, and what it was run with."""
    families: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        families.setdefault(outcome.case.family, []).append(outcome)
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in SOFTWARE)
    tables = [_table(family, group) for family, group in families.items()]
    return "\n".join([f"Run with {versions}.\n", *tables])


def replaced(page: str, tables: str) -> str:
    """The page with these tables between its marks."""
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n\n{tables}\n{END}{tail}"


def _table(family: str, outcomes: Sequence[Outcome]) -> str:
    passed = sum(outcome.difference is not None for outcome in outcomes)
    lines = [
        f"## {family}\n",
        f"{passed} of {len(outcomes)} convert{_caught(sum(outcome.caught for outcome in outcomes))}.\n",
        "| model | largest difference | what the user is told |",
        "|---|---|---|",
    ]
    for outcome in outcomes:
        figure = "**caught**" if outcome.caught else "–" if outcome.difference is None else f"{outcome.difference:.1e}"
        lines.append(f"| {_cell(outcome.case.name)} | {figure} | {_cell(outcome.message)} |")
    return "\n".join([*lines, ""])


def _caught(count: int) -> str:
    return f"; the gate caught {count} wrong graph{'' if count == 1 else 's'}" if count else ""


def _fits(case: Case, text: str) -> bool:
    return text.lower() in f"{case.family}: {case.name}".lower()


def _shortened(error: ExportError, folder: str) -> str:
    """The message's first line, without the folder that the file happened to be in."""
    line = error.message.partition("\n")[0].replace(f"{folder}/", "")
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}…"


def _cell(text: str) -> str:
    return re.sub(r"([|<*_`])", r"\\\1", text)


if __name__ == "__main__":
    sys.exit(main())
