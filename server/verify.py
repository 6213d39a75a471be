"""`committee-server verify PATH`: every version there is, checked as a start of the server would check it."""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from server.canary import BAD, CONFINED, GOOD
from server.confine import confine, memory_for
from server.ensemble import Ensemble
from server.errors import InvalidRepository
from server.manifest import MANIFEST_FILE
from server.repository import (
    Versions,
    choose_versions,
    find_ensembles,
    list_versions,
    load_version,
    parse_versions,
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """On a version, or on a folder of versions."""

    name: str
    """`fashion/1`"""
    good: bool
    text: str

    def __str__(self) -> str:
        return f"{GOOD} {self.name} ({self.text})" if self.good else f"{BAD} {self.name}: {self.text}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "paths",
        metavar="PATH",
        type=Path,
        nargs="+",
        help="a model repository, or the folder of an ensemble or of a version",
    )
    parser.add_argument(CONFINED, type=int, metavar="SECONDS", help=argparse.SUPPRESS)
    parser.add_argument(
        "--versions",
        type=chosen_versions,
        default="all",
        help="versions of each ensemble to check: latest, all, or numbers like 1,3 (default: all)",
    )


def run(options: argparse.Namespace) -> int:
    """Print a line a version. Returns the exit code: 0 if all are good, else 1."""
    if options.confined is not None:
        confine(memory_for(options.paths), options.confined)
    good = True
    for path in options.paths:
        for verdict in check(path, options.versions):
            print(verdict, flush=True)  # noqa: T201
            good &= verdict.good
    return 0 if good else 1


def check(path: Path, versions: Versions = "all") -> Iterator[Verdict]:
    """A verdict on each version under `path`: a repository, an ensemble's folder or a version's."""
    path = path.resolve()  # `.` has no name to compare with the manifest's
    try:
        is_version = (path / MANIFEST_FILE).exists()
        is_ensemble = any(path.glob(f"[!.]*/{MANIFEST_FILE}"))
    except OSError as exc:
        yield Verdict(path.name, good=False, text=str(exc.strerror))
        return
    if is_version:
        yield _check_version(path)
    elif is_ensemble:
        yield from _check_ensemble(path, versions)
    else:
        yield from _check_root(path, versions)


def _check_root(root: Path, versions: Versions) -> Iterator[Verdict]:
    try:
        folders = find_ensembles(root)
    except InvalidRepository as exc:
        yield _fault(root, str(exc), name=root.name)
        return
    for folder in folders:
        yield from _check_ensemble(folder, versions)


def _check_ensemble(folder: Path, versions: Versions) -> Iterator[Verdict]:
    try:
        chosen = choose_versions(folder, versions)
    except InvalidRepository as exc:
        yield _fault(folder, str(exc), name=folder.name)
        chosen = _readable(folder)
    for path in chosen:
        yield _check_version(path)


def _readable(folder: Path) -> list[Path]:
    """All that are numbered, of an ensemble in whose folder something is wrong."""
    try:
        return list(list_versions(folder)[0].values())
    except InvalidRepository:
        return []


def _check_version(folder: Path) -> Verdict:
    name = f"{folder.parent.name}/{folder.name}"
    try:
        ensemble = load_version(folder)
    except InvalidRepository as exc:
        return _fault(folder, str(exc), name=name)
    return Verdict(name, good=True, text=_describe(ensemble))


def _fault(folder: Path, message: str, *, name: str) -> Verdict:
    """Without the folder, which the name tells."""
    text = message.removeprefix(str(folder)).lstrip("/").removeprefix(": ")
    return Verdict(name, good=False, text=text)


def _describe(ensemble: Ensemble) -> str:
    n_members = len(ensemble.names)
    size = sum(file.bytes for file in ensemble.manifest.files)
    by_hand = "" if ensemble.verified else "; made by hand: no hashes, no test vectors"
    return f"{n_members} member{'s' if n_members > 1 else ''}, {_in_units(size)}{by_hand}"


def _in_units(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"


def chosen_versions(text: str) -> Versions:
    try:
        return parse_versions(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from exc
