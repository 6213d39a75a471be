import re
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from server.tally import Distribution, Tally

BOUNDS = (0.25, 0.5, 1.0, 4.0)
EXACT = st.integers(0, 1 << 12).map(lambda n: n / 512)
"""Seconds whose sums are the same in any order; many of them are bounds of a bucket."""
LABELS = st.tuples(st.sampled_from(["a", "b"]), st.sampled_from([1, 2]))


def exposed(registry: CollectorRegistry) -> str:
    """Without when each was made."""
    return re.sub(r"(?m)^.*_created.*\n", "", generate_latest(registry).decode())


def durations(registry: CollectorRegistry) -> Distribution:
    return Distribution("d_seconds", "about", ["name", "number"], bounds=BOUNDS, registry=registry)


@given(st.lists(st.tuples(LABELS, EXACT, st.integers(1, 5), st.booleans()), max_size=50))
def test_durations_write_what_prometheus_own_histogram_would(
    observed: Sequence[tuple[tuple[str, int], float, int, bool]],
) -> None:
    """Whenever it is flushed in between."""
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    waiting = durations(ours)
    histogram = Histogram("d_seconds", "about", ["name", "number"], buckets=BOUNDS, registry=theirs)
    for labels, seconds, times, flush in observed:
        waiting.observe(labels, seconds, times)
        for _ in range(times):
            histogram.labels(*labels).observe(seconds)
        if flush:
            waiting.flush()
    waiting.flush()
    assert exposed(ours) == exposed(theirs)


def test_what_takes_longer_than_all_bounds_is_counted() -> None:
    registry = CollectorRegistry()
    waiting = durations(registry)
    waiting.observe(("a", 1), 100.0)
    waiting.flush()
    assert 'd_seconds_bucket{le="4.0",name="a",number="1"} 0.0' in exposed(registry)
    assert 'd_seconds_bucket{le="+Inf",name="a",number="1"} 1.0' in exposed(registry)


def test_nothing_is_written_before_it_is_flushed_and_all_of_it_once() -> None:
    registry = CollectorRegistry()
    waiting, tally = durations(registry), Tally()
    counter = Counter("c", "about", ["name"], registry=registry)
    waiting.observe(("a", 1), 0.3)
    tally.count(counter, "a", by=3)
    assert "{" not in exposed(registry)
    for _ in range(3):
        waiting.flush()
        tally.flush()
        assert 'd_seconds_count{name="a",number="1"} 1.0' in exposed(registry)
        assert 'c_total{name="a"} 3.0' in exposed(registry)


@given(
    st.lists(
        st.tuples(st.integers(0, 1), st.sampled_from(["a", "b", 3]), st.integers(0, 9), st.booleans()), max_size=50
    )
)
def test_a_tally_writes_what_counters_would(counted: Sequence[tuple[int, object, int, bool]]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    counters = [
        [Counter(name, "about", ["label"], registry=registry) for name in ("one", "two")] for registry in (ours, theirs)
    ]
    tally = Tally()
    for which, label, by, flush in counted:
        tally.count(counters[0][which], label, by=by)
        counters[1][which].labels(label).inc(by)
        if flush:
            tally.flush()
    tally.flush()
    assert exposed(ours) == exposed(theirs)


def test_labels_that_do_not_fit_are_an_error() -> None:
    registry = CollectorRegistry()
    tally = Tally()
    tally.count(Counter("c", "about", ["name"], registry=registry), "a", "b")
    with pytest.raises(ValueError, match="label count"):
        tally.flush()


def test_labels_may_be_nested() -> None:
    registry = CollectorRegistry()
    waiting = Distribution("d_seconds", "about", ["a", "b", "c"], bounds=BOUNDS, registry=registry)
    waiting.observe((("x", 1), "y"), 0.3)
    waiting.flush()
    assert 'd_seconds_count{a="x",b="1",c="y"} 1.0' in exposed(registry)


def test_what_waits_is_known_until_it_is_written() -> None:
    registry = CollectorRegistry()
    tally, counter, other = Tally(), *(Counter(name, "about", ["name"], registry=registry) for name in ("c", "o"))
    tally.count(counter, "a")
    tally.count(counter, "b", by=2)
    tally.count(other, "z")
    assert tally.waiting(counter) == {("a",), ("b",)}
    tally.flush()
    assert tally.waiting(counter) == set()
