"""Finds and loads a version that is published, as whoever evaluates it names it."""

import os
from pathlib import Path

from export.errors import InvalidModel
from server.ensemble import Ensemble
from server.errors import InvalidRepository
from server.manifest import MANIFEST_FILE
from server.repository import choose_versions, list_versions, load_version


def find_version(named: str, models: Path) -> Path:
    """The folder of a version: `named` is it, or its ensemble's, whose highest version is taken; or NAME or
    NAME/VERSION of an ensemble in `models`.

    Raises InvalidModel.
    """
    for path in (Path(named), models / named):
        try:
            if (path / MANIFEST_FILE).is_file():
                return _with_place(path)
            if path.is_dir() and list_versions(path)[0]:
                return choose_versions(_with_place(path), "latest")[0]
        except InvalidRepository as exc:
            raise InvalidModel(exc.message) from exc
        except OSError as exc:
            raise InvalidModel(f"{path}: cannot be read: {exc.strerror}") from exc
    raise InvalidModel(
        f"{named}: expected the folder of a version or of an ensemble, or NAME or NAME/VERSION of one in {models}; "
        "there is none"
    )


def find_other(named: str, first: Path, models: Path) -> Path:
    """As `find_version`, but a number is a version of the same ensemble as `first`. Raises InvalidModel."""
    if not named.isascii() or not named.isdigit():
        return find_version(named, models)
    folder = first.parent / named
    if not (folder / MANIFEST_FILE).is_file():
        try:
            there = ", ".join(map(str, list_versions(first.parent)[0]))
        except InvalidRepository as exc:
            raise InvalidModel(exc.message) from exc
        raise InvalidModel(f"--against {named}: expected a version of {first.parent}, which has {there}")
    return folder


def open_version(folder: Path) -> Ensemble:
    """As a server loads it, on one thread. Raises InvalidModel, in the line that the server would print."""
    try:
        return load_version(folder)
    except InvalidRepository as exc:
        raise InvalidModel(exc.message) from exc


def _with_place(path: Path) -> Path:
    """With the names of version and ensemble in it, which `.` and `..` hide."""
    return path if len(path.parts) > 1 and ".." not in path.parts else Path(os.path.abspath(path))  # noqa: PTH100
