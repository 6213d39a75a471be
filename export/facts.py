"""What members do with values that are missing, and with text that nobody has seen: found out by asking them.

A manifest may say that a column's value can be missing, or that any text will do, only where every member answers such
rows, and where its graph answers what its source does. The rest the server refuses before a graph reads it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.awkward import RowSet, base_rows, completed, is_missing
from export.datasets import Dataset, Split
from export.errors import Mismatch, ParityError
from export.parity import answers, compare
from export.trained import TrainedMember
from server.manifest import InputSpec
from server.rows import Rows, join_tensors, split_rows
from server.session import Session

N_ROWS = 64
UNSEEN = "⁇ unseen"
"""Text that is no category of anybody's."""


@dataclass(frozen=True, slots=True)
class Checked:
    """A member and its graph, as a server loads it."""

    member: TrainedMember
    session: Session


def with_facts(checked: Sequence[Checked], dataset: Dataset) -> tuple[Dataset, list[str]]:
    """The data set with `missing` and `unknown` of its inputs as all members bear it, and with the rows that they do:
    a row that lacks a value that some member needs is left out. And what there is to say about it.

    Raises Mismatch if a split is empty then.
    """
    rows = completed(base_rows(dataset)[:N_ROWS], dataset.inputs)
    inputs, refusals = [], {}
    for spec in dataset.inputs:
        facts: dict[str, Any] = {}
        if spec.missing or rows.dtype.names is not None:
            refusals[spec.name] = _refusal(checked, dataset, spec, "missing", _blanked(rows, spec))
            facts["missing"] = refusals[spec.name] is None
        if spec.categories is not None:
            refused = _refusal(checked, dataset, spec, "unknown", _with_text(rows, spec, UNSEEN))
            facts["unknown"] = "refuse" if refused else "accept"
        inputs.append(spec.model_copy(update=facts))
    return _without_refused(replace(dataset, inputs=inputs), refusals)


def used_columns(dataset: Dataset, used: Sequence[str]) -> tuple[Dataset, list[str]]:
    """The data set with those of its inputs that some member reads, and what there is to say about the others."""
    unused = [spec.name for spec in dataset.inputs if spec.name not in used]
    if not unused:
        return dataset, []
    inputs = [spec for spec in dataset.inputs if spec.name in used]
    names = [spec.name for spec in inputs]
    narrowed = with_each_split(dataset, lambda split: Split(join_tensors(split_rows(split.x, names), inputs), split.y))
    return replace(narrowed, inputs=inputs), [f"no member reads {', '.join(unused)}: left out"]


def _refusal(checked: Sequence[Checked], dataset: Dataset, spec: InputSpec, what: str, rows: Rows) -> str | None:
    """Why some member does not take these rows, where this input's value is missing or unknown; None if all do."""
    for one in checked:
        if spec.name in one.session.inputs:
            try:
                want, got = answers(one.member, one.session, rows)
                compare(one.member, RowSet(f"{spec.name} {what}", rows), want, got, dataset)
            except ParityError as exc:
                return exc.message
    return None


def _blanked(rows: Rows, spec: InputSpec) -> Rows:
    """The rows with this input's value missing; of an array, every other number."""
    blanked = rows.copy()
    if blanked.dtype.names is not None:
        blanked[spec.name] = "" if spec.datatype == "BYTES" else np.nan
    else:
        blanked.reshape(-1)[::2] = np.nan
    return blanked


def _with_text(rows: Rows, spec: InputSpec, text: str) -> Rows:
    changed = rows.copy()
    changed[spec.name] = text
    return changed


def _without_refused(dataset: Dataset, refusals: Mapping[str, str | None]) -> tuple[Dataset, list[str]]:
    lost: dict[str, int] = {}

    def keep(split: Split) -> Split:
        kept = np.ones(len(split), dtype=np.bool_)
        for column, reason in refusals.items():
            if reason is not None and (lacks := _lacks(split.x, column)).any():
                lost[column] = lost.get(column, 0) + int(lacks.sum())
                kept &= ~lacks
        if len(split) and not kept.any():
            raise Mismatch(f"too many rows lack a value that some member needs: {'; '.join(notes())}")
        return Split(split.x[kept], split.y[kept])

    def notes() -> list[str]:
        return [f"{count} rows lack {column!r}, left out: {refusals[column]}" for column, count in lost.items()]

    return with_each_split(dataset, keep), notes()


def with_each_split(dataset: Dataset, change: Callable[[Split], Split]) -> Dataset:
    """The data set with each of its splits changed alike."""
    return replace(
        dataset,
        train=change(dataset.train),
        validation=change(dataset.validation),
        calibration=change(dataset.calibration),
        test=change(dataset.test),
    )


def _lacks(rows: Rows, column: str) -> NDArray[np.bool_]:
    values = rows if rows.dtype.names is None else rows[column]
    return np.asarray(is_missing(values).any(axis=tuple(range(1, values.ndim))), dtype=np.bool_)
