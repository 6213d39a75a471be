"""One network of a search: when it is stopped, and what is kept of it."""

from dataclasses import replace
from math import nan

import numpy as np
import orjson
import pytest

from export.datasets import Dataset, Split
from export.recipe import Conv, Flatten, MaxPool, Search
from export.search.spaces import Proposal
from export.search.trial import Conditions, Load, Result, try_network
from tests.export.small import digits

PROPOSAL = Proposal(
    [Conv(layer="conv", filters=16, padding="same"), MaxPool(layer="maxpool"), Flatten(layer="flatten")], 0.01, 64
)
COST = 10.0
BYTES = 14_000
"""More than the graph of `PROPOSAL` has, at about 2,700 parameters."""


@pytest.fixture(scope="module", name="dataset")
def _dataset() -> Dataset:
    whole = digits()
    return replace(whole, validation=Split(whole.validation.x[:100], whole.validation.y[:100]))


def conditions(dataset: Dataset, *, epochs: int = 3) -> Conditions:
    rows = Split(dataset.train.x[:200], dataset.train.y[:200])
    return Conditions(Search(name="s", epochs=epochs), dataset, rows, 0, lambda model, rows: COST)


def other(curve: list[float], *, cost_us: float = COST, n_bytes: int = 5_000) -> Result:
    return Result([], 0.01, 64, state="complete", load=Load(1_000, cost_us, n_bytes), curve=curve)


GOOD = other([1e-6] * 3)
BAD = other([99.0] * 3)


@pytest.mark.parametrize(
    "earlier",
    [
        [],
        [GOOD],
        [BAD, BAD, GOOD],
        [GOOD, other([1e-6] * 3, cost_us=2 * COST)],
        [GOOD, other([1e-6] * 3, n_bytes=10**6)],
        [GOOD, other([])],
        [GOOD, Result([], 0.01, 64, reason="failed")],
        # Better only after the last epoch, when there is nothing left to stop.
        [other([99.0, 99.0, 1e-6])] * 2,
    ],
)
def test_a_trial_goes_on_unless_two_no_dearer_and_no_bigger_were_better(
    dataset: Dataset, earlier: list[Result]
) -> None:
    result = try_network(PROPOSAL, conditions(dataset), earlier)
    assert (result.state, result.reason, len(result.curve)) == ("complete", None, 3)
    assert result.load is not None
    assert (result.load.parameters, result.load.cost_us) == (16 * 10 + 4 * 4 * 16 * 10 + 10, COST)


@pytest.mark.parametrize(
    ("earlier", "epochs"),
    [
        ([GOOD, GOOD], 1),
        # What was measured a little dearer, by less than a tenth, may be no dearer.
        ([GOOD, other([1e-6] * 3, cost_us=COST * 1.02)], 1),
        ([GOOD, other([99.0, 1e-6])], 2),
    ],
)
def test_a_trial_stops_after_an_epoch_in_which_two_were_better(
    dataset: Dataset, earlier: list[Result], epochs: int
) -> None:
    result = try_network(PROPOSAL, conditions(dataset), earlier)
    assert (result.state, len(result.curve)) == ("pruned", epochs)
    assert result.reason == f"2 others that are no dearer and no bigger were better after epoch {epochs}"
    assert result.accuracy is not None


def test_a_result_is_the_same_after_json(dataset: Dataset) -> None:
    for result in (try_network(PROPOSAL, conditions(dataset, epochs=1), []), Result([], 0.01, 64, reason="failed")):
        assert Result.from_json(orjson.loads(orjson.dumps(result.as_json()))) == result


def test_a_network_that_diverges_has_failed(dataset: Dataset) -> None:
    """Pixels that are no numbers stand for a learning rate that is too high."""
    broken = replace(dataset, validation=Split(np.full_like(dataset.validation.x, nan), dataset.validation.y))
    result = try_network(Proposal([Flatten(layer="flatten")], 0.01, 64), conditions(broken), [])
    assert (result.state, result.reason, result.curve) == ("failed", "the log-loss is nan after epoch 1", [])


@pytest.mark.parametrize(("cost", "within"), [(1.0, True), (COST, True), (COST * 1.02, True), (COST * 1.2, False)])
def test_costs_are_compared_in_steps_of_a_tenth(cost: float, within: bool) -> None:
    assert Load(1, cost, 1).is_within(Load(1, COST, 1)) is within
