from dataclasses import replace
from typing import get_args

import numpy as np
import pytest

from export.datasets import Split
from export.errors import UnseenClass
from export.members import TRAINERS
from export.recipe import DecisionTree, Member
from tests.export.small import TREE, digits, train


def test_a_class_without_training_rows_is_refused() -> None:
    dataset = digits()
    kept = ~np.isin(dataset.train.y, [3, 7])
    poorer = replace(dataset, train=Split(dataset.train.x[kept], dataset.train.y[kept]))
    with pytest.raises(UnseenClass, match=r"member 'tree': .* all 10 classes, got none of \['3', '7'\]"):
        train(TREE, poorer)


def test_members_of_the_same_settings_differ() -> None:
    dataset = digits()
    settings = DecisionTree(kind="decision_tree", name="one", splitter="random")
    one = train(settings, dataset).predict_proba(dataset.test.x)
    again = train(settings, dataset).predict_proba(dataset.test.x)
    other = train(settings.model_copy(update={"name": "other"}), dataset).predict_proba(dataset.test.x)
    reseeded = train(settings, dataset, seed=1).predict_proba(dataset.test.x)
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)
    assert not np.array_equal(one, reseeded)


def test_every_kind_has_a_trainer() -> None:
    kinds = {get_args(kind.model_fields["kind"].annotation)[0] for kind in get_args(get_args(Member)[0])}
    # What a search has found is a keras_cnn by the time that it is trained.
    assert set(TRAINERS) == kinds - {"searched_cnn"}
