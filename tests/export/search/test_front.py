"""The Pareto front, and what is taken of it."""

from typing import Any

import numpy as np
import pytest

from export.errors import NothingFits
from export.recipe import Conv, Flatten
from export.search import pick
from export.search.front import nondominated


def test_the_front_is_what_no_other_beats() -> None:
    figures = np.array(
        [
            [0.3, 50, 100],
            [0.3, 50, 100],  # the same again: neither beats the other
            [0.4, 20, 100],
            [0.4, 20, 101],  # as the one before, and bigger
            [0.5, 60, 90],
            [0.6, 70, 120],  # worse than the first in everything
        ]
    )
    assert nondominated(figures).tolist() == [True, True, True, False, True, False]


def trial(number: int, log_loss: float, cost_us: float, *, front: bool = True) -> dict[str, Any]:
    return {
        "number": number,
        "front": front,
        "log_loss": log_loss,
        "cost_us": cost_us,
        "layers": [{"layer": "conv", "filters": 16 * (number + 1)}, {"layer": "flatten"}],
        "learning_rate": 0.01,
        "batch_size": 64,
    }


RECORD = {
    "name": "fast",
    "trials": [trial(0, 0.2, 90.0), trial(1, 0.3, 20.0), trial(2, 0.4, 7.25), trial(3, 0.1, 5.0, front=False)],
}


@pytest.mark.parametrize(("limit", "number"), [(None, 0), (90.0, 0), (89.9, 1), (20.0, 1), (7.3, 2)])
def test_the_best_within_the_cost_is_picked(limit: float | None, number: int) -> None:
    found = pick(RECORD, max_cost_us=limit, member="cnn")
    assert found.number == number
    assert found.layers == [Conv(layer="conv", filters=16 * (number + 1)), Flatten(layer="flatten")]
    assert (found.learning_rate, found.batch_size) == (0.01, 64)


def test_what_nothing_fits_names_the_cheapest() -> None:
    with pytest.raises(NothingFits) as caught:
        pick(RECORD, max_cost_us=5.5, member="cnn")
    assert caught.value.message == (
        "member 'cnn': expected a network of search 'fast' that costs at most 5.5 µs a row, got 7.2 µs for the "
        "cheapest, of trial 2"
    )
