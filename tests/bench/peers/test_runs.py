"""Medians, and which runs they are of."""

import pytest

from bench.peers.runs import Run, figure, figures, good


def run(rate: float, foreign: float = 0.0, *, cell: str = "json1@64", steal: float = 0.0, errors: int = 0) -> Run:
    """Of one row a request."""
    return Run("beside", "ours-2w", cell, 0, rate, rate, 4.0, 8.0, errors, 1.8, 0.2, foreign, steal, 1.8e6 / rate)


def test_a_figure_is_the_median() -> None:
    found = figure([run(900), run(1000, errors=1), run(1300)])
    assert (found.requests_s, found.p50_ms, found.p99_ms) == (1000, 4, 8)
    assert found.spread == pytest.approx(0.4)
    assert (found.runs, found.errors, found.disturbed) == (3, 1, False)


def test_disturbed_runs_are_thrown_away() -> None:
    runs = [run(1000), run(400, 0.5), run(1100), run(300, steal=0.4)]
    assert good(runs, 0.2) == [runs[0], runs[2]]
    found = figure(runs)
    assert (found.requests_s, found.runs, found.disturbed) == (1050, 2, False)


def test_if_all_are_disturbed_it_is_of_the_least_and_says_so() -> None:
    found = figure([run(400, 1.0), run(800, 0.3), run(700, 0.4)])
    assert (found.requests_s, found.runs, found.disturbed) == (750, 2, True)
    assert found.cpu_foreign == 0.4


def test_what_counts_as_disturbed_can_be_said() -> None:
    assert figure([run(400, 1.0), run(800, 0.3)], noise=0.5).requests_s == 800


def test_figures_are_by_contender_and_cell() -> None:
    found = figures([run(1000), run(2000, cell="json1@1"), run(1200)], "beside")
    assert {key: one.requests_s for key, one in found.items()} == {
        ("ours-2w", "json1@64"): 1100,
        ("ours-2w", "json1@1"): 2000,
    }
    assert figures([run(1000)], "heavy") == {}
