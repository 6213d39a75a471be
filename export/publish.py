"""Publishes a version of an ensemble into the model repository: whole, verified, or not at all."""

import hashlib
import io
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
from numpy.typing import NDArray

from export.errors import PublishError
from server.errors import InvalidRepository
from server.manifest import MANIFEST_FILE, FileSpec, InputSpec, Manifest
from server.repository import load_version
from server.rows import Rows, split_rows


def next_version(out: Path, name: str) -> int:
    """The number after the highest version of this ensemble under `out`, 1 for the first."""
    folder = out / name
    taken = [int(path.name) for path in folder.iterdir() if path.name.isdigit()] if folder.is_dir() else []
    return max(taken, default=0) + 1


def list_files(files: Mapping[str, bytes]) -> list[FileSpec]:
    """What a manifest says of its files: name, sha256, size in bytes."""
    return [
        FileSpec(name=name, sha256=hashlib.sha256(data).hexdigest(), bytes=len(data)) for name, data in files.items()
    ]


def make_vectors(inputs: Sequence[InputSpec], rows: Rows, member_probabilities: NDArray[np.float32]) -> bytes:
    """The bytes of `vectors.npz`: the rows, an array `(n, *shape)` an input under its name, and what the members answer
    to them, `(n_members, n, n_classes)`."""
    buffer = io.BytesIO()
    tensors = split_rows(rows, [spec.name for spec in inputs])
    # Text of a fixed width: an array of Python's strings would be a pickle.
    arrays: dict[str, Any] = {
        name: tensor.astype(np.str_) if tensor.dtype == object else tensor for name, tensor in tensors.items()
    }
    arrays["member_probabilities"] = member_probabilities
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def publish(out: Path, manifest: Manifest, files: Mapping[str, bytes]) -> Path:
    """Write `<out>/<name>/<version>/` and return it.

    The version is written beside its place, verified by the very code that will load it, and moved there by one rename:
    a reader of `out` sees all of it or none. Raises PublishError if it does not verify, or if that version is there
    already: a published version is never changed.
    """
    place = out / manifest.name / str(manifest.version)
    out.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".publishing-", dir=out))
    try:
        draft = staging / manifest.name / str(manifest.version)
        draft.mkdir(parents=True)
        for name, data in files.items():
            _write(draft / name, data)
        _write(draft / MANIFEST_FILE, tomli_w.dumps(manifest.model_dump(exclude_none=True)).encode())
        load_version(draft)
        _rename(draft, place)
    except InvalidRepository as exc:
        raise PublishError(f"the new version does not verify: {exc}") from exc
    finally:
        shutil.rmtree(staging)
    return place


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _rename(draft: Path, place: Path) -> None:
    place.parent.mkdir(exist_ok=True)
    try:
        draft.rename(place)
    except OSError as exc:
        raise PublishError(
            f"{place}: cannot be put there: {exc.strerror}; a published version is never changed"
        ) from exc
    folder = os.open(place.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
