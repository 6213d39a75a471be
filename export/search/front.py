"""Which networks of a search are worth having: what beats what, and the one to take."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from export.errors import NothingFits
from export.recipe import Layer

LAYERS: TypeAdapter[list[Layer]] = TypeAdapter(list[Layer])


@dataclass(frozen=True, slots=True)
class Found:
    """A network of a search's front; `number` is its trial's."""

    layers: list[Layer]
    learning_rate: float
    batch_size: int
    number: int


def pick(record: Mapping[str, Any], *, max_cost_us: float | None, member: str) -> Found:
    """Of a search's front, the network of least log-loss among those that cost no more than `max_cost_us` a row.

    Raises NothingFits, which names the member that wants it, and what the cheapest costs.
    """
    front = [trial for trial in record["trials"] if trial["front"]]
    fitting = [trial for trial in front if max_cost_us is None or trial["cost_us"] <= max_cost_us]
    if not fitting:
        cheapest = min(front, key=lambda trial: trial["cost_us"])
        raise NothingFits(
            f"member {member!r}: expected a network of search {record['name']!r} that costs at most {max_cost_us:g} µs "
            f"a row, got {cheapest['cost_us']:.1f} µs for the cheapest, of trial {cheapest['number']}"
        )
    best = min(fitting, key=lambda trial: (trial["log_loss"], trial["cost_us"]))
    return Found(
        LAYERS.validate_python(best["layers"]), best["learning_rate"], best["batch_size"], number=best["number"]
    )


def nondominated(figures: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which of the rows of `figures (n, n_objectives)` no other beats: is better than in one of them, and as good in
    the rest; less is better. Answers `(n,)`; rows that are alike stand or fall together."""
    as_good = (figures[:, None] <= figures).all(axis=2)
    better = (figures[:, None] < figures).any(axis=2)
    return np.logical_not((as_good & better).any(axis=0))
