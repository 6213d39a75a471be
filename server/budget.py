"""What the requests in flight may hold of a worker's memory, all of them together."""

from server.errors import Overloaded

FREE = 64 << 10
"""Bytes of each request that do not count, so that large requests never keep small ones out."""


class Budget:
    """`limit` bytes, of which shares are taken. Of a worker, in its event loop's thread."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.taken = 0

    def check(self, size: int) -> None:
        """Raise Overloaded if there is no room now for a request that says that it will hold so much."""
        if size > FREE and self.taken and self.taken + size - FREE > self.limit:
            raise self._overloaded()

    def _overloaded(self) -> Overloaded:
        return Overloaded(
            f"body: expected at most {self.limit} bytes in flight (max_inflight_bytes); got more, of all requests "
            "together: try again"
        )


class Share:
    """What one request, or one connection, holds of the budget. It has to be given back."""

    __slots__ = ("_budget", "_held")

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._held = 0

    def hold(self, size: int, *, regardless: bool = False) -> None:
        """Hold `size` bytes in place of what was held.

        Raises Overloaded, and holds what it did, if it is more and there is no room; but one that is alone always has.
        """
        wanted = size - FREE if size > FREE else 0
        if wanted == self._held:
            return
        others = self._budget.taken - self._held
        if wanted > self._held and others and others + wanted > self._budget.limit and not regardless:
            raise self._budget._overloaded()
        self._budget.taken = others + wanted
        self._held = wanted

    def give_back(self) -> None:
        self.hold(0)
