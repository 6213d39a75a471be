"""`committee-server predict FILE…`: answers the rows of files without a server, by the code that serves."""

import argparse
import asyncio
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import orjson
from rich.console import Console
from rich.progress import Progress

from server.bounds import Bounds
from server.codec.answers import Row, describe_rows
from server.codec.arrays import encode_npy
from server.codec.bodies import decode_predict
from server.codec.media import CSV, JPEG, JSON, NPY, PNG, WEBP, Media
from server.codec.options import DETAILS, OPTIONS, RequestOptions, for_engine, join, parse_options
from server.engine import Engine, Limits
from server.ensemble import Ensemble
from server.errors import CommitteeError, DeadlineExceeded, InvalidInput, MemberFailed, NotFound
from server.manifest import Manifest
from server.prediction import Prediction
from server.repository import Repository, choose_versions, find_ensembles, load_version
from server.rows import Rows
from server.settings import PROGRAM, available_cores, read_settings

PICTURES = {".png": PNG, ".jpg": JPEG, ".jpeg": JPEG, ".webp": WEBP}
TYPES = {**PICTURES, ".npy": NPY, ".csv": CSV, ".json": JSON}
"""By the end of a file's name: what it holds."""
OPTION_HELP = {
    "strategy": "the fusion strategy (default: the ensemble's own)",
    "weights": "by member: cnn:0.7,xgb:0.3",
    "members": "only these take part: cnn,xgb; or all but these: -tree_2 (as --members=-tree_2)",
    "detail": f"what --output json adds to a row: some of {','.join(DETAILS)}",
    "cascade_threshold": "how sure an answer must be for the cascade to stop, 0 to 1",
    "deadline_ms": "milliseconds that each batch of rows may take",
    "quorum": "the least number of members that make an answer",
    "on_failure": "degrade: go on without members that fail (default: fail)",
    "abstain_below": "no label where the confidence is lower, 0 to 1",
}
"""The options of a request that are options of the command."""
BATCH = 256
BOUNDS = Bounds(max_json_memory=sys.maxsize)
"""Rows at a time; larger batches are hardly faster, and a smaller one shows progress."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows that can be answered in one go."""

    sources: list[tuple[str, int]]
    """Where each comes from: the file's name, and which of its rows it is."""
    rows: Rows
    options: RequestOptions


@dataclass(frozen=True, slots=True)
class Answered:
    batch: Batch
    prediction: Prediction


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "files",
        metavar="FILE",
        nargs="+",
        type=Path,
        help=f"{', '.join(TYPES)}; or a folder, whose pictures are taken, and those of the folders in it",
    )
    parser.add_argument(
        "--models", metavar="FOLDER", default=argparse.SUPPRESS, help="the model repository; as of serve"
    )
    parser.add_argument(
        "--ensemble",
        "--default",
        dest="default",
        metavar="NAME",
        default=argparse.SUPPRESS,
        help="which to ask; as of serve",
    )
    parser.add_argument("--version", type=int, help="its version (default: the highest)")
    for name, meaning in OPTION_HELP.items():
        parser.add_argument(f"--{name.replace('_', '-')}", help=meaning)
    parser.add_argument("--output", choices=list(_RENDERERS), default="table", help="(default: table)")
    parser.add_argument(
        "--out", metavar="FILE", type=Path, help="the file to write (default: standard output; npy needs one)"
    )


