"""The connections of a worker among its fellows.

Who asks all the time keeps its connection for hours. When a worker is replaced, those that it had have long come to the
others when the next one serves: so who has far more than its part lets some go with their next answer, and they come
again, to whoever has fewer.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")

TOLERATED = 0.25
"""Of its part, how much more a worker may have; one more it may have always."""


class Connections(set[T]):
    """Those that are there. `on_fewer` hears at once when one has gone: where many go and come back, who was not told
    would be left out."""

    def __init__(self, on_fewer: Callable[[], object]) -> None:
        super().__init__()
        self._on_fewer = on_fewer
        self._excess = 0

    def discard(self, connection: object, /) -> None:
        super().discard(connection)
        self._on_fewer()

    def compare(self, others: Sequence[int]) -> None:
        """With how many other workers have."""
        part = (len(self) + sum(others)) // (1 + len(others))
        excess = len(self) - part
        self._excess = excess if excess > max(TOLERATED * part, 1) else 0

    def let_one_go(self) -> bool:
        """Whether there is one too many still: the one that is answered now is to be the next one to go."""
        if not self._excess:
            return False
        self._excess -= 1
        return True
