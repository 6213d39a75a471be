"""Trees and forests of scikit-learn."""

from dataclasses import replace
from typing import Any

from export.adapt import member_of
from export.formats.sklearn_models import sklearn_source
from export.members.task import Task
from export.members.tuning import SklearnTree, flat, refusals, search_grid
from export.recipe import DecisionTree
from export.trained import TrainedMember


def train_sklearn_tree(recipe: SklearnTree, task: Task) -> TrainedMember:
    """Fit one tree, or a forest on all cores, on the flattened training rows; with `tune`, of the best settings.

    Raises InvalidRecipe.
    """
    dataset = task.dataset
    recipe, record = search_grid(recipe, _unfitted(recipe, task.seed), task)
    shown = task.progress.add_task(recipe.name, total=1)
    model = _unfitted(recipe, task.seed)
    forest = not isinstance(recipe, DecisionTree)
    if forest:
        model.set_params(n_jobs=-1)
    with refusals(recipe.name, ValueError):
        model.fit(flat(dataset.train), dataset.train.y)
    if forest:
        model.set_params(n_jobs=None)  # threads sum a forest's answer in any order, and its last digits change
    task.progress.advance(shown)
    # Its classes are the labels, which are indices into the data set's, whatever those are called.
    return replace(member_of(replace(sklearn_source(model), classes=None), recipe.name, dataset), record=record)


def _unfitted(recipe: SklearnTree, seed: int) -> Any:
    from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
    from sklearn.tree import DecisionTreeClassifier

    kinds = {
        "decision_tree": DecisionTreeClassifier,
        "random_forest": RandomForestClassifier,
        "extra_trees": ExtraTreesClassifier,
    }
    settings = recipe.model_dump(exclude={"kind", "name", "tune"})  # which have scikit-learn's names
    return kinds[recipe.kind](**settings, random_state=seed)
