"""What a version has to show before it serves.

A published one answers its recorded test vectors again. A hand-made one has none: it answers rows that are made up,
with distributions, each row the same alone as among others. Either way its graphs are warm afterwards.
"""

import io
import threading
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.ensemble import Ensemble, are_valid
from server.errors import InvalidRepository, MemberFailed, first_line
from server.manifest import VECTORS_FILE, InputSpec
from server.rows import Rows, join_tensors
from server.session import Stop

PROOF_SECONDS = 20.0
"""For all the rows that are run at once: a graph that takes longer is one that may never end."""
VECTORS_LIMIT = 1 << 28
"""Bytes that the test vectors may hold once decompressed."""
BATCH = 3
"""The rows that are run together to see that they answer as they do alone."""
MANY = 64
"""Rows of a batch as it may come: a graph that holds another number somewhere takes no other."""
INDEPENDENCE = 1e-5
"""How far a probability of a row alone may lie from that of the row among others."""
FLOAT32_MAX = float(np.finfo(np.float32).max)


def replay(ensemble: Ensemble, files: Mapping[str, bytes]) -> None:
    """Run the recorded inputs and compare the answers. Raises InvalidRepository."""
    where = f"{ensemble.where}/{VECTORS_FILE}"
    if VECTORS_FILE not in files:
        raise InvalidRepository(f"{where}: expected test vectors; the manifest lists none")
    rows, expected = _recorded(ensemble, files[VECTORS_FILE], where)
    try:
        answered = _answers(ensemble, rows)
    except MemberFailed as exc:
        raise InvalidRepository(f"{where}: replaying it failed: {exc}") from exc
    tolerances = np.array([member.tolerance for member in ensemble.manifest.members])
    off = _off(ensemble, answered, expected) / tolerances[:, None, None]
    if not off.max() <= 1:
        member, row, klass = np.unravel_index(off.argmax(), off.shape)
        raise InvalidRepository(
            f"{where}: member {ensemble.names[member]!r}, row {row}, {_column(ensemble)} {klass}: expected "
            f"{expected[member, row, klass]:.6f}, the graph answered {answered[member, row, klass]:.6f}"
        )


def probe(ensemble: Ensemble) -> None:
    """Run rows that are made up, alone and in batches, and compare the answers. Raises InvalidRepository."""
    rows = made_rows(ensemble.manifest.inputs)
    together, alone = (_in_batches(ensemble, rows, size) for size in (BATCH, 1))
    off = _off(ensemble, together, alone)
    if off.max() > INDEPENDENCE:
        what = "probability" if ensemble.manifest.task == "classification" else "value"
        member, row, klass = np.unravel_index(off.argmax(), off.shape)
        raise InvalidRepository(
            f"{ensemble.where}: member {ensemble.names[member]!r}: expected a row's answer not to depend on the rows "
            f"beside it; {_column(ensemble)} {klass} of a made-up row has {what} {alone[member, row, klass]:.6f} alone "
            f"and {together[member, row, klass]:.6f} among {BATCH}"
        )


def take_many(ensemble: Ensemble) -> None:
    """Run more rows than there are recorded or made up, whatever they are answered. Raises InvalidRepository."""
    rows = made_rows(ensemble.manifest.inputs)
    try:
        with _stop_after(PROOF_SECONDS) as stop:
            ensemble.ask(rows[np.arange(MANY) % len(rows)], range(len(ensemble.names)), stop)
    except MemberFailed as exc:
        reason = str(exc).removeprefix(f"{ensemble.where}: ")
        raise InvalidRepository(f"{ensemble.where}: {MANY} made-up rows at once: {reason}") from exc


def _answers(ensemble: Ensemble, rows: Rows) -> NDArray[np.float32]:
    """The members', `(n_members, n, n_outputs)`, which the final estimator can read.

    Raises MemberFailed, also if they take more than `PROOF_SECONDS`.
    """
    with _stop_after(PROOF_SECONDS) as stop:
        answers = ensemble.run(rows, stop=stop)
        if ensemble.final_estimator is not None:
            ensemble.final_estimator(answers, stop)
        return answers


