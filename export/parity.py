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

Where nobody can tell the logits of such a model, it is asked again at inputs moved by `JITTER` of themselves, sixteen
float32 steps: its graph may differ from it, out there, by as much as it then differs from itself.

Rows out there that the source does not answer, as it raises or overflows, are not compared.

A **lossy** member, as one in fewer bits is, cannot be held to that. On the validation rows its graph may lose as much
accuracy as the member's own `tolerance` says, and no probability may be further off than its `drift`; to all awkward
rows it must answer distributions.

Nothing else is let by. For models of scikit-learn the source answers in float64, as it was trained, from the float32
rows that a server has.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from export.awkward import RowSet, jittered, row_sets
from export.convert import OUTPUT
from export.datasets import Dataset
from export.errors import ParityError
from export.trained import Lossy, TrainedMember
from server.ensemble import are_distributions, on_one_line
from server.errors import InvalidRepository, MemberFailed
from server.manifest import InputSpec
from server.rows import Rows, split_rows
from server.session import Session

TOLERANCE = 1e-5
RELATIVE = 1e-5
"""170 times float32's unit roundoff, as a network's layers are sums of some hundred terms; measured: up to 8e-7."""
JITTER = 2.0**-20
N_JITTERS = 4


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
    """Rows whose best class differs although nothing is wrong: the source's two best lie within the tolerance, or the
    member is lossy."""
    lossy: bool = False
    """Held to its own tolerance and drift, on the validation rows alone."""


def check_parity(member: TrainedMember, model: onnx.ModelProto | bytes, dataset: Dataset) -> ParityReport:
    """Compare a member with its graph on every awkward row.

    Raises ParityError, which names the member, the row, the class and both values.
    """
    session = open_graph(member, model)
    counts: dict[str, int] = {}
    largest = {True: 0.0, False: 0.0}
    ties = 0
    validation = []
    for rows in row_sets(member, dataset):
        if not rows.inside and not len((rows := _answered(member, rows)).rows):
            continue
        want, got = answers(member, session, rows.rows)
        ties += compare(member, rows, want, got, dataset)
        counts[rows.name] = counts.get(rows.name, 0) + len(rows.rows)
        largest[rows.inside] = max(largest[rows.inside], float(np.abs(got - want).max(initial=0)))
        if rows.name == "validation":
            validation.append((want, got))
    if member.lossy is not None:
        _check_loss(member.name, member.lossy, np.concatenate(validation, axis=1), dataset)
    return ParityReport(member.name, counts, largest[True], largest[False], ties, lossy=member.lossy is not None)


def _answered(member: TrainedMember, rows: RowSet) -> RowSet:
    """Those of the rows, which lie outside of the domain, that the source answers: it may raise there, or overflow."""
    try:
        finite = np.isfinite(member.predict_proba(rows.rows)).all(axis=1)
    except ParityError:
        finite = np.zeros(len(rows.rows), dtype=np.bool_)
    return replace(rows, rows=rows.rows[finite])


def open_graph(member: TrainedMember, model: onnx.ModelProto | bytes) -> Session:
    """The member's graph, as a server loads it. Raises ParityError."""
    data = model if isinstance(model, bytes) else model.SerializeToString()
    try:
        return Session(data, where=f"{member.name}.onnx", threads=2)
    except InvalidRepository as exc:
        raise ParityError(f"member {member.name!r}: {exc.message}") from exc