def run(options: argparse.Namespace) -> int:
    """Answer all the rows, then print or write all of it. Returns the exit code: 0, or 1 after a line that says why."""
    try:
        if options.output == "npy" and options.out is None:
            raise InvalidInput("--output npy needs a file to write: --out FILE")
        _write(_RENDERERS[options.output](_answer(options)), options.out)
    except (CommitteeError, ValueError, OSError) as exc:
        print(f"{PROGRAM} predict: {_reason(exc)}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


def find_files(paths: Iterable[Path]) -> list[Path]:
    """The files themselves, and the pictures of folders, sorted. Raises InvalidInput for what holds no rows."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            pictures = sorted(file for file in path.rglob("*") if file.suffix.lower() in PICTURES and file.is_file())
            if not pictures:
                raise InvalidInput(f"{path}: expected a folder with pictures, {', '.join(PICTURES)}; got one without")
            found += pictures
        elif path.suffix.lower() in TYPES:
            found.append(path)
        else:
            raise InvalidInput(f"{path}: expected {', '.join(TYPES)}, or a folder; got another kind of file")
    return found


def _answer(options: argparse.Namespace) -> list[Answered]:
    given = vars(options)
    settings = read_settings(
        argparse.Namespace(**{name: given[name] for name in ("models", "default") if name in given})
    )
    asked = parse_options([(name, given[name]) for name in OPTIONS if given.get(name) is not None], where="options")
    files = find_files(options.files)
    ensemble = _load(settings.models, settings.default, options.version)
    return asyncio.run(_answer_all(ensemble, files, asked))


def _load(models: Path, name: str, version: int | None) -> Ensemble:
    folders = {folder.name: folder for folder in find_ensembles(models)}
    if name not in folders:
        raise NotFound(f"{models}: no ensemble {name!r}; there are: {', '.join(folders)}")
    [folder] = choose_versions(folders[name], "latest" if version is None else frozenset([version]))
    return load_version(folder, threads=available_cores())


async def _answer_all(ensemble: Ensemble, files: Sequence[Path], asked: RequestOptions) -> list[Answered]:
    manifest = ensemble.manifest
    # No circuits: they open and close by the clock, and what a row is answered by must not depend on that.
    limits = Limits(deadline=math.inf, breaker_failures=0)
    engine = Engine(Repository([ensemble]), default=manifest.name, limits=limits)
    answered = []
    try:
        with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
            read = _read_all(progress.track(files, description="predicting"), manifest, asked)
            for batch in _merge(read, min(manifest.max_batch_size, BATCH)):
                # Nobody would see that some rows of a file were answered by fewer members than others.
                options = replace(batch.options, on_failure=batch.options.on_failure or "fail")
                try:
                    prediction = await engine.infer(ensemble, batch.rows, for_engine(options))
                except (MemberFailed, DeadlineExceeded) as exc:
                    raise type(exc)(f"{_files_of(batch)}: {exc.message}") from exc
                answered.append(Answered(batch, prediction))
    finally:
        await engine.close()
    return answered


def _read_all(files: Iterable[Path], manifest: Manifest, asked: RequestOptions) -> Iterator[Batch]:
    """A batch a file. Raises InvalidInput and OSError, which name the file."""
    for path in files:
        media = Media(TYPES[path.suffix.lower()])
        try:
            body = decode_predict(path.read_bytes(), media, manifest.inputs, max_rows=sys.maxsize, bounds=BOUNDS)
            joined = join(asked, body.options)
        except InvalidInput as exc:
            raise type(exc)(f"{path}: {exc.message}") from exc
        yield Batch([(str(path), row) for row in range(len(body.rows))], body.rows, joined)


def _merge(batches: Iterable[Batch], size: int) -> Iterator[Batch]:
    """The same rows in the same order, in batches of at most `size`; those with different options stay apart."""
    held: list[Batch] = []
    for batch in batches:
        for begin in range(0, len(batch.rows), size):
            part = slice(begin, begin + size)
            piece = Batch(batch.sources[part], batch.rows[part], batch.options)
            full = sum(len(other.rows) for other in held) + len(piece.rows) > size
            if held and (full or held[0].options != piece.options):
                yield _join(held)
                held = []
            held.append(piece)
    if held:
        yield _join(held)


def _join(batches: Sequence[Batch]) -> Batch:
    sources = [source for batch in batches for source in batch.sources]
    return Batch(sources, np.concatenate([batch.rows for batch in batches]), batches[0].options)


def _files_of(batch: Batch) -> str:
    (first, _), (last, _) = batch.sources[0], batch.sources[-1]
    return first if first == last else f"{first} to {last}"


def _render_table(answers: Sequence[Answered]) -> bytes:
    """A line a row, in columns."""
    targets = answers[0].prediction.ensemble.manifest.targets
    lines = [("file", "row", *(map(_printable, targets) if targets else ("label", "confidence")))]
    for answer in answers:
        for (name, row), described in zip(answer.batch.sources, describe_rows(answer.prediction), strict=True):
            lines.append((_printable(name), str(row), *_cells(described)))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rows = ("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)
    return ("\n".join(rows) + "\n").encode()


def _cells(described: Row) -> Sequence[str]:
    """Of a regression its values; else the label, `-` where it is left open, and the confidence."""
    if "values" in described:
        return [f"{value:.6g}" for value in described["values"]]
    label = described["label"]
    return "-" if label is None else _printable(label), f"{described['confidence']:.4f}"


def _render_json(answers: Sequence[Answered]) -> bytes:
    """A JSON object a row and line: the file's name, which of its rows it is, and the prediction."""
    lines = []
    for answer in answers:
        described = describe_rows(answer.prediction, detail=answer.batch.options.detail or ())
        for (name, row), prediction in zip(answer.batch.sources, described, strict=True):
            entry = {"file": os.fsencode(name).decode(errors="replace"), "row": row, **prediction}
            lines.append(orjson.dumps(entry, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE))
    return b"".join(lines)


def _render_npy(answers: Sequence[Answered]) -> bytes:
    """The fused probabilities `(n, n_classes)` of all rows, in order."""
    return encode_npy(np.concatenate([answer.prediction.fused.probabilities for answer in answers]))


_RENDERERS: Mapping[str, Callable[[Sequence[Answered]], bytes]] = {
    "table": _render_table,
    "json": _render_json,
    "npy": _render_npy,
}


def _write(data: bytes, path: Path | None) -> None:
    """To a file, which appears whole or not at all; else to standard output."""
    if path is None:
        sys.stdout.buffer.write(data)
        sys.stdout.flush()
        return
    if path.exists() and not path.is_file():
        path.write_bytes(data)  # a device or a pipe, which must not be replaced
        return
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        part.write_bytes(data)
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def _reason(exc: Exception) -> str:
    if isinstance(exc, OSError) and exc.filename is not None:
        return f"{exc.filename}: {exc.strerror}"
    return str(exc)


def _printable(text: str) -> str:
    """Without what would move the cursor, or that no terminal can show."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
