from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import Progress

from export.members import Task
from export.members.teachers import COPIES, soft_targets
from export.recipe import Augment
from tests.export.members.entries import kept
from tests.export.small import CNN, TREE, digits, train


def test_a_student_is_told_what_the_fused_teachers_answer(tmp_path: Path) -> None:
    sources = {recipe.name: kept(train(recipe, digits()), digits(), tmp_path) for recipe in (CNN, TREE)}
    task = Task(digits(), 5, Progress(console=Console(quiet=True)), sources)
    train_split = task.dataset.train
    student = CNN.model_copy(update={"name": "student", "teachers": ["cnn", "tree"], "teachers_share": 0.75})

    ((x, told),) = soft_targets(student, task)
    np.testing.assert_array_equal(x, train_split.x)
    assert told.dtype == np.float32
    np.testing.assert_allclose(told.sum(axis=1), 1, atol=1e-5)
    labels = np.eye(10, dtype=np.float32)[train_split.y]
    taught = (told - 0.25 * labels) / 0.75
    assert (taught.argmax(axis=1) == train_split.y).mean() > 0.9
    assert taught.min() > -1e-6

    augmenting = student.model_copy(update={"augment": Augment(shift=1)})
    copies = soft_targets(augmenting, task)
    assert len(copies) == COPIES
    assert len({pictures.tobytes() for pictures, _ in copies}) == COPIES
    for (one, answers), (same, again) in zip(copies, soft_targets(augmenting, task), strict=True):
        np.testing.assert_array_equal(one, same)
        np.testing.assert_array_equal(answers, again)
