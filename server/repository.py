"""The model repository: finds the versions of every ensemble, verifies them, loads them, and hands them out.

Layout: `<root>/<ensemble>/<version>/`, where the version's folder holds `ensemble.toml` and exactly the files that it
lists or, if it is made by hand, that its members name. Folders whose name starts with a dot are being published and are
not looked at.
"""

import errno
import hashlib
import os
import re
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from server.ensemble import Ensemble, graph_files, offered_strategies, open_graphs
from server.errors import InvalidRepository, NotFound
from server.fusion import BY_TASK, STACKING
from server.handmade import Draft, is_hand_made, parse_draft, resolve
from server.manifest import MANIFEST_FILE, NAME_PATTERN, REPORT_FILE, Manifest, parse_manifest
from server.proof import probe, replay, take_many
from server.session import CPU

Versions = Literal["latest", "all"] | frozenset[int]

MANIFEST_LIMIT = 1 << 20
"""Bytes; a manifest that is larger is refused unread."""
GRAPH_LIMIT = 1 << 31
"""Bytes; no protobuf holds more."""
VERSION_PATTERN = r"[1-9][0-9]{0,8}"
COMPANIONS = frozenset({REPORT_FILE, "README.md"})
"""Files that may lie beside those that a hand-made manifest names."""


class Repository:
    """The ensembles that are served, by name and version. Built whole, or not at all."""

    def __init__(self, ensembles: Iterable[Ensemble]) -> None:
        self._by_name: dict[str, dict[int, Ensemble]] = {}
        for ensemble in ensembles:
            self._by_name.setdefault(ensemble.manifest.name, {})[ensemble.manifest.version] = ensemble

    @classmethod
    def load(
        cls, root: Path, *, versions: Versions = "latest", threads: int = 1, providers: Sequence[str] = CPU
    ) -> "Repository":
        """Load the chosen versions of every ensemble under `root`. Raises InvalidRepository if anything is wrong."""
        return cls(
            load_version(folder, threads=threads, providers=providers) for folder in find_versions(root, versions)
        )

    def find(self, name: str, version: int) -> Ensemble | None:
        return self._by_name.get(name, {}).get(version)

    def names(self) -> list[str]:
        return sorted(self._by_name)

    def ensembles(self) -> list[Ensemble]:
        """Every version of every one."""
        return [self._by_name[name][version] for name in self.names() for version in self.versions(name)]

    def versions(self, name: str) -> list[int]:
        """Served versions of an ensemble, lowest first. Raises NotFound."""
        if name not in self._by_name:
            raise NotFound(f"no ensemble {name!r}; there are: {', '.join(self.names()) or 'none'}")
        return sorted(self._by_name[name])

    def get(self, name: str, version: int | None = None) -> Ensemble:
        """An ensemble's version, by default the highest that is served. Raises NotFound."""
        versions = self.versions(name)
        if version is None:
            version = versions[-1]
        if version not in versions:
            raise NotFound(f"no version {version} of ensemble {name!r}; served: {', '.join(map(str, versions))}")
        return self._by_name[name][version]


def parse_versions(text: str) -> Versions:
    """`latest`, `all`, or numbers with commas between. Raises ValueError."""
    if text == "latest":
        return "latest"
    if text == "all":
        return "all"
    numbers = text.split(",")
    if not all(number.isascii() and number.isdigit() and not number.startswith("0") for number in numbers):
        raise ValueError("expected latest, all, or numbers like 1,3")
    return frozenset(map(int, numbers))


def find_versions(root: Path, versions: Versions = "latest", *, default: str | None = None) -> list[Path]:
    """The chosen versions' folders of every ensemble under `root`, in order; `default` has to be one of them.

    Raises InvalidRepository.
    """
    folders = [path for folder in find_ensembles(root) for path in choose_versions(folder, versions)]
    names = sorted({folder.parent.name for folder in folders})
    if default is not None and default not in names:
        raise InvalidRepository(
            f"{root}: expected the default ensemble {default!r}; there are: {', '.join(names)} "
            "(--default says which is meant)"
        )
    return folders


