"""Versions of one ensemble: a name is taken once, and every version of it has the inputs and classes of the last."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from export.datasets import Dataset
from export.errors import Mismatch, PublishError
from export.publish import next_version
from server.errors import InvalidRepository
from server.manifest import MANIFEST_FILE, NAME_PATTERN, InputSpec, Manifest, parse_manifest


def check_place(out: Path, name: str, *, version_of: bool) -> None:
    """Raises PublishError if the name cannot be one, is taken, or is to have another version and has none."""
    if not re.fullmatch(NAME_PATTERN, name):
        raise PublishError(f"expected a name of letters, digits, _ and -, at most 64; got {name!r}")
    there = next_version(out, name) - 1
    if there and not version_of:
        raise PublishError(f"{out / name}: is there already, up to version {there}: --version-of adds another version")
    if version_of and not there:
        raise PublishError(f"{out / name}: expected an ensemble to add a version to (--version-of), there is none")


def check_lineage(out: Path, name: str, dataset: Dataset) -> None:
    """Raises Mismatch unless the latest version has these very classes and inputs: requests must go on being right."""
    latest = _latest(out, name)
    differences = []
    if latest.classes != dataset.classes:
        differences.append(f"classes were {_listed(latest.classes)}, are {_listed(dataset.classes)}")
    was, now = _by_name(latest.inputs), _by_name(dataset.inputs)
    differences += [f"input {column!r} is gone" for column in was if column not in now]
    differences += [f"input {column!r} is new" for column in now if column not in was]
    differences += [
        f"input {column!r}: {field} was {_short(was[column][field])}, is {_short(value)}"
        for column in now
        if column in was
        for field, value in now[column].items()
        if was[column][field] != value
    ]
    if differences:
        raise Mismatch(f"{out / name}: not as version {latest.version}: {'; '.join(differences)}")


def _latest(out: Path, name: str) -> Manifest:
    path = out / name / str(next_version(out, name) - 1) / MANIFEST_FILE
    try:
        return parse_manifest(path.read_bytes(), where=str(path))
    except (OSError, InvalidRepository) as exc:
        raise PublishError(f"{path}: cannot be compared with: {exc}") from exc


def _by_name(inputs: Sequence[InputSpec]) -> dict[str, dict[str, Any]]:
    return {spec.name: spec.model_dump(exclude={"name"}) for spec in inputs}


def _listed(classes: Sequence[str]) -> str:
    return ", ".join(classes)


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 80 else f"{shown[:77]}…"
