"""The kinds of members that a recipe may ask for."""

from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, ValidationError, model_validator

from export.recipe.layers import Augment, Count, Layers, Penalty, Rate, Share, Training
from server.manifest import Name
from server.toml import Table

BUDGET_PATTERN = r"^[1-9][0-9]*[smh]$"
Budget = Annotated[str, StringConstraints(pattern=BUDGET_PATTERN)]
"""A time: `90s`, `20m`, `2h`."""
Value = int | float | str | None


def seconds(budget: str) -> float:
    """`20m` → 1200."""
    return int(budget[:-1]) * {"s": 1, "m": 60, "h": 3600}[budget[-1]]


# ---- Networks -------------------------------------------------------------------------------------------------------


class Network(Training):
    """A network, and what it learns from: the labels, or other members' answers (distillation)."""

    name: Name
    teachers: list[Name] = []
    """Members whose fused answers it learns from, too (Hinton et al. 2015)."""
    teachers_share: Share = 0.9
    """Of the loss: the rest is cross-entropy with the labels."""

    @property
    def sources(self) -> list[str]:
        return list(self.teachers)


class KerasCnn(Network):
    """A Keras network: scaling of the input to 0..1, these layers, then a dense softmax with a unit a class."""

    kind: Literal["keras_cnn"]
    layers: Layers
    learning_rate: Rate = 0.001
    batch_size: Count = 128


class SearchedCnn(Network):
    """The network that an architecture search found, trained in full: layers, learning rate and batch size are its.

    Of the search's Pareto front it takes the one of least log-loss, among those that cost no more than `max_cost_us`.
    """

    kind: Literal["searched_cnn"]
    search: Name
    max_cost_us: Rate | None = None


class PrunedCnn(Table):
    """A trained network with whole filters and dense units taken out, those of least L1 norm (Li et al. 2017).

    In `rounds`, each followed by `epochs` of fine-tuning, widths go down by 16s, until the network costs no more than
    `max_cost_us`, or its accuracy on the validation rows has fallen by more than `tolerance` (then the round before it
    is kept), or `keep` of its filters and units are left. Penalties are those that the network was trained with.
    """

    kind: Literal["pruned_cnn"]
    name: Name
    of: Name
    keep: Share = 0.5
    rounds: Count = 3
    epochs: Count = 2
    """Of fine-tuning, after each round; so is all that follows."""
    learning_rate: Rate = 0.0005
    batch_size: Count = 128
    schedule: Literal["constant", "cosine"] = "constant"
    weight_decay: Penalty = 0.0
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    augment: Augment | None = None
    max_cost_us: Rate | None = None
    tolerance: Annotated[float, Field(ge=0, le=1)] = 0.01

    @property
    def sources(self) -> list[str]:
        return [self.of]

    @property
    def training(self) -> Training:
        """Of one round."""
        return Training(
            epochs=self.epochs,
            schedule=self.schedule,
            weight_decay=self.weight_decay,
            label_smoothing=self.label_smoothing,
            augment=self.augment,
        )


class Quantised(Table):
    """Another member in fewer bits: `int8`, static, QDQ, a scale a channel; or `float16` weights.

    It becomes a candidate only where its file is smaller or its measured cost lower, where it loses no more than
    `tolerance` of accuracy on the validation rows, and no probability moves by more than `drift`.
    """

    kind: Literal["quantised"]
    name: Name
    of: Name
    to: Literal["int8", "float16"] = "int8"
    tolerance: Annotated[float, Field(ge=0, le=1)] = 0.005
    drift: Annotated[float, Field(gt=0, le=1)] = 0.5

    @property
    def sources(self) -> list[str]:
        return [self.of]


# ---- Trees ----------------------------------------------------------------------------------------------------------


class GridSearch(Table):
    """Cross-validated search of every combination of `grid`, on stratified folds of the training rows.

    `halving` starts all on few rows and gives the better third three times as many (Jamieson & Talwalkar 2016).
    """

    grid: Annotated[dict[str, Annotated[list[Value], Field(min_length=1)]], Field(min_length=1)]
    folds: Annotated[int, Field(ge=2, le=20)] = 5
    halving: bool = False
    rows: Count | None = None
    """Search on so many rows, stratified; the winner is trained on all."""


class Range(Table):
    """Where a trial may take a number from: whole numbers if both ends are; `log` draws its logarithm evenly."""

    low: int | float
    high: int | float
    log: bool = False

    @model_validator(mode="after")
    def _upwards(self) -> Self:
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError(f"expected low < high, and above zero with log; got {self.low} and {self.high}")
        return self

    @property
    def whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)


