"""The parity gate: no graph is published that answers something else than the model that it was converted from.

Converters are silently wrong on some rows: thresholds rounded the wrong way, columns swapped, a scaling forgotten.
So the graph, run by the server's own session, is compared with its source on the whole validation split and on rows
made to be awkward.

**Within the input's domain** each probability may differ by `TOLERANCE` (1e-5), and the best class must be the same,
unless the source's own two best lie closer together than that.

**Outside it**, at pixels of a million say, trees still answer one of finitely many answers, and the same holds. The
logits of a network however grow with its input, and a float32 sum of terms as large as `z` has rounding errors in
proportion to `z`: both sides are right only up to `d = RELATIVE * max(1, max|z|)` a logit, and which best class comes
out of logits closer than `2 d` is chance. As `p / (1 - p)` of a softmax changes by at most a factor `exp(2 d)` when no
logit changes by more than `d`, the answer for a class must lie between `sigmoid(l - 2 d)` and `sigmoid(l + 2 d)`,
where `l` are the source's log-odds of that class, give or take `TOLERANCE`.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from export.convert import OUTPUT
from export.datasets import Dataset
from export.errors import ParityError
from export.members.trained import Rows, TrainedMember
from server.errors import InvalidRepository, MemberFailed
from server.session import Session

TOLERANCE = 1e-5
RELATIVE = 1e-5
"""170 times float32's unit roundoff, as a network's layers are sums of some hundred terms; measured: up to 8e-7."""
BATCH = 1024
OFFSETS = (1e4, -1e4, 1e6, -1e6)
N_OFFSET_ROWS = 256
N_NOISE_ROWS = 256


@dataclass(frozen=True, slots=True)
class RowSet:
    """Rows `(n, *shape)` of one sort; `first` is the number of the first among all of that sort."""

    name: str
    rows: Rows
    first: int = 0
    inside: bool = True
    """Of the input's domain."""


@dataclass(frozen=True, slots=True)
class ParityReport:
    """What was compared; for `report.json`."""

    member: str
    rows: dict[str, int]
    """How many of each sort."""
    largest_difference: float
    """Of a probability, over the rows within the domain."""
    largest_difference_outside: float
    ties: int
    """Rows whose best class differs although nothing is wrong: the source's two best lie within the tolerance."""


def check_parity(member: TrainedMember, model: onnx.ModelProto | bytes, dataset: Dataset) -> ParityReport:
    """Compare a member with its graph on every awkward row.

    Raises ParityError, which names the member, the row, the class and both values.
    """
    data = model if isinstance(model, bytes) else model.SerializeToString()
    try:
        session = Session(data, where=f"{member.name}.onnx", threads=2)
        return _compared(member, session, dataset)
    except (InvalidRepository, MemberFailed) as exc:
        raise ParityError(f"member {member.name!r}: {exc.message}") from exc


def _compared(member: TrainedMember, session: Session, dataset: Dataset) -> ParityReport:
    counts: dict[str, int] = {}
    largest = {True: 0.0, False: 0.0}
    ties = 0
    for rows in row_sets(member, dataset):
        want = np.asarray(member.predict_proba(rows.rows), dtype=np.float64)
        got = session.run([OUTPUT], {dataset.input.name: rows.rows})[0].astype(np.float64)
        ties += _compare(member, rows, want, got, dataset.classes)
        counts[rows.name] = counts.get(rows.name, 0) + len(rows.rows)
        largest[rows.inside] = max(largest[rows.inside], float(np.abs(got - want).max()))
    return ParityReport(member.name, counts, largest[True], largest[False], ties)


# ---- What is compared -----------------------------------------------------------------------------------------------


def row_sets(member: TrainedMember, dataset: Dataset) -> Iterator[RowSet]:
    """All rows to compare, in batches of at most BATCH."""
    validation = dataset.validation.x
    low, high = _domain(dataset)
    yield from _batches("validation", [validation])
    yield from _batches("thresholds", threshold_rows(member, dataset))
    yield from _batches("constants", [constant_rows(dataset.input.shape, low, high)])
    yield from _batches("patterns", [pattern_rows(dataset.input.shape, low, high)])
    noise = np.random.default_rng(0).uniform(low, high, (N_NOISE_ROWS, *dataset.input.shape)).astype(np.float32)
    yield from _batches("noise", [noise])
    for offset in OFFSETS:
        shifted = validation[:N_OFFSET_ROWS] + np.float32(offset)
        yield from _batches(f"offset {offset:+.0e}", [shifted], inside=False)