def find_ensembles(root: Path) -> list[Path]:
    """The folders of the ensembles under `root`, in order. Raises InvalidRepository if there are none."""
    try:
        if not root.is_dir():
            raise InvalidRepository(f"{root}: expected a folder, the model repository; there is none")
        folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError as exc:
        raise InvalidRepository(f"{exc.filename}: {exc.strerror}") from exc
    if not folders:
        raise InvalidRepository(f"{root}: expected at least one ensemble, <name>/<version>/{MANIFEST_FILE}; got none")
    return folders


def choose_versions(folder: Path, versions: Versions) -> list[Path]:
    """The chosen versions' folders of one ensemble, in order. Raises InvalidRepository."""
    if not re.fullmatch(NAME_PATTERN, folder.name):
        raise InvalidRepository(f"{folder.parent}: expected names of ensembles, {NAME_PATTERN}, got {folder.name!r}")
    numbered, strangers = list_versions(folder)
    if strangers:
        raise InvalidRepository(f"{folder}: expected only folders 1, 2, 3, …, one a version; got {strangers[0]!r}")
    if not numbered:
        raise InvalidRepository(f"{folder}: expected at least one version; got none")
    if not (kept := pick(numbered, versions)):
        assert not isinstance(versions, str)
        raise InvalidRepository(f"{folder}: expected one of the versions {sorted(versions)}, got {sorted(numbered)}")
    return [numbered[number] for number in kept]


def pick(numbers: Iterable[int], versions: Versions) -> list[int]:
    """Those of an ensemble's versions that are chosen, lowest first."""
    if versions == "latest":
        return sorted(numbers)[-1:]
    return sorted(numbers if versions == "all" else versions.intersection(numbers))


def list_versions(folder: Path) -> tuple[dict[int, Path], list[str]]:
    """An ensemble's versions by number, in order, and the names of what else is there. Raises InvalidRepository."""
    try:
        paths = [path for path in folder.iterdir() if not path.name.startswith(".")]
        found = {path: path.is_dir() and re.fullmatch(VERSION_PATTERN, path.name) for path in paths}
    except OSError as exc:
        raise InvalidRepository(f"{exc.filename}: {exc.strerror}") from exc
    numbered = {int(path.name): path for path, fits in found.items() if fits}
    return dict(sorted(numbered.items())), sorted(path.name for path, fits in found.items() if not fits)


def read_version(folder: Path) -> tuple[Manifest | Draft, dict[str, bytes]]:
    """Read the files of one version and verify what can be without loading any graph.

    Raises InvalidRepository in one line: which file, what was expected, what came.
    """
    path = folder / MANIFEST_FILE
    data = _read_regular(path, limit=MANIFEST_LIMIT)
    if is_hand_made(data):
        draft = parse_draft(data, where=str(path))
        _check_said(draft, folder)
        return draft, _read_named(folder, draft)
    manifest = parse_manifest(data, where=str(path))
    _check_said(manifest, folder)
    return manifest, _read_listed(folder, manifest)


def load_version(folder: Path, *, threads: int = 1, providers: Sequence[str] = CPU) -> Ensemble:
    """Verify one version, load its graphs and see that they answer as they should. Raises InvalidRepository."""
    said, files = read_version(folder)
    where = str(folder)
    if isinstance(said, Manifest):
        ensemble = Ensemble(said, files, where=where, threads=threads, providers=providers, verified=True)
        replay(ensemble, files)
        take_many(ensemble)
        return ensemble
    graphs = open_graphs(graph_files(said), files, where=where, threads=threads, providers=providers)
    name, version = folder.parent.name, int(folder.name)
    manifest = resolve(said, files, graphs, name=name, version=version, where=str(folder / MANIFEST_FILE))
    ensemble = Ensemble(manifest, files, where=where, graphs=graphs)
    probe(ensemble)
    take_many(ensemble)
    return ensemble


