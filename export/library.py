"""The library: every candidate and every study that was made, kept by the content of what it was made of.

    <work>/candidates/<name>-<key>/   model.onnx, answers.npz, entry.json, and what other members can be made of
    <work>/candidates/<name>-<key>.refused   why nothing came of it
    <work>/records/<what>-<key>.json

A key is the sha256 of the settings, the data, the seed and the versions of the software: asking for the same again
finds it, and what was changed is made anew. Entries appear whole, by one rename, so a stopped run loses only what it
was at.
"""

import dataclasses
import hashlib
import io
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import orjson
from numpy.typing import NDArray

from export.candidate import Candidate
from export.datasets import Dataset
from export.errors import CorruptLibrary, NothingFits
from export.evaluate import Evaluation, evaluate
from export.parity import ParityReport
from export.software import versions
from server.errors import first_line
from server.fusion import by_highest
from server.rows import Rows

MADE_BY = 1
"""Raised whenever the code comes to make something else of the same settings."""
SOFTWARE = ("keras", "tensorflow-cpu", "tensorflow", "scikit-learn", "xgboost-cpu", "xgboost", "lightgbm")
MODEL_FILE, ANSWERS_FILE, ENTRY_FILE = "model.onnx", "answers.npz", "entry.json"
SPLITS = ("validation", "calibration")
"""Those whose rows candidates are chosen and fused by. The test rows are not among them."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A candidate as the library keeps it.

    `answers` are what its graph answers to each of `SPLITS`, `(n, n_classes)` float32. `record` is what making it has
    shown.
    """

    key: str
    candidate: Candidate
    answers: Mapping[str, NDArray[np.float32]]
    record: Mapping[str, Any]
    folder: Path

    @property
    def name(self) -> str:
        return self.candidate.name

    @property
    def bytes(self) -> int:
        """Of its graph."""
        return int(self.candidate.model.ByteSize())


class Library:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, name: str, key: str) -> Entry | None:
        """The entry of this name and key, or None. Raises CorruptLibrary, and NothingFits if making it did before."""
        refusal = self._refusal(name, key)
        if refusal.is_file():
            raise NothingFits(refusal.read_text())
        folder = self._place(name, key)
        return _read(folder, name, key) if folder.is_dir() else None

    def refuse(self, name: str, key: str, reason: str) -> None:
        """Remember that nothing comes of these settings, and why."""
        place = self._refusal(name, key)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(reason)

    def keep(
        self,
        key: str,
        candidate: Candidate,
        answers: Mapping[str, NDArray[np.float32]],
        record: Mapping[str, Any],
        files: Mapping[str, bytes],
    ) -> Entry:
        """Add an entry; one of the same name and key that appeared meanwhile is as good and stays."""
        about = {
            "framework": candidate.framework,
            "parity": dataclasses.asdict(candidate.parity),
            "record": record,
        }
        contents = {
            **files,
            MODEL_FILE: candidate.model.SerializeToString(),
            ANSWERS_FILE: _npz(answers),
            ENTRY_FILE: orjson.dumps(about, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY),
        }
        place = self._place(candidate.name, key)
        place.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=".making-", dir=place.parent))
        try:
            for name, data in contents.items():
                (draft / name).write_bytes(data)
            if not place.is_dir():
                draft.rename(place)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return _read(place, candidate.name, key)

    def record(self, what: str, content: object, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What `make` answers, ready for JSON; not made again for the same content. Raises CorruptLibrary."""
        place = self.folder / "records" / f"{what}-{content_key(content)}.json"
        if not place.is_file():
            place.parent.mkdir(parents=True, exist_ok=True)
            draft = place.with_suffix(f".{os.getpid()}.making")
            draft.write_bytes(orjson.dumps(make(), option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY))
            draft.rename(place)
        try:
            found: dict[str, Any] = orjson.loads(place.read_bytes())
        except ValueError as exc:
            raise CorruptLibrary(f"{place}: expected JSON: {exc}; delete it to have it made again") from exc
        return found

    def _refusal(self, name: str, key: str) -> Path:
        return self.folder / "candidates" / f"{name}-{key}.refused"

    def _place(self, name: str, key: str) -> Path:
        return self.folder / "candidates" / f"{name}-{key}"


def score_alone(entries: Sequence[Entry], y: NDArray[np.int64]) -> Evaluation:
    """Each candidate's own answers to the validation rows, whose classes are `y (n,)`, scored under its name."""
    return evaluate({entry.name: by_highest(entry.answers["validation"]) for entry in entries}, y)


def content_key(*content: object) -> str:
    """16 hexadecimal digits that stand for this content, anything that JSON can say, and for the software."""
    installed = versions(SOFTWARE)
    everything = [MADE_BY, {name: installed.get(name) for name in SOFTWARE}, content]
    return hashlib.sha256(orjson.dumps(everything, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]


def fingerprint(dataset: Dataset) -> str:
    """Stands for the rows and labels of all splits but test, which nothing that is kept here has seen."""
    digest = hashlib.sha256(orjson.dumps([dataset.classes, [spec.model_dump() for spec in dataset.inputs]]))
    for split in (dataset.train, dataset.validation, dataset.calibration):
        digest.update(_bytes(split.x))
        digest.update(split.y.tobytes())
    return digest.hexdigest()


def _bytes(rows: Rows) -> bytes:
    return rows.tobytes() if rows.dtype.names is None else repr(rows.tolist()).encode()


def _npz(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **dict(arrays))  # type: ignore[arg-type]  # its stubs take a name for allow_pickle
    return buffer.getvalue()


def _read(folder: Path, name: str, key: str) -> Entry:
    try:
        about = orjson.loads((folder / ENTRY_FILE).read_bytes())
        model = onnx.load_model_from_string((folder / MODEL_FILE).read_bytes())
        with np.load(folder / ANSWERS_FILE) as arrays:
            answers = {split: arrays[split] for split in SPLITS}
        candidate = Candidate(name, about["framework"], model, ParityReport(**about["parity"]))
        return Entry(key, candidate, answers, about["record"], folder)
    except Exception as exc:  # whatever a damaged file makes them raise
        raise CorruptLibrary(
            f"{folder}: expected a candidate, got: {first_line(exc)}; delete the folder to have it made again"
        ) from exc
