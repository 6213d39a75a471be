"""Members as the library keeps them, for those that are made of others."""

from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from export.candidate import Candidate
from export.datasets import Dataset
from export.library import SPLITS, Entry, Library
from export.members.task import Task
from export.parity import check_parity
from export.trained import TrainedMember


def kept(member: TrainedMember, dataset: Dataset, folder: Path) -> Entry:
    model = member.to_onnx()
    candidate = Candidate(member.name, member.framework, model, check_parity(member, model, dataset))
    answers = {split: member.predict_proba(getattr(dataset, split).x).astype("float32") for split in SPLITS}
    return Library(folder).keep("key", candidate, answers, member.record, member.files)


def task_with(entry: Entry, dataset: Dataset) -> Task:
    return Task(dataset, 0, Progress(console=Console(quiet=True)), {entry.name: entry})
