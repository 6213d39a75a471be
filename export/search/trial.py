"""One trial of a search: a network is built, measured, and trained for as long as it is worth it."""

import gc
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from time import perf_counter
from typing import Any, Literal

from onnx import ModelProto

from export.adapt import member_of
from export.datasets import Dataset, Split
from export.formats.keras_models import import_keras, keras_source
from export.members.network import build, learn
from export.recipe import Search, Training
from export.search.spaces import Proposal
from server.errors import first_line
from server.rows import Rows

Measure = Callable[[ModelProto, Rows], float]
"""Microseconds a row of a graph on these rows."""
ENOUGH = 2
"""So many earlier trials have to be better before one is stopped."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """What all trials of a search have in common; `rows` are those to train on."""

    search: Search
    dataset: Dataset
    rows: Split
    seed: int
    measure: Measure


@dataclass(frozen=True, slots=True)
class Load:
    """What a network asks of a server, known before it is trained."""

    parameters: int
    cost_us: float
    bytes: int
    """Of its graph."""

    @property
    def cost_steps(self) -> int:
        """The cost in steps of a tenth, by which costs are compared: a network never costs the same twice."""
        return round(math.log(max(self.cost_us, 1e-3)) / math.log(1.1))

    def is_within(self, other: "Load") -> bool:
        return self.cost_steps <= other.cost_steps and self.bytes <= other.bytes


@dataclass(slots=True)
class Result:
    """What came of a trial. `load` is None if there was no graph to measure; `curve` is the validation log-loss after
    each epoch, `accuracy` belongs to the last of them; `reason` says why the trial is not complete."""

    layers: list[dict[str, Any]]
    learning_rate: float
    batch_size: int
    state: Literal["complete", "pruned", "failed"] = "failed"
    reason: str | None = None
    load: Load | None = None
    accuracy: float | None = None
    curve: list[float] = field(default_factory=list)
    seconds: float = 0.0

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> "Result":
        """Of what `as_json` answered."""
        load = found["load"]
        return cls(**{**found, "load": None if load is None else Load(**load)})

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


class Pruned(Exception):
    """A trial is not worth going on with."""


def try_network(proposal: Proposal, conditions: Conditions, earlier: Sequence[Result]) -> Result:
    """Train a network, unless it is too dear, for which it need not be trained. After an epoch the trial stops if
    `ENOUGH` of `earlier`, none of them dearer or bigger, had a lower log-loss after as many.

    Whatever building, converting or training raises makes it a failed trial.
    """
    start = perf_counter()
    result = Result(
        [layer.model_dump(mode="json", exclude_defaults=True) for layer in proposal.layers],
        proposal.learning_rate,
        proposal.batch_size,
    )
    try:
        _go_through(result, proposal, conditions, earlier)
        result.state = "complete"
    except Pruned as exc:
        result.state, result.reason = "pruned", str(exc)
    except Exception as exc:  # a network fails in as many ways as there are layers
        result.reason = first_line(exc)
    # Keras keeps every network that it has built.
    import_keras().backend.clear_session()
    gc.collect()
    result.seconds = perf_counter() - start
    return result


def _go_through(result: Result, proposal: Proposal, conditions: Conditions, earlier: Sequence[Result]) -> None:
    """Fills in the result as it goes."""
    search, dataset, seed = conditions.search, conditions.dataset, conditions.seed
    import_keras().utils.set_random_seed(seed)
    model = build(proposal.layers, dataset.input, len(dataset.classes), name="network")
    graph = member_of(keras_source(model), search.name, dataset).to_onnx()
    cost = conditions.measure(graph, dataset.validation.x)
    result.load = load = Load(model.count_params(), cost, graph.ByteSize())
    if search.max_cost_us is not None and cost > search.max_cost_us:
        raise Pruned(f"it costs {cost:.1f} µs a row")
    rivals = [other for other in earlier if other.load is not None and other.load.is_within(load)]

    def watch(epoch: int, figures: Mapping[str, float]) -> None:
        log_loss = figures["validation_log_loss"]
        if not math.isfinite(log_loss):
            raise ArithmeticError(f"the log-loss is {log_loss} after epoch {epoch + 1}")
        result.curve.append(log_loss)
        result.accuracy = figures["validation_accuracy"]
        better = [other for other in rivals if len(other.curve) > epoch and other.curve[epoch] < log_loss]
        if len(better) >= ENOUGH and epoch + 1 < search.epochs:
            raise Pruned(f"{len(better)} others that are no dearer and no bigger were better after epoch {epoch + 1}")

    learn(
        model,
        Training(epochs=search.epochs, schedule="cosine", augment=search.augment),
        conditions.rows,
        dataset.validation,
        learning_rate=proposal.learning_rate,
        batch_size=proposal.batch_size,
        seed=seed,
        on_epoch=watch,
    )
