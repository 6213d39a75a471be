import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.budget import FREE, Budget, Share
from server.errors import Overloaded

LIMIT = 1000


def test_small_ones_are_free() -> None:
    budget = Budget(LIMIT)
    for _ in range(100):
        Share(budget).hold(FREE)
    budget.check(FREE)
    assert budget.taken == 0


def test_one_that_is_alone_has_room() -> None:
    budget = Budget(LIMIT)
    budget.check(FREE + 5 * LIMIT)
    one, other = Share(budget), Share(budget)
    one.hold(FREE + 5 * LIMIT)
    one.hold(FREE + 6 * LIMIT)
    assert budget.taken == 6 * LIMIT
    with pytest.raises(Overloaded, match=r"at most 1000 bytes in flight \(max_inflight_bytes\)"):
        budget.check(FREE + 1)
    with pytest.raises(Overloaded):
        other.hold(FREE + 1)
    assert budget.taken == 6 * LIMIT
    one.hold(FREE + LIMIT - 1)
    other.hold(FREE + 1)
    one.give_back()
    other.give_back()
    assert budget.taken == 0


def test_what_nobody_can_refuse() -> None:
    budget = Budget(LIMIT)
    Share(budget).hold(FREE + LIMIT)
    late = Share(budget)
    late.hold(FREE + LIMIT, regardless=True)
    assert budget.taken == 2 * LIMIT
    late.hold(FREE + 1)  # less than it had: never refused
    assert budget.taken == LIMIT + 1


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, FREE + 3 * LIMIT)), max_size=30))
def test_it_is_what_is_held(moves: list[tuple[int, int]]) -> None:
    budget = Budget(LIMIT)
    shares, held = [Share(budget) for _ in range(4)], [0] * 4
    for index, size in moves:
        try:
            shares[index].hold(size)
            held[index] = max(0, size - FREE)
        except Overloaded:
            assert sum(held) - held[index] + size - FREE > LIMIT
        assert budget.taken == sum(held)
        assert budget.taken <= LIMIT or sum(n > 0 for n in held) == 1
    for share in shares:
        share.give_back()
    assert budget.taken == 0
