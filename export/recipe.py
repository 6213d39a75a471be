"""A recipe: what to train, on what, and how. A TOML file."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from export.errors import InvalidRecipe
from server.manifest import Name
from server.toml import Table, first_repeated, parse_toml

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(gt=0, le=1)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]


# ---- A network's layers ---------------------------------------------------------------------------------------------


class Conv(Table):
    """2-D convolution with `size` x `size` filters."""

    layer: Literal["conv"]
    filters: Count
    size: Count = 3
    padding: Literal["valid", "same"] = "valid"
    activation: Literal["linear", "relu", "tanh", "sigmoid"] = "relu"


class MaxPool(Table):
    """The largest value of each `size` x `size` window; windows do not overlap."""

    layer: Literal["maxpool"]
    size: Annotated[int, Field(ge=2)] = 2


class Flatten(Table):
    layer: Literal["flatten"]


class Dense(Table):
    layer: Literal["dense"]
    units: Count
    activation: Literal["linear", "relu", "tanh", "sigmoid"] = "relu"


class Dropout(Table):
    """Zeroes this share of values while training; nothing of it is left in the graph."""

    layer: Literal["dropout"]
    rate: Annotated[float, Field(gt=0, lt=1)]


Layer = Annotated[Conv | MaxPool | Flatten | Dense | Dropout, Field(discriminator="layer")]


# ---- Members --------------------------------------------------------------------------------------------------------


class KerasCnn(Table):
    """A Keras network: scaling of the input to 0..1, these layers, then a dense softmax with a unit a class.

    Trained by Adam on sparse categorical cross-entropy.
    """

    kind: Literal["keras_cnn"]
    name: Name
    layers: Annotated[list[Layer], Field(min_length=1)]
    learning_rate: Rate = 0.001
    batch_size: Count = 128
    epochs: Count = 10


class DecisionTree(Table):
    """scikit-learn's DecisionTreeClassifier; what is left out keeps scikit-learn's default."""

    kind: Literal["decision_tree"]
    name: Name
    criterion: Literal["gini", "entropy", "log_loss"] = "gini"
    splitter: Literal["best", "random"] = "best"
    max_depth: Count | None = None
    max_leaf_nodes: Annotated[int, Field(ge=2)] | None = None
    min_samples_leaf: Count = 1
    max_features: Count | Share | Literal["sqrt", "log2"] | None = None
    """How many features each split looks at: a number, a share, or a function of how many there are."""


class Xgboost(Table):
    """XGBoost's XGBClassifier, all rounds (no early stopping)."""

    kind: Literal["xgboost"]
    name: Name
    n_estimators: Count = 100
    max_depth: Count = 6
    learning_rate: Rate = 0.3
    subsample: Share = 1.0
    colsample_bytree: Share = 1.0
    min_child_weight: Annotated[float, Field(ge=0)] = 1.0
    tree_method: Literal["hist", "approx", "exact"] = "hist"


Member = Annotated[KerasCnn | DecisionTree | Xgboost, Field(discriminator="kind")]


class Recipe(Table):
    """One ensemble: its name, the dataset that all members learn from, and the members."""

    name: Name
    description: str = ""
    dataset: str
    seed: Annotated[int, Field(ge=0, lt=1 << 32)] = 0
    max_batch_size: Annotated[int, Field(ge=1, le=1 << 16)] = 4096
    """The most rows that one request to the server may hold."""
    members: Annotated[list[Member], Field(min_length=1, max_length=256)]

    @model_validator(mode="after")
    def _named_once(self) -> Self:
        if twice := first_repeated(member.name for member in self.members):
            raise ValueError(f"members: {twice!r} is named more than once")
        return self


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
