"""What a trainer is given besides the settings of its member."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from rich.progress import Progress

from export.datasets import Dataset
from export.library import Entry


@dataclass(frozen=True, slots=True)
class Task:
    """The data, the member's own seed, where to show progress, and the candidates that it is made of, by name."""

    dataset: Dataset
    seed: int
    progress: Progress
    sources: Mapping[str, Entry] = field(default_factory=dict)
