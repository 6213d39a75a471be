import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import helper

from export.candidate import Candidate
from export.errors import NothingFits
from export.fusing.fit import fit_temperature
from export.library import Entry
from export.parity import ParityReport
from export.recipe import EnsembleChoice
from export.select import select
from server.fusion import calibrate, fuse

N_CLASSES = 3


def _entry(name: str, answers: NDArray[np.float32], n_bytes: int) -> Entry:
    """A candidate of these answers to the validation rows, whose graph is of about so many bytes."""
    model = helper.make_model(helper.make_graph([], "g", [], []))
    model.doc_string = "x" * max(0, n_bytes - model.ByteSize() - 4)
    return Entry(name, Candidate(name, "", model, ParityReport(name, {}, 0, 0, 0)), {"validation": answers}, {}, Path())


def _world(sharpness: Sequence[float], n: int = 120, seed: int = 0) -> tuple[list[Entry], NDArray[np.int64]]:
    """Candidates `m0`, `m1`, … that see the truth through noise of their own, the sharper the better; 1 kB each."""
    generator = np.random.default_rng(seed)
    y = generator.integers(0, N_CLASSES, n)
    truth = np.eye(N_CLASSES)[y]
    entries = []
    for number, sharp in enumerate(sharpness):
        exponentials = np.exp(sharp * truth + generator.normal(0, 1, truth.shape))
        answers = (exponentials / exponentials.sum(axis=1, keepdims=True)).astype(np.float32)
        entries.append(_entry(f"m{number}", answers, 1000))
    return entries, y


def _same_cost(entries: Sequence[Entry]) -> dict[str, float]:
    return {entry.name: 1.0 for entry in entries}


def _calibrated(entries: Sequence[Entry], y: NDArray[np.int64]) -> NDArray[np.float32]:
    answers = np.stack([entry.answers["validation"] for entry in entries])
    return calibrate(answers, np.array([fit_temperature(answer, y) for answer in answers], dtype=np.float32))


def _log_loss(probabilities: NDArray[np.float32], y: NDArray[np.int64]) -> float:
    return float(-np.log(np.maximum(probabilities[np.arange(len(y)), y], 1e-7).astype(np.float64)).mean())


def _loss_of(entries: Sequence[Entry], y: NDArray[np.int64], weights: Mapping[str, float]) -> float:
    """Worked out anew: of the logarithmic pool of the calibrated members."""
    members = [entry for entry in entries if entry.name in weights]
    pooled = fuse("log_linear", _calibrated(members, y), weights=np.array([weights[m.name] for m in members]))
    return _log_loss(pooled.probabilities, y)


@st.composite
def _problems(draw: st.DrawFn) -> tuple[list[Entry], dict[str, float], NDArray[np.int64], EnsembleChoice]:
    sharpness = draw(st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0, 8.0]), min_size=1, max_size=6))
    entries, y = _world(sharpness, n=draw(st.integers(5, 60)), seed=draw(st.integers(0, 99)))
    sizes = draw(st.lists(st.integers(100, 9000), min_size=len(entries), max_size=len(entries)))
    entries = [_entry(e.name, e.answers["validation"], size) for e, size in zip(entries, sizes, strict=True)]
    costs = {entry.name: draw(st.sampled_from([0.1, 0.2, 0.3, 1.0, 7.7])) for entry in entries}
    choice = EnsembleChoice(
        name="e",
        max_cost_us=draw(st.none() | st.floats(0.1, 12)),
        max_size_mb=draw(st.none() | st.floats(0.0005, 0.02)),
        max_members=draw(st.integers(1, 4)),
        bags=draw(st.integers(1, 4)),
        start=draw(st.integers(1, 3)),
        least_weight=draw(st.sampled_from([0.0, 0.01, 0.4, 2.0])),
    )
    return entries, costs, y, choice


def _affordable(entries: Sequence[Entry], costs: Mapping[str, float], choice: EnsembleChoice) -> list[Entry]:
    return [
        entry
        for entry in entries
        if costs[entry.name] <= (choice.max_cost_us or math.inf)
        and entry.bytes <= (choice.max_size_mb or math.inf) * 1e6
    ]


