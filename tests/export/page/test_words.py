from typing import Any

import pytest

from export.page import words


@pytest.mark.parametrize(
    ("told", "wanted"),
    [
        (words.figure(None), "–"),
        (words.figure(-0.91234), "−0.9123"),
        (words.signed(0.0312), "+0.0312"),
        (words.points(-0.00411), "−0.41"),
        (words.moved(0.0042, in_points=True), "0.42 points higher"),
        (words.moved(-0.03), "0.0300 lower"),
        (words.moved(0.00001), "the same"),
        (words.count(93322), "93,322"),
        (words.share(0.125), "12%"),
        (words.share(None), "–"),
        (words.cost(0.2412), "0.24"),
        (words.cost(41.27), "41.3"),
        (words.cost(2603.4), "2,603"),
        (words.microseconds(None), "–"),
        (words.size(None), "–"),
        (words.size(812), "812 B"),
        (words.size(378_400), "378 kB"),
        (words.size(999_999), "1.0 MB"),
        (words.duration(48), "48 s"),
        (words.duration(720), "12 min"),
        (words.duration(5400 * 2), "3.0 h"),
        (words.compared(70, 100), "30% less"),
        (words.compared(120, 100), "20% more"),
        (words.compared(100.1, 100), "as much"),
        (words.compared(450, 100), "4.5 times as much"),
        (words.number(1, "trial"), "1 trial"),
        (words.number(2, "search", "searches"), "2 searches"),
        (words.listed(["a"]), "a"),
        (words.listed(["a", "b", "c"]), "a, b and c"),
        (words.listed([]), "–"),
        (words.interval({"value": 0.9, "low": 0.8, "high": 0.95}), "0.9000 (0.8000 to 0.9500)"),
        (words.interval({"value": 0.9}), "0.9000"),
        (words.interval(None), "–"),
        (words.params({"depth": None, "rate": 0.12345, "on": True}), "depth none, rate 0.123, on true"),
        (words.settings({"name": "a", "max_cost_us": 30.0, "rows": 8000, "layers": []}), "max cost µs 30 · rows 8,000"),
    ],
)
def test_figures_are_told_as_a_reader_wants_them(told: str, wanted: str) -> None:
    assert told == wanted


def test_a_network_is_told_in_a_line_with_its_repetitions_folded() -> None:
    block: list[dict[str, Any]] = [
        {"layer": "conv", "filters": 16, "size": 3, "activation": "elu"},
        {"layer": "maxpool", "size": 2},
    ]
    stack: list[dict[str, Any]] = [
        *block,
        *block,
        {"layer": "flatten"},
        {"layer": "dropout", "rate": 0.1},
        {"layer": "dense", "units": 64},
    ]
    assert words.layers(stack) == "2 × (16 conv 3×3 · maxpool 2) · dropout 0.1 · dense 64 · elu"


def test_activations_that_differ_are_told_where_they_are() -> None:
    stack: list[dict[str, Any]] = [
        {"layer": "conv", "filters": 8, "separable": True, "activation": "mish"},
        {"layer": "globalpool"},
        {"layer": "dense", "units": 4, "activation": "relu"},
    ]
    assert words.layers(stack) == "8 separable conv 3×3 mish · global pool · dense 4 relu"
