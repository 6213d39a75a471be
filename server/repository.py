"""The model repository: finds the versions of every ensemble, verifies them, loads them, and hands them out.

Layout: `<root>/<ensemble>/<version>/`, where the version's folder holds `ensemble.toml` and exactly the files that it
lists. Folders whose name starts with a dot are being published and are not looked at.
"""

import errno
import hashlib
import io
import os
import re
import stat
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from server.ensemble import Ensemble, are_distributions
from server.errors import InvalidRepository, MemberFailed, NotFound
from server.fusion import STRATEGIES
from server.manifest import MANIFEST_FILE, NAME_PATTERN, VECTORS_FILE, InputSpec, Manifest, parse_manifest
from server.rows import join_tensors

Versions = Literal["latest", "all"] | frozenset[int]

MANIFEST_LIMIT = 1 << 20
"""Bytes; a manifest that is larger is refused unread."""
TOLERANCE = 1e-4
"""How far a replayed test vector may lie from the recorded probability: CPUs differ in their last digits."""
VECTORS_LIMIT = 1 << 28
"""Bytes that the test vectors may hold once decompressed."""


class Repository:
    """The ensembles that are served, by name and version. Built whole, or not at all."""

    def __init__(self, ensembles: Iterable[Ensemble]) -> None:
        self._by_name: dict[str, dict[int, Ensemble]] = {}
        for ensemble in ensembles:
            self._by_name.setdefault(ensemble.manifest.name, {})[ensemble.manifest.version] = ensemble

    @classmethod
    def load(cls, root: Path, *, versions: Versions = "latest", threads: int = 1) -> "Repository":
        """Load the chosen versions of every ensemble under `root`. Raises InvalidRepository if anything is wrong."""
        return cls(load_version(folder, threads=threads) for folder in find_versions(root, versions))

    def names(self) -> list[str]:
        return sorted(self._by_name)

    def versions(self, name: str) -> list[int]:
        """Served versions of an ensemble, lowest first. Raises NotFound."""
        if name not in self._by_name:
            raise NotFound(f"no ensemble {name!r}; there are: {', '.join(self.names())}")
        return sorted(self._by_name[name])

    def get(self, name: str, version: int | None = None) -> Ensemble:
        """An ensemble's version, by default the highest that is served. Raises NotFound."""
        versions = self.versions(name)
        if version is None:
            version = versions[-1]
        if version not in versions:
            raise NotFound(f"no version {version} of ensemble {name!r}; served: {', '.join(map(str, versions))}")
        return self._by_name[name][version]


def find_versions(root: Path, versions: Versions = "latest") -> list[Path]:
    """The chosen versions' folders of every ensemble under `root`, in order. Raises InvalidRepository."""
    try:
        if not root.is_dir():
            raise InvalidRepository(f"{root}: expected a folder, the model repository; there is none")
        found = [path for folder in _folders(root) for path in _chosen(folder, versions)]
    except OSError as exc:
        raise InvalidRepository(f"{exc.filename}: {exc.strerror}") from exc
    if not found:
        raise InvalidRepository(f"{root}: expected at least one ensemble, <name>/<version>/{MANIFEST_FILE}; got none")
    return found


def read_version(folder: Path) -> tuple[Manifest, dict[str, bytes]]:
    """Read and verify the files of one version against its manifest, without loading any graph.

    Raises InvalidRepository in one line: which file, what was expected, what came.
    """
    path = folder / MANIFEST_FILE
    manifest = parse_manifest(_read_regular(path, limit=MANIFEST_LIMIT), where=str(path))
    if (manifest.name, str(manifest.version)) != (folder.parent.name, folder.name):
        raise InvalidRepository(
            f"{path}: says ensemble {manifest.name!r} version {manifest.version}, "
            f"but stands in {folder.parent.name}/{folder.name}"
        )
    if manifest.default_strategy not in STRATEGIES:
        known = ", ".join(STRATEGIES)
        raise InvalidRepository(f"{path}: default_strategy: expected one of {known}, got {manifest.default_strategy!r}")
    for member in manifest.members:
        fitted = [name for name, strategy in STRATEGIES.items() if strategy.weights == "fitted"]
        if unknown := sorted(set(member.weights) - set(fitted)):
            known = ", ".join(fitted)
            raise InvalidRepository(f"{path}: member {member.name!r}: weights for {unknown}; expected some of {known}")
    return manifest, _read_listed(folder, manifest)


def load_version(folder: Path, *, threads: int = 1) -> Ensemble:
    """Verify one version, load its graphs and replay its test vectors. Raises InvalidRepository."""
    manifest, files = read_version(folder)
    ensemble = Ensemble(manifest, files, where=str(folder), threads=threads)
    replay(ensemble, files)
    return ensemble


