"""`committee-export evaluate`: how a published ensemble does on rows that it has not seen, as a page and as numbers."""

import argparse
import os
from collections.abc import Mapping
from pathlib import Path

from rich.progress import Progress

from export.commands import Done
from export.errors import InvalidModel, PublishError

FOLDER = Path("runs") / "evaluations"
NUMBERS, PAGE = "evaluation.json", "evaluation.html"


def add_evaluate(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Put the command into a parser."""
    what = "score a published ensemble on your own rows, and against another version"
    command = commands.add_parser("evaluate", help=what, description=f"{what[0].upper()}{what[1:]}.")
    command.add_argument(
        "ensemble",
        metavar="ENSEMBLE",
        help="a version's folder, an ensemble's, whose highest version is taken, or NAME or NAME/VERSION in --models",
    )
    command.add_argument(
        "--data",
        type=Path,
        required=True,
        help="rows with what is true of them, all to be scored: .csv, .npz, or a folder of pictures with a subfolder "
        "a class",
    )
    command.add_argument(
        "--target", metavar="NAME", help="the column of a .csv, or the array of an .npz, with the truth"
    )
    command.add_argument(
        "--against", metavar="VERSION", help="another version's number, or an ensemble named as ENSEMBLE is"
    )
    command.add_argument("--models", type=Path, default=Path("models"), help="the model repository (default: models)")
    command.add_argument(
        "--members",
        action="append",
        default=[],
        metavar="A,B,…",
        help="score these members together; may be repeated (default: every subset of at most six members, of more "
        "each left out and each alone)",
    )
    command.add_argument(
        "--threshold",
        action="append",
        default=[],
        type=share,
        metavar="SHARE",
        help="of the cascade, beside those that are tried in any case; may be repeated",
    )
    command.add_argument(
        "--out", type=Path, metavar="FOLDER", help=f"where {PAGE} and {NUMBERS} go (default: {FOLDER}/NAME-VERSION)"
    )
    command.add_argument("--seed", type=int, default=0, help="of the resamples of the rows (default: 0)")
    command.set_defaults(run=run)


def run(options: argparse.Namespace, progress: Progress) -> Done:
    """Raises ExportError; then nothing is written."""
    from export import shown
    from export.evaluating.record import evaluate_ensemble
    from export.evaluating.versions import find_other, find_version, open_version
    from export.own.rows import read_own_rows
    from export.page.evaluated import render
    from export.report import to_json
    from server.errors import MemberFailed

    folder = find_version(options.ensemble, options.models)
    other = None if options.against is None else find_other(options.against, folder, options.models)
    out = options.out or FOLDER / f"{folder.parent.name}-{folder.name}"
    if out.exists() and not out.is_dir():
        raise PublishError(f"{out}: expected a folder, or nothing, to write to; got a file")
    ensemble = open_version(folder)
    try:
        record = evaluate_ensemble(
            ensemble,
            read_own_rows(options.data, ensemble.manifest, target=options.target),
            other=None if other is None else open_version(other),
            subsets=[names.split(",") for names in options.members],
            thresholds=options.threshold,
            seed=options.seed,
            progress=progress,
        )
    except MemberFailed as exc:
        raise InvalidModel(exc.message) from exc
    write(out, {PAGE: render(record).encode(), NUMBERS: to_json(record)})
    return Done([out / PAGE, out / NUMBERS], shown.evaluation(record))


def write(out: Path, files: Mapping[str, bytes]) -> None:
    """Files of a folder, which is made if it is not there: all of them, or none. Raises PublishError."""
    parts = {out / name: out / f".{name}.{os.getpid()}" for name in files}
    try:
        out.mkdir(parents=True, exist_ok=True)
        if taken := [path for path in parts if path.is_dir()]:
            raise PublishError(f"{taken[0]}: expected a file, or nothing, to write to; got a folder")
        try:
            for part, data in zip(parts.values(), files.values(), strict=True):
                part.write_bytes(data)
            for path, part in parts.items():
                part.replace(path)
        finally:
            for part in parts.values():
                part.unlink(missing_ok=True)
    except OSError as exc:
        raise PublishError(f"{out}: cannot be written: {exc.strerror}") from exc


def share(text: str) -> float:
    """Of the command line: a number from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, got {text!r}")
    return value
