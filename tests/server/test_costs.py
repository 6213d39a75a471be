from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from server import costs
from server.costs import Costs, measure
from server.errors import MemberFailed
from server.repository import load_version
from tests import faulty, tiny

COSTS = st.floats(0, 10)
"""Seconds."""


@pytest.mark.parametrize(
    ("members", "n_rows", "seconds"), [((0,), 1, 1.1), ((1,), 10, 4.0), ((0, 1), 10, 6.0), ((), 5, 0)]
)
def test_a_call_costs_something_and_every_row_more(members: tuple[int, ...], n_rows: int, seconds: float) -> None:
    assert Costs([1.0, 2.0], [0.1, 0.2]).estimate(members, n_rows) == pytest.approx(seconds)


def test_every_member_is_measured(tmp_path: Path) -> None:
    measured = measure(load_version(tiny.write_packed(tmp_path)), tiny.rows(3))
    assert len(measured.call) == len(measured.row) == 3
    assert min(measured.call) > 0
    assert min(measured.row) >= 0


def test_costs_are_those_of_the_members_apart_on_one_row_and_on_a_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ensemble = load_version(tiny.write_ensemble(tmp_path, n_members=2))
    asked: list[tuple[int, tuple[int, ...]]] = []
    answer = ensemble.ask

    def ask(rows: NDArray[np.float32], members: tuple[int, ...]) -> object:
        asked.append((len(rows), members))
        return answer(rows, members)

    monkeypatch.setattr(ensemble, "ask", ask)
    clock = iter(range(1000))
    monkeypatch.setattr(costs, "perf_counter", lambda: next(clock) * 0.01)
    measure(ensemble, tiny.rows(5))
    assert asked == [
        *[(1, (0,))] * costs.REPEATS,
        *[(1, (1,))] * costs.REPEATS,
        *[(costs.BATCH, (0,))] * costs.REPEATS,
        *[(costs.BATCH, (1,))] * costs.REPEATS,
    ]


def test_what_takes_long_is_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ensemble = load_version(tiny.write_ensemble(tmp_path, n_members=1))
    clock = iter(range(1000))
    monkeypatch.setattr(costs, "perf_counter", lambda: float(next(clock)))
    measured = measure(ensemble, tiny.rows(5))
    assert next(clock) == 4  # two calls, each looked at before and after
    assert measured.estimate((0,), 1) == pytest.approx(1.0)


def test_a_member_that_fails_cannot_be_measured(tmp_path: Path) -> None:
    with pytest.raises(MemberFailed):
        measure(load_version(faulty.write(tmp_path)), faulty.rows(1, faulty.RAISE))


def test_what_takes_longer_or_shorter_than_was_thought_is_thought_so_before_long() -> None:
    for truth in (0.3, 3.0, 30.0):
        costs = Costs([0.5, 1.0], [0.1, 0.2])
        others = costs.estimate((0,), 5)
        for _ in range(200):
            costs.learn((1,), 5, truth)
        assert costs.estimate((1,), 5) == pytest.approx(truth, rel=0.01)
        assert costs.estimate((0,), 5) == others


def test_one_call_changes_little() -> None:
    costs = Costs([1.0], [0.0])
    costs.learn((0,), 1, 1000.0)
    assert 1.0 < costs.estimate((0,), 1) < 1.3
    costs.learn((0,), 1, 0.0)
    assert 0.9 < costs.estimate((0,), 1) < 1.1


def test_a_member_that_is_never_tried_is_one_day_thought_cheap_enough() -> None:
    costs = Costs([1.0, 1.0], [0.0, 0.0])
    for _ in range(250):
        costs.doubt(1)
    assert costs.estimate((1,), 1) < 0.01
    assert costs.estimate((0,), 1) == 1.0


def test_a_member_that_costs_nothing_stays_free() -> None:
    costs = Costs([0.0], [0.0])
    costs.learn((0,), 10, 1.0)
    assert costs.estimate((0,), 10) == 0.0


@pytest.mark.parametrize("factor", [1 - 0.9 * costs.NOISE, 1.0, 1 + 0.9 * costs.NOISE])
def test_what_takes_about_as_long_as_was_thought_teaches_nothing(factor: float) -> None:
    known = Costs([1.0], [0.5])
    known.learn((0,), 4, 3.0 * factor)
    assert known == Costs([1.0], [0.5])


@pytest.mark.parametrize("factor", [1 - 1.1 * costs.NOISE, 1 + 1.1 * costs.NOISE])
def test_what_takes_a_little_more_or_less_teaches_a_little(factor: float) -> None:
    known = Costs([1.0], [0.5])
    known.learn((0,), 4, 3.0 * factor)
    assert known.estimate((0,), 4) == pytest.approx(3.0 * factor**costs.LEARNING)


class TestRowsAtOnce:
    @given(st.lists(st.tuples(COSTS, COSTS), max_size=4))
    def test_some_but_not_too_many(self, members: list[tuple[float, float]]) -> None:
        known = Costs([call for call, _ in members], [row for _, row in members])
        assert 1 <= known.rows_at_once(range(len(members))) <= costs.MOST

    @given(COSTS, COSTS, COSTS)
    def test_dearer_rows_make_no_larger_batch(self, call: float, row: float, more: float) -> None:
        assert Costs([call], [row + more]).rows_at_once((0,)) <= Costs([call], [row]).rows_at_once((0,))

    @given(COSTS, COSTS, COSTS)
    def test_dearer_calls_make_no_smaller_batch(self, call: float, row: float, more: float) -> None:
        assert Costs([call + more], [row]).rows_at_once((0,)) >= Costs([call], [row]).rows_at_once((0,))

    @given(COSTS, COSTS)
    def test_a_batch_is_short_unless_its_call_costs_much_and_then_wastes_little(self, call: float, row: float) -> None:
        n = Costs([call], [row]).rows_at_once((0,))
        call += costs.OVERHEAD_SECONDS
        assert n == 1 or n * row <= max(costs.BATCH_SECONDS, call / costs.LOSS) * (1 + 1e-9)
        assert n == costs.MOST or call <= costs.LOSS * (n + 1) * row * (1 + 1e-9)

    @pytest.mark.parametrize(
        ("call", "row", "rows"),
        [
            (0.0, 0.0009, 3),  # three milliseconds of rows
            (0.0, 0.00009, 33),
            (0.0, 0.0, costs.MOST),
            (0.0, 1.0, 1),
            (0.01, 0.01, 20),  # of two hundred milliseconds ten are a twentieth
        ],
    )
    def test_by_hand(self, call: float, row: float, rows: int) -> None:
        assert Costs([call], [row]).rows_at_once((0,)) == rows

    def test_of_members_together(self) -> None:
        known = Costs([0.0, 0.0, 9.0], [0.00008, 0.0002, 9.0])
        assert known.rows_at_once((0, 1)) == 10
        assert known.rows_at_once((0,)) == 37
