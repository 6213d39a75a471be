from dataclasses import replace

import lightgbm
import numpy as np
import pytest
from rich.console import Console
from rich.progress import Progress

from export.datasets import Dataset, Split
from export.errors import InvalidRecipe
from export.members import Task, train_member
from export.parity import check_parity
from export.recipe import Lightgbm
from tests.export.members.boosted import assert_the_best_rounds_alone
from tests.export.small import digits, train

LGB = Lightgbm(kind="lightgbm", name="lgb", n_estimators=5, num_leaves=6)
OVERFITTING = LGB.model_copy(update={"n_estimators": 60, "learning_rate": 0.7, "early_stopping": 3})


def test_it_boosts_all_rounds() -> None:
    dataset = digits()
    member = train(LGB, dataset)
    probabilities = member.predict_proba(dataset.test.x)
    assert member.framework == f"lightgbm {lightgbm.__version__}"
    assert probabilities.shape == (300, 10)
    assert (probabilities.argmax(axis=1) == dataset.test.y).mean() > 0.75
    assert member.record["rounds"] == len(member.record["curves"]["validation_log_loss"]) == 5
    assert member.splits is not None
    assert len(member.splits) <= 5 * 10 * (6 - 1)  # rounds x classes x inner nodes of a tree of 6 leaves


def test_it_is_lightgbms_classifier() -> None:
    dataset = digits()
    settings = {"subsample": 0.5, "colsample_bytree": 0.5, "reg_lambda": 3.0, "max_bin": 8, "min_child_samples": 30}
    own = lightgbm.LGBMClassifier(
        n_estimators=5, num_leaves=6, max_depth=6, subsample_freq=1, random_state=7, verbosity=-1, **settings
    ).fit(dataset.train.x.reshape(len(dataset.train), -1), dataset.train.y)
    recipe = LGB.model_copy(update=settings)
    member = train_member(recipe, Task(dataset, 7, Progress(console=Console(quiet=True))))
    test = dataset.test.x.reshape(len(dataset.test), -1)
    want = own.booster_.predict(test)  # the classifier itself warns of nameless features
    np.testing.assert_allclose(member.predict_proba(dataset.test.x), want, atol=1e-12)


def test_the_same_seed_gives_the_same_trees() -> None:
    dataset = digits()
    recipe = LGB.model_copy(update={"subsample": 0.6, "colsample_bytree": 0.5})
    one, again = train(recipe, dataset), train(recipe, dataset)
    other = train(recipe, dataset, seed=1)
    np.testing.assert_array_equal(one.predict_proba(dataset.test.x), again.predict_proba(dataset.test.x))
    assert not np.array_equal(one.predict_proba(dataset.test.x), other.predict_proba(dataset.test.x))


def test_early_stopping_keeps_the_best_rounds_trees_alone() -> None:
    dataset = digits()
    assert_the_best_rounds_alone(train(OVERFITTING, dataset), dataset, patience=3, most=60)


def test_two_classes_have_two_columns() -> None:
    dataset = _of_two_classes(digits())
    member = train(LGB, dataset)
    probabilities = member.predict_proba(dataset.test.x)
    assert probabilities.shape == (300, 2)
    assert (probabilities.argmax(axis=1) == dataset.test.y).mean() > 0.75
    check_parity(member, member.to_onnx(), dataset)


def test_what_lightgbm_refuses_is_the_recipes() -> None:
    with pytest.raises(InvalidRecipe, match=r"member 'lgb': its settings are refused: .*num_leaves"):
        train(LGB.model_copy(update={"num_leaves": 1 << 20}), digits())


def test_progress_counts_rounds() -> None:
    progress = Progress(console=Console(quiet=True))
    train_member(LGB, Task(digits(), 0, progress))
    assert [(task.description, task.completed, task.finished) for task in progress.tasks] == [("lgb", 5, True)]


def _of_two_classes(dataset: Dataset) -> Dataset:
    def of(split: Split) -> Split:
        return Split(split.x, (split.y % 2).astype(np.int64))

    return replace(
        dataset,
        classes=["even", "odd"],
        train=of(dataset.train),
        validation=of(dataset.validation),
        calibration=of(dataset.calibration),
        test=of(dataset.test),
    )
