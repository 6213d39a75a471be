import pytest

from server.crowd import Connections


def crowd(count: int) -> Connections[int]:
    connections: Connections[int] = Connections(lambda: None)
    connections.update(range(count))
    return connections


def going(connections: Connections[int]) -> int:
    return sum(connections.let_one_go() for _ in range(1000))


def test_fewer_are_told_at_once() -> None:
    told: list[int] = []
    connections: Connections[int] = Connections(lambda: told.append(len(connections)))
    connections.update((1, 2, 3))
    connections.discard(2)
    assert told == [2]
    assert connections == {1, 3}


@pytest.mark.parametrize(
    ("own", "others", "go"),
    [
        (150, [0], 75),  # the other has just come
        (258, [89], 85),
        (8, [0], 4),
        (4, [0], 2),
        (100, [100, 0], 34),
        (90, [110], 0),  # the other's are too many, not these
        (124, [100], 0),  # not far more
        (2, [0], 0),  # nothing is gained where only one would move
        (1, [0], 0),
        (0, [5], 0),
        (300, [], 0),  # nobody else could have them
    ],
)
def test_who_has_far_more_than_its_part_lets_the_rest_go(own: int, others: list[int], go: int) -> None:
    connections = crowd(own)
    connections.compare(others)
    assert going(connections) == go


def test_the_next_look_counts() -> None:
    connections = crowd(100)
    connections.compare([0])
    assert connections.let_one_go()
    connections.compare([90])
    assert not connections.let_one_go()
