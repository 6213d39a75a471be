"""Numbers that wait in this process until they are written to the metrics together.

Where processes share their metrics, each number is a write to memory they have mapped, and takes a microsecond or more;
a request has a dozen of them. Of the event loop's thread only.
"""

from bisect import bisect_left
from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Histogram

Labels = tuple[object, ...]


class Distribution:
    """A histogram, by labels, that is written from the tally. `bounds` are the buckets' upper ones."""

    def __init__(
        self, name: str, about: str, labels: Sequence[str], *, bounds: Sequence[float], registry: CollectorRegistry
    ) -> None:
        self._histogram = Histogram(name, about, labels, buckets=bounds, registry=registry)
        self._bounds = tuple(bounds)
        self._waiting: dict[Labels, list[float]] = {}

    def observe(self, labels: Labels, amount: float, times: int = 1, *, total: float | None = None) -> None:
        """That something has taken so long, or been so big, so many times; together `total`, if not each the same.

        Labels may stand in tuples of their own.
        """
        waiting = self._waiting.get(labels)
        if waiting is None:
            waiting = self._waiting[labels] = [0.0] * (len(self._bounds) + 2)
        waiting[bisect_left(self._bounds, amount)] += times
        waiting[-1] += amount * times if total is None else total

    def flush(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for labels, (*counts, total) in waiting.items():
            # What its observe() does, for many at once, which it has no call for.
            child = self._histogram.labels(*_flat(labels))
            for bucket, count in zip(child._buckets, counts, strict=True):
                if count:
                    bucket.inc(count)
            child._sum.inc(total)


class Tally:
    """What has been counted since it was last written."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[Counter, Labels], float] = {}
        self._written: dict[tuple[Counter, Labels], Counter] = {}

    def count(self, metric: Counter, *labels: object, by: float = 1) -> None:
        key = metric, labels
        self._waiting[key] = self._waiting.get(key, 0) + by

    def waiting(self, metric: Counter) -> set[Labels]:
        """The labels of a metric of which something has been counted since it was last written."""
        return {labels for counted, labels in self._waiting if counted is metric}

    def flush(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for key, amount in waiting.items():
            child = self._written.get(key)
            if child is None:
                metric, labels = key
                child = self._written[key] = metric.labels(*labels)
            child.inc(amount)


def _flat(labels: Labels) -> list[object]:
    return [one for label in labels for one in (label if isinstance(label, tuple) else (label,))]
