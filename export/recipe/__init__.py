"""A recipe: what to train, on what, how, and what to publish of it. A TOML file."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from export.errors import InvalidRecipe
from export.recipe.layers import (
    ACTIVATIONS,
    Activation,
    Augment,
    AvgPool,
    Conv,
    Dense,
    Dropout,
    Flatten,
    GlobalPool,
    Layer,
    MaxPool,
    Training,
)
from export.recipe.members import (
    DecisionTree,
    ExtraTrees,
    GridSearch,
    KerasCnn,
    Lightgbm,
    Member,
    Network,
    PrunedCnn,
    Quantised,
    RandomForest,
    Range,
    SearchedCnn,
    TrialSearch,
    Xgboost,
    seconds,
)
from export.recipe.studies import (
    Compare,
    CompareActivations,
    CompareRegularisation,
    EnsembleChoice,
    Search,
    Variant,
)
from server.manifest import Name
from server.toml import Table, first_repeated, parse_toml

__all__ = [
    "ACTIVATIONS",
    "Activation",
    "Augment",
    "AvgPool",
    "Compare",
    "CompareActivations",
    "CompareRegularisation",
    "Conv",
    "DecisionTree",
    "Dense",
    "Dropout",
    "EnsembleChoice",
    "ExtraTrees",
    "Flatten",
    "GlobalPool",
    "GridSearch",
    "KerasCnn",
    "Layer",
    "Lightgbm",
    "MaxPool",
    "Member",
    "Network",
    "PrunedCnn",
    "Quantised",
    "RandomForest",
    "Range",
    "Recipe",
    "Search",
    "SearchedCnn",
    "Training",
    "TrialSearch",
    "Variant",
    "Xgboost",
    "load_recipe",
    "seconds",
]


class Recipe(Table):
    """Candidates for members, all trained on one dataset, and the ensembles to make of them.

    Without `ensembles` all members become the one ensemble that is named like the recipe.
    """

    name: Name
    description: str = ""
    dataset: str
    seed: Annotated[int, Field(ge=0, lt=1 << 32)] = 0
    max_batch_size: Annotated[int, Field(ge=1, le=1 << 16)] = 4096
    """The most rows that one request to the server may hold."""
    searches: list[Search] = []
    compare: Compare = Compare()
    members: Annotated[list[Member], Field(min_length=1, max_length=256)]
    ensembles: list[EnsembleChoice] = []

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for what in ("searches", "members", "ensembles"):
            if twice := first_repeated(one.name for one in getattr(self, what)):
                raise ValueError(f"{what}: {twice!r} is named more than once")
        searches = {search.name for search in self.searches}
        before: set[str] = set()
        for member in self.members:
            if strangers := [name for name in member.sources if name not in before]:
                raise ValueError(
                    f"members: {member.name!r} is made of {strangers[0]!r}, which does not stand before it"
                )
            if isinstance(member, SearchedCnn) and member.search not in searches:
                raise ValueError(
                    f"members: {member.name!r}: expected a search of {sorted(searches)}, got {member.search!r}"
                )
            before.add(member.name)
        return self

    @property
    def published(self) -> list[EnsembleChoice]:
        """The ensembles to make."""
        return self.ensembles or [EnsembleChoice(name=self.name)]

    def member(self, name: str) -> Member:
        return next(member for member in self.members if member.name == name)


def load_recipe(path: Path) -> Recipe:
    """Read a recipe.

    Raises InvalidRecipe, in one line that names the file, the field, what was expected and what came.
    """
    try:
        return parse_toml(Recipe, path.read_bytes())
    except OSError as exc:
        raise InvalidRecipe(f"{path}: cannot be read: {exc.strerror}") from exc
    except ValueError as exc:
        raise InvalidRecipe(f"{path}: {exc}") from exc