@contextmanager
def _stop_after(seconds: float) -> Iterator[Stop]:
    """What it yields stops calls that have not ended by then, if they are between two nodes of a graph."""
    stop = Stop()
    timer = threading.Timer(seconds, stop)
    timer.daemon = True
    timer.start()
    try:
        yield stop
    finally:
        timer.cancel()


def _off(ensemble: Ensemble, some: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float32]:
    """How far answers lie apart: probabilities as they are; values of a regression, beyond 1, by their size."""
    off = np.abs(some - others)
    scale = 1 if ensemble.manifest.task == "classification" else np.maximum(np.abs(others), 1)
    return np.asarray(off / scale, dtype=np.float32)


def _column(ensemble: Ensemble) -> str:
    return "class" if ensemble.manifest.task == "classification" else "target"


def made_rows(inputs: Sequence[InputSpec]) -> Rows:
    """`2 * BATCH` rows that the inputs allow: zeros, the middle of the domain, random ones; values that are missing or
    unknown come last, if there may be any."""
    rng = np.random.default_rng(0)
    return join_tensors({spec.name: _made(spec, rng) for spec in inputs}, inputs)


def _made(spec: InputSpec, rng: np.random.Generator) -> NDArray[Any]:
    return _made_text(spec) if spec.datatype == "BYTES" else _made_numbers(spec, rng)


def _made_numbers(spec: InputSpec, rng: np.random.Generator) -> NDArray[np.float32]:
    low = None if spec.low is None else max(spec.low, -FLOAT32_MAX)
    high = None if spec.high is None else min(spec.high, FLOAT32_MAX)
    values = rng.standard_normal((2 * BATCH, *spec.shape))
    if low is not None and high is not None:
        values = low + (high - low) * rng.random(values.shape)
        values[1] = low + (high - low) / 2
    elif low is not None:
        values = low + np.abs(values)
    elif high is not None:
        values = high - np.abs(values)
    values[0] = np.clip(0, low, high) if (low, high) != (None, None) else 0
    if spec.missing:
        values[-1] = np.nan
    return values.astype(np.float32)


def _made_text(spec: InputSpec) -> NDArray[np.object_]:
    known = spec.categories or ["text"]
    values = [known[row % len(known)] for row in range(2 * BATCH)]
    if spec.unknown == "accept":
        values[-2] = max(known, key=len) + "?"  # longer than any, so none of them
    if spec.missing:
        values[-1] = ""
    return np.array(values, dtype=object).reshape(-1, *spec.shape)


def _in_batches(ensemble: Ensemble, rows: Rows, size: int) -> NDArray[np.float32]:
    """`(n_members, n, n_classes)`"""
    try:
        return np.concatenate([_answers(ensemble, rows[at : at + size]) for at in range(0, len(rows), size)], axis=1)
    except MemberFailed as exc:
        reason = str(exc).removeprefix(f"{ensemble.where}: ")
        wanted = "probabilities" if ensemble.manifest.task == "classification" else "numbers"
        raise InvalidRepository(
            f"{ensemble.where}: made-up rows, {size} at a time: {reason}; a graph must end in {wanted}, for every "
            "row of the domain (low and high in [[inputs]])"
        ) from exc


def _recorded(ensemble: Ensemble, data: bytes, where: str) -> tuple[Rows, NDArray[np.float32]]:
    """The recorded rows, and what the members answered to them, `(n_members, n, n_classes)`."""
    specs = ensemble.manifest.inputs
    tensors, expected = _read_vectors(data, specs, where)
    for spec in specs:
        n_rows = None if spec is specs[0] else len(tensors[specs[0].name])
        _check_array(where, spec.name, tensors[spec.name], (n_rows, *spec.shape), spec.datatype)
    rows = join_tensors(tensors, specs)
    shape = (len(ensemble.names), len(rows), len(ensemble.manifest.outputs))
    _check_array(where, "member_probabilities", expected, shape)
    if not are_valid(expected, ensemble.manifest.task).all():
        wanted = "distributions over the classes" if ensemble.manifest.task == "classification" else "numbers"
        raise InvalidRepository(f"{where}: expected member_probabilities to be {wanted}")
    return rows, expected


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
        reason = first_line(exc)
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