def _check_said(said: Manifest | Draft, folder: Path) -> None:
    """What a manifest says of its place, and of the strategies."""
    path = folder / MANIFEST_FILE
    place = (folder.parent.name, folder.name)
    if (said.name or place[0], str(said.version or place[1])) != place:
        raise InvalidRepository(
            f"{path}: says ensemble {said.name!r} version {said.version}, but stands in {place[0]}/{place[1]}"
        )
    if not re.fullmatch(NAME_PATTERN, place[0]) or not re.fullmatch(VERSION_PATTERN, place[1]):
        raise InvalidRepository(f"{path}: expected to stand in <name>/<version>, got {place[0]}/{place[1]}")
    offered = offered_strategies(said)
    if said.default_strategy not in offered:
        known = ", ".join(offered)
        raise InvalidRepository(f"{path}: default_strategy: expected one of {known}, got {said.default_strategy!r}")
    pools = BY_TASK[said.task]
    if said.cascade is not None and said.cascade.strategy not in pools.keys() - {STACKING}:
        known = ", ".join(name for name in pools if name != STACKING)
        raise InvalidRepository(f"{path}: cascade: strategy: expected one of {known}, got {said.cascade.strategy!r}")
    fitted = [name for name, strategy in pools.items() if strategy.weights == "fitted"]
    for member in said.members:
        if unknown := sorted(set(member.weights) - set(fitted)):
            raise InvalidRepository(
                f"{path}: member {(member.name or member.file)!r}: weights for {unknown}; "
                f"expected some of {', '.join(fitted)}"
            )


def _read_named(folder: Path, draft: Draft) -> dict[str, bytes]:
    """The files of a hand-made version: those that its members name, and the report if there is one."""
    named = set(graph_files(draft))
    present = _present(folder)
    if strangers := present - named - COMPANIONS:
        raise InvalidRepository(f"{folder}: files that no member names: {sorted(strangers)}")
    wanted = sorted(named | (present & {REPORT_FILE}))
    return {name: _read_regular(folder / name, limit=GRAPH_LIMIT) for name in wanted}


def _present(folder: Path) -> set[str]:
    try:
        return {path.name for path in folder.iterdir()} - {MANIFEST_FILE}
    except OSError as exc:
        raise InvalidRepository(f"{folder}: {exc.strerror}") from exc


def _read_listed(folder: Path, manifest: Manifest) -> dict[str, bytes]:
    listed = {file.name for file in manifest.files}
    if strangers := _present(folder) - listed:
        raise InvalidRepository(f"{folder}: files that the manifest does not list: {sorted(strangers)}")
    files: dict[str, bytes] = {}
    for file in manifest.files:
        path = folder / file.name
        data = _read_regular(path, limit=file.bytes)
        if len(data) != file.bytes:
            raise InvalidRepository(f"{path}: expected {file.bytes} bytes, got {len(data)}")
        if (digest := hashlib.sha256(data).hexdigest()) != file.sha256:
            raise InvalidRepository(f"{path}: expected sha256 {file.sha256}, got {digest}")
        files[file.name] = data
    return files


def _read_regular(path: Path, *, limit: int) -> bytes:
    """Read a regular file of at most `limit` bytes that is no link of either kind."""
    try:
        # Opened first, and never waiting, so that nothing can take the place of what has been looked at.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as exc:
        link = "expected a regular file with one link, got a symbolic link"
        raise InvalidRepository(f"{path}: {link if exc.errno == errno.ELOOP else exc.strerror}") from exc
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
            raise InvalidRepository(
                f"{path}: expected a regular file with one link, "
                f"got {stat.filemode(status.st_mode)} with {status.st_nlink}"
            )
        if status.st_size > limit:
            raise InvalidRepository(f"{path}: expected at most {limit} bytes, got {status.st_size}")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(min(limit, status.st_size) + 1)  # so much is asked of the system at once
    except OSError as exc:
        raise InvalidRepository(f"{path}: {exc.strerror}") from exc
    finally:
        os.close(descriptor)