class TrialSearch(Table):
    """Optuna's search of `ranges` by cross-validated log-loss, on stratified folds of the training rows."""

    ranges: Annotated[dict[str, Range], Field(min_length=1)]
    trials: Count = 20
    budget: Budget | None = None
    folds: Annotated[int, Field(ge=2, le=20)] = 3
    rows: Count | None = None
    """Search on so many rows, stratified; the winner is trained on all."""


class _Tree(Table):
    name: Name

    @property
    def sources(self) -> list[str]:
        return []

    def _check_tried(self, key: str, values: Sequence[Value]) -> None:
        """Raises ValueError unless `key` is a setting of this kind, and the values are of those that it takes."""
        settings = [name for name in type(self).model_fields if name not in ("kind", "name", "tune")]
        if key not in settings:
            raise ValueError(f"{self.name!r}: tune: expected settings among {', '.join(settings)}; got {key!r}")
        for value in values:
            try:
                self.model_validate({**self.model_dump(exclude={"tune"}), key: value})
            except ValidationError as exc:
                expected = ", or ".join(error["msg"] for error in exc.errors(include_url=False))
                raise ValueError(f"{self.name!r}: tune: {key}: {expected}; got {value!r}") from exc


class _SklearnTree(_Tree):
    """What is left out keeps scikit-learn's default, whose names these are."""

    criterion: Literal["gini", "entropy", "log_loss"] = "gini"
    max_depth: Count | None = None
    max_leaf_nodes: Annotated[int, Field(ge=2)] | None = None
    min_samples_leaf: Count = 1
    ccp_alpha: Penalty = 0.0
    """Minimal cost-complexity pruning (Breiman et al. 1984): a branch stays if it saves more impurity a leaf."""
    tune: GridSearch | None = None

    @model_validator(mode="after")
    def _takes_what_is_tried(self) -> Self:
        for key, values in self.tune.grid.items() if self.tune else ():
            self._check_tried(key, values)
        return self


class DecisionTree(_SklearnTree):
    """scikit-learn's DecisionTreeClassifier."""

    kind: Literal["decision_tree"]
    splitter: Literal["best", "random"] = "best"
    max_features: Count | Share | Literal["sqrt", "log2"] | None = None
    """How many features each split looks at: a number, a share, or a function of how many there are."""


class RandomForest(_SklearnTree):
    """scikit-learn's RandomForestClassifier (Breiman 2001)."""

    kind: Literal["random_forest"]
    n_estimators: Count = 100
    max_features: Count | Share | Literal["sqrt", "log2"] | None = "sqrt"


class ExtraTrees(_SklearnTree):
    """scikit-learn's ExtraTreesClassifier (Geurts et al. 2006)."""

    kind: Literal["extra_trees"]
    n_estimators: Count = 100
    max_features: Count | Share | Literal["sqrt", "log2"] | None = "sqrt"


class _Boosted(_Tree):
    n_estimators: Count = 100
    max_depth: Count = 6
    learning_rate: Rate = 0.3
    subsample: Share = 1.0
    colsample_bytree: Share = 1.0
    reg_lambda: Penalty = 1.0
    max_bin: Annotated[int, Field(ge=2)] = 256
    """Into how many bins each feature's values are put before splits are looked for; fewer are faster."""
    early_stopping: Count | None = None
    """Stop after so many rounds without a lower validation log-loss, and keep the best round's trees."""
    tune: TrialSearch | None = None

    @model_validator(mode="after")
    def _takes_what_is_tried(self) -> Self:
        for key, within in self.tune.ranges.items() if self.tune else ():
            self._check_tried(key, (within.low, within.high))
        return self


class Xgboost(_Boosted):
    """XGBoost's XGBClassifier, whose names these are."""

    kind: Literal["xgboost"]
    min_child_weight: Annotated[float, Field(ge=0)] = 1.0
    tree_method: Literal["hist", "approx", "exact"] = "hist"


class Lightgbm(_Boosted):
    """LightGBM's LGBMClassifier (Ke et al. 2017), whose names these are."""

    kind: Literal["lightgbm"]
    num_leaves: Annotated[int, Field(ge=2)] = 31
    learning_rate: Rate = 0.1
    min_child_samples: Count = 20
    reg_lambda: Penalty = 0.0
    max_bin: Annotated[int, Field(ge=2)] = 255


Member = Annotated[
    KerasCnn | SearchedCnn | PrunedCnn | Quantised | DecisionTree | RandomForest | ExtraTrees | Xgboost | Lightgbm,
    Field(discriminator="kind"),
]