def answers(member: TrainedMember, session: Session, rows: Rows) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What the source answers, and what its graph does, `(n, n_classes)`. Raises ParityError if either does not."""
    want = np.asarray(member.predict_proba(rows), dtype=np.float64)
    try:
        (got,) = session.run([OUTPUT], split_rows(rows, session.inputs))
    except MemberFailed as exc:
        raise ParityError(f"member {member.name!r}: {exc.message}") from exc
    return want, got.astype(np.float64)


def compare(
    member: TrainedMember, rows: RowSet, want: NDArray[np.float64], got: NDArray[np.float64], dataset: Dataset
) -> int:
    """Raise ParityError for the first row that is wrong; answer how many rows have another best class by right."""
    if got.shape != want.shape:
        raise ParityError(f"member {member.name!r}: {rows.name}: expected shape {want.shape}, got {got.shape}")
    if member.lossy is not None:
        return _compare_lossy(member.name, rows, want, got)
    low = high = scores = want
    closest = np.full(len(want), TOLERANCE)
    if not rows.inside and member.logits is not None:
        scores = member.logits(rows.rows)
        closest = 2 * RELATIVE * np.maximum(1, np.abs(scores).max(axis=1))
        low, high = _explained(scores, closest[:, None])
    elif not rows.inside and member.smooth:
        low, high = _moved_to(member, rows.rows, want, dataset.inputs)
        closest = TOLERANCE + (high - low).max(axis=1)
    wrong = ~((got >= low - TOLERANCE) & (got <= high + TOLERANCE))  # so written, NaN is wrong too
    best, picked = scores.argmax(axis=1), got.argmax(axis=1)
    every = np.arange(len(scores))
    wrong[every, picked] |= scores[every, best] - scores[every, picked] > closest
    if wrong.any():
        row, column = map(int, np.argwhere(wrong)[0])
        classes = dataset.classes
        raise ParityError(
            f"member {member.name!r}: row {rows.first + row} of {rows.name!r}, class {classes[column]!r}: the model "
            f"answers {want[row, column]:.7g} and {classes[best[row]]!r}, its ONNX graph {got[row, column]:.7g} "
            f"and {classes[picked[row]]!r}"
        )
    return int((best != picked).sum())


def accuracy_lost(want: NDArray[Any], got: NDArray[Any], y: NDArray[np.int64]) -> float:
    """The share of rows by which answers `got (n, n_classes)` are right on fewer than `want`; below 0 if on more."""
    hits = [int((probabilities.argmax(axis=1) == y).sum()) for probabilities in (want, got)]
    return (hits[0] - hits[1]) / len(y)


def _compare_lossy(name: str, rows: RowSet, want: NDArray[np.float64], got: NDArray[np.float64]) -> int:
    for row, answer in enumerate(got):
        if not are_distributions(answer.astype(np.float32)):
            raise ParityError(
                f"member {name!r}: row {rows.first + row} of {rows.name!r}: expected a distribution over the classes, "
                f"its ONNX graph answers {on_one_line(answer)}"
            )
    return int((got.argmax(axis=1) != want.argmax(axis=1)).sum())


def _check_loss(name: str, allowed: Lossy, answers: NDArray[np.float64], dataset: Dataset) -> None:
    """Raise ParityError if of the `answers` to the validation rows, the source's and the graph's `(2, n, n_classes)`,
    the graph's are further off than is allowed."""
    want, got = answers
    lost = accuracy_lost(want, got, dataset.validation.y)
    if lost > allowed.tolerance:
        raise ParityError(
            f"member {name!r}: expected its ONNX graph to lose up to {allowed.tolerance:g} of accuracy on the "
            f"validation rows, it loses {lost:.4g}"
        )
    drift = np.abs(got - want)
    row, column = np.unravel_index(drift.argmax(), drift.shape)
    if drift[row, column] > allowed.drift:
        raise ParityError(
            f"member {name!r}: row {row} of 'validation', class {dataset.classes[column]!r}: expected up to "
            f"{allowed.drift:g} between them, the model answers {want[row, column]:.7g}, its ONNX graph "
            f"{got[row, column]:.7g}"
        )


def _moved_to(
    member: TrainedMember, rows: Rows, want: NDArray[np.float64], inputs: list[InputSpec]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The least and the highest probabilities `(n, n_classes)` that the source answers next to these rows."""
    generator = np.random.default_rng(0)
    near = [member.predict_proba(jittered(rows, inputs, generator, JITTER)) for _ in range(N_JITTERS)]
    every = np.stack([want, *near])
    return every.min(axis=0), every.max(axis=0)


def _explained(logits: NDArray[np.float64], shift: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """The least and the highest probabilities `(n, n_classes)` when log-odds are off by up to `shift (n, 1)`."""
    others = [np.logaddexp.reduce(np.delete(logits, c, axis=1), axis=1) for c in range(logits.shape[1])]
    log_odds = logits - np.stack(others, axis=1)
    return _sigmoid(log_odds - shift), _sigmoid(log_odds + shift)


def _sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.exp(-np.logaddexp(0, -x)))
