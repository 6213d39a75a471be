from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from rich.progress import Progress

from export.formats.keras_models import import_keras
from export.members import Task, TrainedMember, train_member
from export.members.network import build
from export.recipe import KerasCnn, load_recipe
from server.manifest import InputSpec
from tests.export.small import CNN, digits, train

SEED_RECIPE = Path(__file__).parents[3] / "export" / "recipes" / "seed.toml"


@pytest.fixture(scope="module", name="cnn")
def _cnn() -> TrainedMember:
    return train(CNN, digits())


def test_the_seed_network_has_93322_parameters() -> None:
    cnn = load_recipe(SEED_RECIPE).members[0]
    assert isinstance(cnn, KerasCnn)
    model = build(cnn.layers, InputSpec(name="image", shape=[28, 28, 1], low=0.0, high=255.0), 10, name="cnn")
    assert model.count_params() == 93_322
    names = [type(layer).__name__ for layer in model.layers]
    conv, pool = "Conv2D", "MaxPooling2D"
    assert names == ["Rescaling", conv, pool, conv, pool, conv, "Flatten", "Dense", "Dense"]


def test_it_learns_from_raw_pixels(cnn: TrainedMember) -> None:
    dataset = digits()
    probabilities = cnn.predict_proba(dataset.test.x)
    assert cnn.framework == f"keras {import_keras().__version__}"
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    assert (probabilities.argmax(axis=1) == dataset.test.y).mean() > 0.8


def test_logits_are_what_the_softmax_sees(cnn: TrainedMember) -> None:
    dataset = digits()
    assert cnn.logits is not None
    logits = cnn.logits(dataset.test.x)
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    expected = exponentials / exponentials.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(cnn.predict_proba(dataset.test.x), expected, atol=1e-5)


def test_the_same_seed_gives_the_same_network(cnn: TrainedMember) -> None:
    dataset = digits()
    again = train(CNN, dataset)
    np.testing.assert_array_equal(cnn.predict_proba(dataset.test.x), again.predict_proba(dataset.test.x))


def test_progress_counts_epochs() -> None:
    progress = Progress(console=Console(quiet=True))
    train_member(CNN.model_copy(update={"epochs": 2}), Task(digits(), 0, progress))
    assert [(task.description, task.completed, task.finished) for task in progress.tasks] == [("cnn", 2, True)]