def replay(ensemble: Ensemble, files: Mapping[str, bytes]) -> None:
    """Run the recorded inputs, which also warms the graphs, and compare. Raises InvalidRepository."""
    where = f"{ensemble.where}/{VECTORS_FILE}"
    if VECTORS_FILE not in files:
        raise InvalidRepository(f"{where}: expected test vectors; the manifest lists none")
    specs = ensemble.manifest.inputs
    tensors, expected = _read_vectors(files[VECTORS_FILE], specs, where)
    for spec in specs:
        n_rows = None if spec is specs[0] else len(tensors[specs[0].name])
        _check_array(where, spec.name, tensors[spec.name], (n_rows, *spec.shape), spec.datatype)
    rows = join_tensors(tensors, specs)
    shape = (len(ensemble.names), len(rows), len(ensemble.manifest.classes))
    _check_array(where, "member_probabilities", expected, shape)
    if not are_distributions(expected):
        raise InvalidRepository(f"{where}: expected member_probabilities to be distributions over the classes")
    try:
        answered = ensemble.run(rows)
    except MemberFailed as exc:
        raise InvalidRepository(f"{where}: replaying it failed: {exc}") from exc
    off = np.abs(answered - expected)
    if not off.max() <= TOLERANCE:
        member, row, klass = np.unravel_index(off.argmax(), off.shape)
        raise InvalidRepository(
            f"{where}: member {ensemble.names[member]!r}, row {row}, class {klass}: expected "
            f"{expected[member, row, klass]:.6f}, the graph answered {answered[member, row, klass]:.6f}"
        )


def _folders(root: Path) -> list[Path]:
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    for folder in folders:
        if not re.fullmatch(NAME_PATTERN, folder.name):
            raise InvalidRepository(f"{root}: expected names of ensembles, {NAME_PATTERN}, got {folder.name!r}")
    return folders


def _chosen(folder: Path, versions: Versions) -> list[Path]:
    numbered: dict[int, Path] = {}
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if not path.is_dir() or not re.fullmatch(r"[1-9][0-9]{0,8}", path.name):
            raise InvalidRepository(f"{folder}: expected only folders 1, 2, 3, …, one a version; got {path.name!r}")
        numbered[int(path.name)] = path
    if not numbered:
        raise InvalidRepository(f"{folder}: expected at least one version; got none")
    if versions == "latest":
        return [numbered[max(numbered)]]
    if versions == "all":
        return [numbered[number] for number in sorted(numbered)]
    if not (kept := sorted(versions & numbered.keys())):
        raise InvalidRepository(f"{folder}: expected one of the versions {sorted(versions)}, got {sorted(numbered)}")
    return [numbered[number] for number in kept]


def _read_listed(folder: Path, manifest: Manifest) -> dict[str, bytes]:
    listed = {file.name for file in manifest.files}
    try:
        present = {path.name for path in folder.iterdir()} - {MANIFEST_FILE}
    except OSError as exc:
        raise InvalidRepository(f"{folder}: {exc.strerror}") from exc
    if strangers := present - listed:
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
            return file.read(limit + 1)
    except OSError as exc:
        raise InvalidRepository(f"{path}: {exc.strerror}") from exc
    finally:
        os.close(descriptor)


def _read_vectors(
    data: bytes, specs: Sequence[InputSpec], where: str
) -> tuple[dict[str, NDArray[Any]], NDArray[np.float32]]:
    """The recorded tensors, by input, and what the members answered to them."""
    names = [spec.name for spec in specs]
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
            if size > VECTORS_LIMIT:
                raise ValueError(f"they decompress to {size} bytes, more than {VECTORS_LIMIT}")
            tensors = {name: _read_array(archive, name) for name in names}
            return tensors, _read_array(archive, "member_probabilities")
    except Exception as exc:  # zipfile and numpy raise a dozen kinds over bytes that are no arrays
        reason = (str(exc).splitlines() or [type(exc).__name__])[0]
        wanted = ", ".join(names)
        raise InvalidRepository(f"{where}: expected the arrays {wanted} and member_probabilities: {reason}") from exc


def _read_array(archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
    with archive.open(f"{name}.npy") as file:
        return np.asarray(np.lib.format.read_array(file, allow_pickle=False))


def _check_array(
    where: str, name: str, array: NDArray[Any], shape: tuple[int | None, ...], datatype: str = "FP32"
) -> None:
    fits = array.ndim == len(shape) and all(want in (None, got) for want, got in zip(shape, array.shape, strict=True))
    right = array.dtype.kind == "U" if datatype == "BYTES" else array.dtype == np.float32
    if not right or not fits or not array.size:
        wanted = ", ".join("n" if size is None else str(size) for size in shape)
        element = "text" if datatype == "BYTES" else "float32"
        raise InvalidRepository(
            f"{where}: expected {name} to be {element} of shape ({wanted}), got {array.dtype} {array.shape}"
        )
