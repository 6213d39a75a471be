from typing import Any

from export.page.blocks import Cell, Section, Table, Words
from export.page.cascade import sections
from export.page.svg import inline, matplotlib_style


def _scores(accuracy: float) -> dict[str, Any]:
    return {"accuracy": {"value": accuracy}}


CASCADE = {
    "strategy": "weighted",
    "measure": "agreement",
    "tolerance": 0.001,
    "stages": [
        {"members": ["a", "b"], "threshold": 0.75, "cost_us": 4.0, "share": 0.6},
        {"members": ["c"], "threshold": None, "cost_us": 40.0, "share": 0.4},
    ],
    "cost_us": 20.0,
    "all_members_us": 44.0,
    "over_all_members": {
        "accuracy": {"value": -0.004, "low": -0.006, "high": -0.002},
        "log_loss": {"value": 0.01, "low": -0.01, "high": 0.03},
    },
    "sweep": [{"threshold": 0.25 * k, "cost_us": 4.0 + 10 * k, "accuracy": 0.9 + 0.01 * k} for k in range(5)],
}
ENSEMBLE = {
    "test": {
        "member:a": _scores(0.85),
        "member:c": _scores(0.93),
        "weighted": _scores(0.95),
        "cascade": _scores(0.946),
    },
    "costs_us": {"a": 1.0, "b": 3.0, "c": 40.0},
    "cascade": CASCADE,
}


def _sections(**changes: Any) -> list[Section]:
    with matplotlib_style():
        return sections({**ENSEMBLE, "cascade": {**CASCADE, **changes}})


def _told(**changes: Any) -> str:
    return " ".join(block.text for block in _sections(**changes)[0].blocks if isinstance(block, Words))


def test_it_says_what_it_costs_and_what_that_costs() -> None:
    told = _told()
    assert "The cascade costs 20.0 µs a row where all members cost 44.0 µs, 55% less" in told
    assert "a and b answer 60% of the rows alone" in told
    assert "fused by weighted too, accuracy changes by −0.40 points (−0.60 to −0.20)." in told
    chance = {"accuracy": {"value": 0.001, "low": -0.002, "high": 0.004}}
    assert "– perhaps by chance." in _told(over_all_members=chance)
    none = {"accuracy": {"value": 0.0, "low": 0.0, "high": 0.0}}
    assert "perhaps" not in _told(over_all_members=none)
    assert "a answers 60% of the rows alone" in _told(stages=[{**CASCADE["stages"][0], "members": ["a"]}])  # type: ignore[index]


def test_each_stage_has_a_line_and_a_share_of_the_rows() -> None:
    (table,) = (block for block in _sections()[0].blocks if isinstance(block, Table))
    assert list(table.rows[0]) == ["1", "a, b", "0.7500", "4.00", Cell("100.0%", 1.0), Cell("60.0%", 0.6)]
    assert list(table.rows[1]) == ["2", "c", "–", "40.0", Cell("40.0%", 0.4), Cell("40.0%", 0.4)]
    assert table.numbers[0] == "agreement at least"


def test_points_say_what_they_are_when_pointed_at() -> None:
    with matplotlib_style():
        plots = _sections()[0].blocks[2].plots  # type: ignore[union-attr]
        drawn = inline(plots[0].figure, "k", plots[0].title)
    assert "one threshold of 0.500 for all stages" in drawn
    assert "accuracy 0.9200, 24.0 µs" in drawn
    for name, figures in (("published", "accuracy 0.9460, 20.0 µs"), ("c", "accuracy 0.9300, 40.0 µs")):
        assert f"<title>{name} {figures}</title>" in drawn


def test_without_a_cascade_or_its_sweep_it_stands() -> None:
    assert sections({}) == []
    assert sections({"cascade": {}}) == []
    assert len(_sections(sweep=[])) == 1