@given(_problems(), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_laws(problem: tuple[list[Entry], dict[str, float], NDArray[np.int64], EnsembleChoice], random: Random) -> None:
    entries, costs, y, choice = problem
    affordable = _affordable(entries, costs, choice)
    if not affordable:
        with pytest.raises(NothingFits):
            select(entries, costs, y, choice, seed=0)
        return
    found = select(entries, costs, y, choice, seed=0)

    # Never over a limit, and all that is chosen can be afforded.
    assert 1 <= len(found.members) <= choice.max_members
    assert math.fsum(costs[name] for name in found.members) == found.cost_us <= (choice.max_cost_us or math.inf)
    sizes = {entry.name: entry.bytes for entry in entries}
    assert sum(sizes[name] for name in found.members) <= (choice.max_size_mb or math.inf) * 1e6

    # Weights are shares, none lighter than was asked for unless it is alone.
    assert sum(found.members.values()) == pytest.approx(1)
    assert len(found.members) == 1 or min(found.members.values()) >= choice.least_weight

    # The log-loss is that of the pool it names, and no worse than any affordable candidate's alone.
    assert found.log_loss == pytest.approx(_loss_of(entries, y, found.members), abs=1e-5)
    alone = {entry.name: _loss_of([entry], y, {entry.name: 1.0}) for entry in affordable}
    assert found.log_loss <= min(alone.values()) + 1e-5
    assert found.best_alone["log_loss"] == pytest.approx(min(alone.values()), abs=1e-5)

    # Another order of the library is only another order.
    shuffled = list(entries)
    random.shuffle(shuffled)
    again = select(shuffled, costs, y, choice, seed=0)
    assert again.members == found.members
    assert list(again.members) == [entry.name for entry in shuffled if entry.name in found.members]
    assert (again.log_loss, again.found_by, again.path) == (found.log_loss, found.found_by, found.path)

    # Limits that hold everything are none.
    free = choice.model_copy(update={"max_cost_us": None, "max_size_mb": None})
    ample = choice.model_copy(update={"max_cost_us": 1e6, "max_size_mb": 1e6})
    assert select(entries, costs, y, free, seed=0).members == select(entries, costs, y, ample, seed=0).members


def test_members_that_err_apart_are_better_than_the_best_one() -> None:
    entries, y = _world([1.5, 1.4, 1.3, 0.0], n=2000)
    found = select(entries, _same_cost(entries), y, EnsembleChoice(name="e"), seed=0)
    assert set(found.members) == {"m0", "m1", "m2"}
    assert found.log_loss < found.best_alone["log_loss"] - 0.05
    assert found.best_alone["name"] == "m0"


def test_a_member_that_is_good_but_far_too_sure_is_still_chosen() -> None:
    entries, y = _world([1.5, 1.5], n=2000)
    cold = calibrate(entries[0].answers["validation"][None], np.array([0.1], dtype=np.float32))[0]
    found = select([_entry("sure", cold, 1000), entries[1]], {"sure": 1, "m1": 1}, y, EnsembleChoice(name="e"), seed=0)
    assert found.members["sure"] == pytest.approx(0.5, abs=0.1)


def test_cheap_members_beat_the_best_one_that_takes_all_there_is_to_spend() -> None:
    entries, y = _world([1.6, 1.5, 1.5, 1.5], n=2000)
    costs = {"m0": 3.0, "m1": 1.0, "m2": 1.0, "m3": 1.0}
    found = select(entries, costs, y, EnsembleChoice(name="e", max_cost_us=3), seed=0)
    assert found.path[0]["added"] == "m0"
    assert set(found.members) == {"m1", "m2", "m3"}
    assert found.found_by == "without m0"
    assert found.cost_us == 3


def test_candidates_that_are_beyond_the_limits_alone_do_not_take_up_places() -> None:
    entries, y = _world([3.0, 2.0, 1.0], n=500)
    costs = {"m0": 9.0, "m1": 1.0, "m2": 1.0}
    found = select(entries, costs, y, EnsembleChoice(name="e", max_cost_us=5, max_members=1), seed=0)
    assert list(found.members) == ["m1"]
    assert found.best_alone["name"] == "m1"
    assert found.members == {"m1": 1.0}
    assert found.candidates == ["m0", "m1", "m2"]


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"max_cost_us": 1.5}, r"at most 1.5 µs a row and inf MB, got none among 2: the cheapest is 'm1', 2 µs"),
        ({"max_size_mb": 0.0005}, r"at most inf µs a row and 0.0005 MB, got none among 2: .* the smallest 'm0', 5 µs"),
    ],
)
def test_nothing_that_fits_is_an_error_that_names_what_comes_closest(limits: dict[str, Any], message: str) -> None:
    entries, y = _world([1.0, 2.0])
    entries[1] = _entry("m1", entries[1].answers["validation"], 5000)
    with pytest.raises(NothingFits, match=f"^ensemble 'small': expected a candidate of {message}"):
        select(entries, {"m0": 5.0, "m1": 2.0}, y, EnsembleChoice(name="small", **limits), seed=0)


