"""Structured pruning: a trained network made narrower round by round, and trained on after each."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from export.costs import measure_costs
from export.errors import InvalidRecipe, NothingFits
from export.formats.keras_models import load_keras
from export.members.keras_cnn import MODEL_FILE, network_member
from export.members.network import PREDICT_BATCH, WIDTH_STEP, learn, log_loss
from export.members.surgery import narrowed, strongest, widths
from export.members.task import Task
from export.parity import accuracy_lost
from export.recipe import PrunedCnn
from export.trained import TrainedMember


@dataclass(frozen=True, slots=True)
class _Round:
    """The network after one round; round 0 is the network as it was."""

    number: int
    model: Any
    answers: NDArray[np.float32]
    """On the validation rows, `(n, n_classes)`."""


def train_pruned_cnn(recipe: PrunedCnn, task: Task) -> TrainedMember:
    """Prune a network; its `record` has each round, beside the unpruned network trained equally long.

    Raises InvalidRecipe if the member that it is made of is no network, and NothingFits if none of its layers can be
    narrower, or the first round already loses more than the tolerance.
    """
    model = _source(recipe, task)
    y = task.dataset.validation.y
    goals = narrower(widths(model), keep=recipe.keep, rounds=recipe.rounds)
    if not goals:
        raise NothingFits(
            f"member {recipe.name!r}: nothing to prune of {recipe.of!r}: its layers have {_shown(widths(model))} "
            f"channels, and {recipe.keep:g} of them are, in multiples of {WIDTH_STEP}, as many"
        )
    rounds, control, costs = _prune(model, goals, recipe, task)
    fell = accuracy_lost(rounds[0].answers, rounds[-1].answers, y) > recipe.tolerance
    kept = rounds[-2] if fell else rounds[-1]
    figures = [_figures(one, cost, y) for one, cost in zip(rounds, costs, strict=True)]
    if kept.number == 0:
        raise NothingFits(f"member {recipe.name!r}: {_first_round(recipe, *figures)}")
    record = {
        "of": recipe.of,
        "kept": figures[kept.number],
        "rounds": [{**row, "kept": row["round"] == kept.number} for row in figures],
        "control": [{"round": one.number, **_scores(one, y)} for one in control],
    }
    return network_member(kept.model, recipe.name, task.dataset, record)


def _prune(
    model: Any, goals: Sequence[Sequence[int]], recipe: PrunedCnn, task: Task
) -> tuple[list[_Round], list[_Round], list[float]]:
    """The rounds, up to one that loses too much or is cheap enough; as many of the unpruned network; and what each of
    the former costs."""
    total = 2 * len(goals) * recipe.epochs
    shown = task.progress.add_task(recipe.name, total=total)

    def tuned(number: int, network: Any) -> _Round:
        learn(
            network,
            recipe.training,
            task.dataset.train,
            task.dataset.validation,
            learning_rate=recipe.learning_rate,
            batch_size=recipe.batch_size,
            seed=task.seed + number,
            on_epoch=lambda epoch, figures: task.progress.advance(shown),
        )
        return _round(number, network, task)

    rounds = [_round(0, model, task)]
    control = [replace(rounds[0], model=narrowed(model, strongest(model, widths(model))))]
    graphs = [_graph(model, recipe.name, task)]
    costs: list[float] = []
    for number, goal in enumerate(goals, start=1):
        before = rounds[-1].model
        rounds.append(tuned(number, narrowed(before, strongest(before, goal))))
        control.append(tuned(number, control[-1].model))
        graphs.append(_graph(rounds[-1].model, recipe.name, task))
        costs = _costs(graphs, task)
        lost = accuracy_lost(rounds[0].answers, rounds[-1].answers, task.dataset.validation.y)
        if lost > recipe.tolerance or costs[-1] <= (recipe.max_cost_us or 0):
            break
    task.progress.update(shown, completed=total)
    return rounds, control, costs


def narrower(widths: Sequence[int], *, keep: float, rounds: int) -> list[list[int]]:
    """The widths after each round, in even steps from all channels down to `keep` of them, in multiples of 16.

    A layer of 16 or fewer channels stays as it is, and rounds that would change nothing are left out.
    """
    goals: list[list[int]] = []
    now = list(widths)
    for number in range(1, rounds + 1):
        share = 1 - (1 - keep) * number / rounds
        goal = [min(width, _nearest(start * share)) for width, start in zip(now, widths, strict=True)]
        if goal != now:
            goals.append(goal)
        now = goal
    return goals


def _nearest(width: float) -> int:
    return max(WIDTH_STEP, WIDTH_STEP * int(width / WIDTH_STEP + 0.5))


def _source(recipe: PrunedCnn, task: Task) -> Any:
    """Raises InvalidRecipe, or InvalidModel."""
    path = task.sources[recipe.of].folder / MODEL_FILE
    if not path.is_file():
        raise InvalidRecipe(
            f"member {recipe.name!r}: expected {recipe.of!r} to be a Keras network, which leaves a {MODEL_FILE}; "
            f"{path.parent} holds none"
        )
    return load_keras(path)


def _round(number: int, model: Any, task: Task) -> _Round:
    answers = model.predict(task.dataset.validation.x, batch_size=PREDICT_BATCH, verbose=0)
    return _Round(number, model, answers)


def _graph(model: Any, name: str, task: Task) -> ModelProto:
    return network_member(model, name, task.dataset, {}).to_onnx()


def _costs(graphs: Sequence[ModelProto], task: Task) -> list[float]:
    """Microseconds a row of the network after each round, measured in turn."""
    rounds = {str(number): graph for number, graph in enumerate(graphs)}
    return list(measure_costs(rounds, task.dataset.validation.x).values())


def _figures(one: _Round, cost: float, y: NDArray[np.int64]) -> dict[str, Any]:
    return {
        "round": one.number,
        "widths": widths(one.model),
        "parameters": one.model.count_params(),
        "cost_us": cost,
        **_scores(one, y),
    }


def _scores(one: _Round, y: NDArray[np.int64]) -> dict[str, float]:
    return {"accuracy": float((one.answers.argmax(axis=1) == y).mean()), "log_loss": log_loss(one.answers, y)}


def _first_round(recipe: PrunedCnn, before: dict[str, Any], after: dict[str, Any]) -> str:
    return (
        f"no narrower {recipe.of!r} within {recipe.tolerance:g} of its accuracy: the first round took it from "
        f"{before['accuracy']:.4f} to {after['accuracy']:.4f}, from {before['cost_us']:.1f} to {after['cost_us']:.1f} "
        f"µs a row, from {_shown(before['widths'])} to {_shown(after['widths'])} channels"
    )


def _shown(widths: Sequence[int]) -> str:
    return "-".join(map(str, widths))
