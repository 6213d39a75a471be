"""Convolutional networks of Keras on TensorFlow, trained on labels or on other members' answers."""

from dataclasses import replace
from typing import Any

from export.adapt import member_of
from export.datasets import Dataset
from export.formats.keras_models import import_keras, keras_bytes, keras_source
from export.members.network import build, learn
from export.members.task import Task
from export.members.teachers import soft_targets
from export.recipe import KerasCnn
from export.trained import TrainedMember

MODEL_FILE = "model.keras"
"""What pruning starts from."""


def train_keras_cnn(recipe: KerasCnn, task: Task) -> TrainedMember:
    """Train a network. Deterministic: the same seed gives the same weights on the same machine."""
    keras = import_keras()
    dataset = task.dataset
    shown = task.progress.add_task(recipe.name, total=recipe.epochs)
    targets = soft_targets(recipe, task) if recipe.teachers else ()
    keras.utils.set_random_seed(task.seed)
    model = build(recipe.layers, dataset.input, len(dataset.classes), name=recipe.name, l1=recipe.l1, l2=recipe.l2)
    curves = learn(
        model,
        recipe,
        dataset.train,
        dataset.validation,
        learning_rate=recipe.learning_rate,
        batch_size=recipe.batch_size,
        seed=task.seed,
        targets=targets,
        on_epoch=lambda epoch, figures: task.progress.advance(shown),
    )
    task.progress.update(shown, completed=recipe.epochs)
    record = {"parameters": model.count_params(), "curves": curves, "teachers": recipe.teachers}
    return network_member(model, recipe.name, dataset, record)


def network_member(model: Any, name: str, dataset: Dataset, record: dict[str, Any]) -> TrainedMember:
    """A trained Keras network as a member that others can be made of."""
    return replace(member_of(keras_source(model), name, dataset), record=record, files={MODEL_FILE: keras_bytes(model)})