def test_no_candidates_are_an_error() -> None:
    y = np.zeros(3, dtype=np.int64)
    choice = EnsembleChoice(name="e")
    with pytest.raises(NothingFits, match="expected candidates to choose from, got none"):
        select([], {}, y, choice, seed=0)


def test_the_record_is_ready_for_json_and_holds_what_was_seen() -> None:
    entries, y = _world([2.0, 1.5, 0.5], n=400)
    costs = {"m0": 3.0, "m1": 2.0, "m2": 1.0}
    choice = EnsembleChoice(name="e", max_cost_us=5, max_members=2)
    record = orjson.loads(orjson.dumps(select(entries, costs, y, choice, seed=4).to_json()))
    assert record["limits"] == {"max_cost_us": 5, "max_size_mb": None, "max_members": 2}
    assert record["settings"] == {"bags": 20, "start": 2, "least_weight": 0.01, "seed": 4}
    assert record["costs_us"] == costs
    assert record["bytes"] == {entry.name: entry.bytes for entry in entries}
    assert record["cost_us"] == sum(costs[name] for name in record["members"])
    assert record["size_mb"] == pytest.approx(sum(record["bytes"][name] for name in record["members"]) / 1e6)
    first = record["path"][0]
    assert first == {"added": "m0", "log_loss": pytest.approx(_loss_of(entries[:1], y, {"m0": 1}), abs=1e-5)}
    assert {step["added"] for step in record["path"]} == {"m0", "m1"}
    labels = [entry.answers["validation"].argmax(axis=1) for entry in entries]
    assert record["disagreement"]["names"] == ["m0", "m1", "m2"]
    assert record["disagreement"]["matrix"][0][2] == pytest.approx((labels[0] != labels[2]).mean())
    assert [record["disagreement"]["matrix"][k][k] for k in range(3)] == [0, 0, 0]


def test_the_same_seed_chooses_the_same() -> None:
    entries, y = _world([1.0, 0.9, 0.8, 0.7, 0.6], n=50)
    choice = EnsembleChoice(name="e", max_members=3)
    first, second = (select(entries, _same_cost(entries), y, choice, seed=7) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("seed", range(5))
def test_a_member_and_its_copy_are_never_taken_together(seed: int) -> None:
    entries, y = _world([2.0, 1.5, 1.0], n=300, seed=seed)
    copies = [_entry(f"{entry.name}-copy", entry.answers["validation"], 500) for entry in entries]
    everyone = [*entries, *copies]
    chosen = select(everyone, _same_cost(everyone), y, EnsembleChoice(name="e"), seed=seed)
    assert sum(chosen.members.values()) == pytest.approx(1)
    for entry, copy in zip(entries, copies, strict=True):
        assert not {entry.name, copy.name} <= set(chosen.members)


def test_leaving_out_never_makes_it_worse_than_the_best_alone() -> None:
    """Nearly a copy, cheaper and hardly worse: not taken in place of the best one."""
    entries, y = _world([2.0], n=400)
    best = entries[0].answers["validation"]
    nearly = (0.9999 * best + 0.0001 / N_CLASSES).astype(np.float32)
    chosen = select(
        [*entries, _entry("nearly", nearly, 100)], {"m0": 9.0, "nearly": 1.0}, y, EnsembleChoice(name="e"), seed=0
    )
    assert chosen.log_loss <= chosen.best_alone["log_loss"]
