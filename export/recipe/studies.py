"""What a recipe looks into before, beside and after its members: searches, comparisons, and what is published."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from export.fusing.cascade import TOLERANCE
from export.recipe.layers import (
    ACTIVATIONS,
    Activation,
    Augment,
    Conv,
    Count,
    Dense,
    Layers,
    Penalty,
    Rate,
    Regime,
    Training,
)
from export.recipe.members import Budget
from server.manifest import Name
from server.toml import Table, first_repeated


class Search(Table):
    """A search for networks: depth, width, kernel size, pooling, activation, learning rate, …

    It minimises three things at once: validation log-loss, measured microseconds a row, and the file's size. `deeper`
    varies how many blocks and dense layers there are at modest widths, `wider` the widths of a shallow network,
    `deeper_and_wider` both.
    """

    name: Name
    space: Literal["deeper", "wider", "deeper_and_wider"] = "deeper_and_wider"
    trials: Count = 20
    budget: Budget | None = None
    """No trial begins once so much time has gone into the search: `trials` or this ends it, whichever is first."""
    epochs: Count = 4
    rows: Count | None = None
    """Train on so many rows, stratified."""
    max_cost_us: Rate | None = None
    """Networks that cost more microseconds a row than this are not trained."""
    augment: Augment | None = None


class _Comparison(Table):
    layers: Layers
    rows: Count | None = None
    """Train on so many rows, stratified."""
    learning_rate: Rate = 0.001
    batch_size: Count = 128

    @model_validator(mode="after")
    def _has_hidden_layers(self) -> Self:
        if not any(isinstance(layer, Conv | Dense) for layer in self.layers):
            raise ValueError("layers: expected a conv or a dense layer, got none")
        return self


class CompareActivations(_Comparison):
    """One network, trained with each of the activations in all its hidden layers, from each of the seeds."""

    activations: Annotated[list[Activation], Field(min_length=2)] = list(ACTIVATIONS)
    seeds: Count = 2
    epochs: Count = 4

    @model_validator(mode="after")
    def _different(self) -> Self:
        if twice := first_repeated(self.activations):
            raise ValueError(f"activations: {twice!r} is named more than once")
        return self


class Variant(Regime):
    """One way to hold a network back from learning its training rows by heart."""

    name: Name
    epochs: Count | None = None
    """None: as many as the comparison says."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """After every pooling and dense layer."""
    batch_norm: bool = False
    """In every convolution and dense layer."""

    def training(self, epochs: int) -> Training:
        """For so many epochs, if it says nothing else."""
        settings = {name: getattr(self, name) for name in Regime.model_fields}
        return Training(epochs=self.epochs or epochs, **settings)


VARIANTS: tuple[Variant, ...] = (
    Variant(name="none"),
    Variant(name="l1", l1=0.0003),
    Variant(name="l2", l2=0.002),
    Variant(name="l1_l2", l1=0.00015, l2=0.001),
    Variant(name="dropout", dropout=0.3),
    Variant(name="batch_norm", batch_norm=True),
    Variant(name="label_smoothing", label_smoothing=0.1),
    Variant(name="early_stopping", early_stopping=3),
    Variant(name="augmentation", augment=Augment(flip=True, shift=1)),
    Variant(
        name="all",
        schedule="cosine",
        l1=0.00005,
        l2=0.0003,
        dropout=0.2,
        batch_norm=True,
        label_smoothing=0.02,
        early_stopping=5,
        augment=Augment(flip=True, shift=1),
    ),
)
"""For pictures of about 28x28 pixels that stay what they are when mirrored."""


class CompareRegularisation(_Comparison):
    """One network, trained in each of these ways."""

    variants: Annotated[list[Variant], Field(min_length=2)] = list(VARIANTS)
    epochs: Count = 20

    @model_validator(mode="after")
    def _different(self) -> Self:
        if twice := first_repeated(variant.name for variant in self.variants):
            raise ValueError(f"variants: {twice!r} is named more than once")
        return self


class Compare(Table):
    activations: CompareActivations | None = None
    regularisation: CompareRegularisation | None = None


class EnsembleChoice(Table):
    """An ensemble to be published: the members that are best together and cost no more than this, of all candidates.

    Greedy selection with replacement by validation log-loss (Caruana et al. 2004), over `bags` of half of the
    candidates each, starting from the `start` best ones.
    """

    name: Name
    description: str = ""
    max_cost_us: Rate | None = None
    """Microseconds a row of all members together: alone, one thread, in batches of 64."""
    max_size_mb: Rate | None = None
    """Of their graphs, in millions of bytes."""
    max_members: Count = 8
    bags: Count = 20
    start: Count = 2
    least_weight: Penalty = 0.01
    """A candidate of less weight than this is left out: it costs more than it brings."""
    cascade_tolerance: Annotated[float, Field(ge=0, le=1)] = TOLERANCE
    """Share of rows by which the accuracy of its cascade may lie below that of all its members."""
