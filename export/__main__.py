"""`committee-export`: trains, converts and publishes ensembles."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from export.errors import ExportError

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, 1 for an error that says what is wrong, 130 for Ctrl-C."""
    options = _parser().parse_args(arguments)
    console = Console(stderr=True)
    try:
        with _progress(console) as progress:
            from export.train import train  # TensorFlow and its like load for seconds: not for --help

            folder = train(options.recipe, out=options.out, data=options.data, progress=progress)
    except ExportError as exc:
        console.print(f"committee-export: {exc}", style="red", markup=False, highlight=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        console.print("committee-export: interrupted; nothing was published")
        return 130
    sys.stdout.write(f"{folder}\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="committee-export", description="Train, convert and publish ensembles.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    train = commands.add_parser("train", help="train a recipe and publish the next version of its ensemble")
    train.add_argument("recipe", type=Path, help="a TOML file, such as export/recipes/seed.toml")
    train.add_argument("--out", type=Path, default=Path("models"), help="the model repository (default: models)")
    train.add_argument("--data", type=Path, help="a folder with the data set's files, if not in a usual place")
    return parser


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:<24}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    )


if __name__ == "__main__":
    sys.exit(main())