def threshold_rows(member: TrainedMember, dataset: Dataset) -> Iterator[Rows]:
    """For each split of the member's trees, a row that comes by it with the feature *at* the threshold, one float32
    step below and one above; so wherever a converter rounds a float64 threshold to, a row lies between."""
    splits = member.splits
    if splits is None:
        return
    nearest = splits.thresholds.astype(np.float32)
    below, above = np.nextafter(nearest, np.float32(-np.inf)), np.nextafter(nearest, np.float32(np.inf))
    values = np.stack([below, nearest, above], axis=1)
    for start in range(0, len(splits), BATCH // 3):
        batch = slice(start, start + BATCH // 3)
        rows = np.repeat(dataset.train.x[splits.rows[batch]], 3, axis=0)
        flat = rows.reshape(len(rows), -1)
        flat[np.arange(len(flat)), np.repeat(splits.features[batch], 3)] = values[batch].ravel()
        yield rows


def constant_rows(shape: list[int], low: float, high: float) -> Rows:
    """Five rows of one value each: 0, the least and the highest, the middle, and a value next to the least."""
    values = np.array([0.0, low, high, (low + high) / 2, low + (high - low) / 1000], dtype=np.float32)
    return np.broadcast_to(values.reshape(-1, *(1 for _ in shape)), (len(values), *shape)).copy()


def pattern_rows(shape: list[int], low: float, high: float) -> Rows:
    """Checkerboards of both phases, stripes, one value high in a low row, and one low in a high row."""
    n = int(np.prod(shape))
    places = np.indices(shape).reshape(len(shape), n)
    masks = [places.sum(axis=0) % 2 == 0, *(axis % 2 == 0 for axis in places), np.arange(n) < n // 2]
    boards = np.array([*masks, *(~mask for mask in masks)])
    bits = np.concatenate([boards, np.eye(n, dtype=np.bool_), ~np.eye(n, dtype=np.bool_)])
    return np.where(bits, np.float32(high), np.float32(low)).reshape(len(bits), *shape)


def _domain(dataset: Dataset) -> tuple[float, float]:
    """The input's bounds; of the training rows where the spec gives none."""
    spec, x = dataset.input, dataset.train.x
    return (
        float(x.min()) if spec.low is None else spec.low,
        float(x.max()) if spec.high is None else spec.high,
    )


def _batches(name: str, parts: Iterable[Rows], *, inside: bool = True) -> Iterator[RowSet]:
    first = 0
    for part in parts:
        for start in range(0, len(part), BATCH):
            batch = part[start : start + BATCH]
            yield RowSet(name, batch, first, inside)
            first += len(batch)


# ---- How ------------------------------------------------------------------------------------------------------------


def _compare(
    member: TrainedMember, rows: RowSet, want: NDArray[np.float64], got: NDArray[np.float64], classes: list[str]
) -> int:
    """Raise ParityError for the first row that is wrong; answer how many rows have another best class by right."""
    if got.shape != want.shape:
        raise ParityError(f"member {member.name!r}: {rows.name}: expected shape {want.shape}, got {got.shape}")
    low = high = scores = want
    closest = np.full(len(want), TOLERANCE)
    if member.logits is not None and not rows.inside:
        scores = member.logits(rows.rows)
        closest = 2 * RELATIVE * np.maximum(1, np.abs(scores).max(axis=1))
        low, high = _explained(scores, closest[:, None])
    wrong = ~((got >= low - TOLERANCE) & (got <= high + TOLERANCE))  # so written, NaN is wrong too
    best, picked = scores.argmax(axis=1), got.argmax(axis=1)
    every = np.arange(len(scores))
    wrong[every, picked] |= scores[every, best] - scores[every, picked] > closest
    if wrong.any():
        row, column = map(int, np.argwhere(wrong)[0])
        raise ParityError(
            f"member {member.name!r}: row {rows.first + row} of {rows.name!r}, class {classes[column]!r}: the model "
            f"answers {want[row, column]:.7g} and {classes[best[row]]!r}, its ONNX graph {got[row, column]:.7g} "
            f"and {classes[picked[row]]!r}"
        )
    return int((best != picked).sum())


def _explained(logits: NDArray[np.float64], shift: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """The least and the highest probabilities `(n, n_classes)` when log-odds are off by up to `shift (n, 1)`."""
    others = [np.logaddexp.reduce(np.delete(logits, c, axis=1), axis=1) for c in range(logits.shape[1])]
    log_odds = logits - np.stack(others, axis=1)
    return _sigmoid(log_odds - shift), _sigmoid(log_odds + shift)


def _sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.exp(-np.logaddexp(0, -x)))
