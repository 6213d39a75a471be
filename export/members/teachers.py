"""Distillation: what the fused answers of some members teach another (Hinton, Vinyals & Dean 2015).

The teachers answer the very pictures that the student sees, mirrored and moved alike, so that it learns their function
and not only their labels (Beyer et al. 2022, "a good teacher is patient and consistent").
"""

import numpy as np
from numpy.typing import NDArray

from export.fusing.fit import fit_log_linear_pool, fit_temperatures
from export.library import Entry
from export.members.feed import augmented
from export.members.task import Task
from export.predictor import Predictor
from export.recipe import Augment, Network
from server.fusion import calibrate, fuse
from server.rows import Rows

COPIES = 4
"""How often the training pictures are made anew for the teachers, if there is anything to be made of them."""

Targets = list[tuple[NDArray[np.float32], NDArray[np.float32]]]


def soft_targets(recipe: Network, task: Task) -> Targets:
    """Pairs of pictures `(n, *shape)` and distributions `(n, n_classes)`, a pair an epoch in turn.

    A distribution is `teachers_share` of the teachers' calibrated log-linear pool, and the rest of it is the label.
    """
    entries = [task.sources[name] for name in recipe.teachers]
    pool = _Pool(entries, task)
    y = np.eye(len(task.dataset.classes), dtype=np.float32)[task.dataset.train.y]
    copies = _copies(task.dataset.train.x, recipe.augment, task.seed)
    tracked = task.progress.track(copies, description=f"{recipe.name}: teachers")
    return [(x, recipe.teachers_share * pool.answer(x) + (1 - recipe.teachers_share) * y) for x in tracked]


class _Pool:
    """Teachers fused by `log_linear`, with weights fitted on validation and temperatures on calibration rows."""

    def __init__(self, entries: list[Entry], task: Task) -> None:
        dataset = task.dataset
        validation, calibration = (
            np.stack([entry.answers[split] for entry in entries]) for split in ("validation", "calibration")
        )
        self._temperatures = fit_temperatures(calibration, dataset.calibration.y)
        self._weights = fit_log_linear_pool(calibrate(validation, self._temperatures), dataset.validation.y).weights
        self._members = [Predictor(entry.candidate.model, entry.name) for entry in entries]

    def answer(self, x: Rows) -> NDArray[np.float32]:
        answers = np.stack([member(x) for member in self._members])
        return fuse("log_linear", answers, weights=self._weights, temperatures=self._temperatures).probabilities


def _copies(x: Rows, augment: Augment | None, seed: int) -> list[NDArray[np.float32]]:
    if augment is None:
        return [x]
    return [augmented(x, augment, np.random.default_rng([seed, copy])) for copy in range(COPIES)]
