"""`committee-export`: trains or brings models, converts and publishes them as ensembles, and evaluates these."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from export.commands import Done, add_commands
from export.errors import ExportError
from export.evaluating.command import add_evaluate, share

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, 1 for an error that says what is wrong, 130 for Ctrl-C."""
    options = _parser().parse_args(arguments)
    console = Console(stderr=True)
    try:
        with _progress(console) as progress:
            done: Done = options.run(options, progress)
    except ExportError as exc:
        console.print(f"committee-export: {exc}", style="red", markup=False, highlight=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        console.print("committee-export: interrupted; nothing was published")
        return 130
    for table in done.shown:
        console.print(table)
    sys.stdout.write("".join(f"{path}\n" for path in done.paths))
    return 0


def _pack(options: argparse.Namespace, progress: Progress) -> Done:
    from export import shown
    from export.formats import Trust
    from export.fusing.cascade import TOLERANCE
    from export.options import read_adaptations, read_members
    from export.pack import pack

    members = read_members(options.models)
    folder = pack(
        options.name,
        members,
        options.data,
        target=options.target,
        classes=None if options.classes is None else options.classes.split(","),
        adaptations=read_adaptations(list(members), options.scale, options.shift, options.logits),
        trust=Trust(pickle=options.allow_pickle, types=options.trust),
        version_of=options.version_of,
        out=options.out,
        description=options.description,
        cascade_tolerance=TOLERANCE if options.cascade_tolerance is None else options.cascade_tolerance,
        seed=options.seed,
        progress=progress,
    )
    return Done([folder], shown.version(folder))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="committee-export", description="Train, convert and publish ensembles.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add_commands(commands)
    what = "make an ensemble of trained models and publish it"
    pack = commands.add_parser("pack", help=what, description=f"{what[0].upper()}{what[1:]}.")
    _pack_options(pack)
    pack.set_defaults(run=_pack)
    add_evaluate(commands)
    return parser


def _pack_options(pack: argparse.ArgumentParser) -> None:
    pack.add_argument("name", metavar="NAME", help="of the ensemble")
    pack.add_argument(
        "models",
        nargs="+",
        metavar="[MEMBER=]PATH",
        help="a trained model: .keras, .h5, a SavedModel's folder, .skops, .json or .ubj of XGBoost, .txt of LightGBM, "
        ".onnx; its member is named like the file, unless said otherwise",
    )
    pack.add_argument(
        "--data",
        type=Path,
        help="rows with labels that no model has seen: .csv, .npz, or a folder of pictures with a subfolder a class",
    )
    pack.add_argument("--target", help="the column of a .csv, or the array of an .npz, that holds the labels")
    pack.add_argument("--classes", metavar="A,B,…", help="the classes' names, in the order of the models' columns")
    pack.add_argument(
        "--scale",
        action="append",
        default=[],
        metavar="MEMBER=FACTOR",
        help="multiply numbers by this before the member reads them, such as cnn=1/255; a value a channel: a,b,c",
    )
    pack.add_argument(
        "--shift", action="append", default=[], metavar="MEMBER=TERM", help="add this to numbers, after --scale"
    )
    pack.add_argument(
        "--logits", action="append", default=[], metavar="MEMBER", help="the member answers logits: append a softmax"
    )
    pack.add_argument("--out", type=Path, default=Path("models"), help="the model repository (default: models)")
    pack.add_argument("--version-of", action="store_true", help="NAME is there already: publish its next version")
    pack.add_argument("--description", default="", help="what stands in the manifest and the model card")
    pack.add_argument(
        "--cascade-tolerance",
        type=share,
        metavar="SHARE",
        help="of rows, by which the accuracy of a cascade may lie below that of all members (default: 0.0005)",
    )
    pack.add_argument("--seed", type=int, default=0, help="of the split of the data (default: 0)")
    pack.add_argument(
        "--allow-pickle", action="store_true", help="open .joblib and .pkl files, which run code: only your own"
    )
    pack.add_argument(
        "--trust",
        action="append",
        default=[],
        metavar="TYPE",
        help="a type in a .skops file that is not scikit-learn's, and that you trust",
    )


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
