"""Packs trained models into one ensemble: loads them, fits them to the data, converts, proves, and publishes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress

from export.adapt import AS_IT_IS, Adaptation, member_of, reading_of
from export.build import build
from export.candidate import Candidate
from export.datasets import Dataset, Split
from export.errors import ExportError, Mismatch
from export.facts import Checked, used_columns, with_each_split, with_facts
from export.formats import Source, Trust, load_model, source_of
from export.fusing.cascade import TOLERANCE
from export.lineage import check_lineage, check_place
from export.made_rows import made_dataset
from export.own.data import load_own_data
from export.parity import check_parity, open_graph
from server.toml import first_repeated

NOBODY = Trust()
STEPS = 3
"""Of a member: load, convert, check."""


def pack(
    name: str,
    members: Mapping[str, Any],
    data: Dataset | Path | str | None = None,
    *,
    target: str | None = None,
    classes: Sequence[str] | None = None,
    adaptations: Mapping[str, Adaptation] | None = None,
    trust: Trust = NOBODY,
    version_of: bool = False,
    out: Path = Path("models"),
    description: str = "",
    max_batch_size: int = 4096,
    cascade_tolerance: float = TOLERANCE,
    seed: int = 0,
    progress: Progress | None = None,
) -> Path:
    """Publish trained models as a version of ensemble `name` under `out`; returns the version's folder.

    `members` are, by name, models in memory or paths of files. `data` are rows that they have not seen, with labels: a
    file as `export.own.data` reads it, whose column `target` holds the labels, or a data set; without any, nothing is
    fitted or scored, and `classes` must be given. With data, `classes` order its classes, or name them if they are
    numbers. `adaptations` tell what a model does not say of itself. `cascade_tolerance` is the share of rows by which
    the accuracy of a cascade may lie below that of all members. `version_of` says that `name` is there already.
    Raises ExportError; then, and on Ctrl-C, nothing is published.
    """
    progress = progress or Progress(console=Console(quiet=True))
    check_place(out, name, version_of=version_of)
    tasks = {member: progress.add_task(f"{member}: load", total=STEPS) for member in members}

    def advance(member: str, what: str) -> None:
        progress.update(tasks[member], advance=1, description=f"{member}: {what}")

    sources: dict[str, Source] = {}
    for member, model in members.items():
        sources[member] = _source(member, model, trust)
        advance(member, "convert")
    dataset, notes = _data(sources, data, target, classes, adaptations or {}, seed)
    candidates, dataset, more_notes = _checked(sources, dataset, adaptations or {}, advance)
    if version_of:
        check_lineage(out, name, dataset)
    return build(
        candidates,
        dataset,
        name=name,
        description=description,
        max_batch_size=max_batch_size,
        cascade_tolerance=cascade_tolerance,
        out=out,
        seed=seed,
        progress=progress,
        notes=[*notes, *more_notes],
    )


def _source(member: str, model: Any, trust: Trust) -> Source:
    try:
        return source_of(load_model(Path(model), trust) if isinstance(model, (str, Path)) else model)
    except ExportError as exc:
        raise type(exc)(f"member {member!r}: {exc.message}") from exc


# ---- Data -----------------------------------------------------------------------------------------------------------


def _data(
    sources: Mapping[str, Source],
    data: Dataset | Path | str | None,
    target: str | None,
    classes: Sequence[str] | None,
    adaptations: Mapping[str, Adaptation],
    seed: int,
) -> tuple[Dataset, list[str]]:
    """With those inputs that some member reads, and what there is to say about the others."""
    if data is None:
        if classes is None:
            raise Mismatch("without --data nothing says what the classes are called: it takes --classes")
        dataset = made_dataset(sources, _once(classes))
    else:
        dataset = data if isinstance(data, Dataset) else load_own_data(Path(data), target=target, seed=seed)
        dataset = dataset if classes is None else with_classes(dataset, _once(classes))
    unnamed = [member for member, source in sources.items() if source.classes is None]
    used = {
        column
        for member, source in sources.items()
        for column in reading_of(source.wants, dataset.inputs, member, adaptations.get(member, AS_IT_IS)).inputs
    }
    dataset, notes = used_columns(dataset, sorted(used))
    if unnamed and any(not known.isdigit() for known in dataset.classes):
        columns = ", ".join(dataset.classes)
        notes.append(f"members without names of classes: {', '.join(unnamed)}; their columns are taken for {columns}")
    return dataset, notes


def with_classes(dataset: Dataset, classes: Sequence[str]) -> Dataset:
    """The data set with its classes in this order; or, if they are numbers, with these names in their place.

    Raises Mismatch.
    """
    if set(classes) == set(dataset.classes):
        order = np.array([list(classes).index(known) for known in dataset.classes], dtype=np.int64)
    elif len(classes) == len(dataset.classes) and all(known.isdigit() for known in dataset.classes):
        order = np.arange(len(classes), dtype=np.int64)
    else:
        raise Mismatch(
            f"--classes: expected the data's classes, {', '.join(dataset.classes)}, in some order; got "
            f"{', '.join(classes)}"
        )
    return replace(with_each_split(dataset, lambda split: Split(split.x, order[split.y])), classes=list(classes))


def _once(classes: Sequence[str]) -> Sequence[str]:
    if twice := first_repeated(classes):
        raise Mismatch(f"--classes: expected each class once, got {twice!r} more often")
    if len(classes) < 2 or "" in classes:
        raise Mismatch(f"--classes: expected two names or more, got {', '.join(classes) or 'none'}")
    return classes


# ---- Members --------------------------------------------------------------------------------------------------------


def _checked(
    sources: Mapping[str, Source],
    dataset: Dataset,
    adaptations: Mapping[str, Adaptation],
    advance: Callable[[str, str], None],
) -> tuple[list[Candidate], Dataset, list[str]]:
    """Converted, and each proven on the rows that all of them take."""
    drafts = []
    for name, source in sources.items():
        member = member_of(source, name, dataset, adaptations.get(name, AS_IT_IS))
        drafts.append((member, member.to_onnx()))
        advance(name, "check")
    checked = [Checked(member, open_graph(member, graph)) for member, graph in drafts]
    dataset, notes = with_facts(checked, dataset)
    candidates = []
    for name, graph in zip(sources, (graph for _, graph in drafts), strict=True):
        # Made anew: its splits tell of rows, some of which may be left out.
        member = member_of(sources[name], name, dataset, adaptations.get(name, AS_IT_IS))
        candidates.append(Candidate(name, member.framework, graph, check_parity(member, graph, dataset)))
        advance(name, "done")
    return candidates, dataset, notes
