from typing import Any

from export.page.blocks import Section, Table, Words
from export.page.selective import sections
from export.page.svg import inline, matplotlib_style

POINTS = [
    {"threshold": 0.0, "share": 1.0, "accuracy": 0.9},
    {"threshold": 0.6, "share": 0.9, "accuracy": 0.95},
    {"threshold": 0.8, "share": 0.75, "accuracy": 0.99},
]


def _sections(found: dict[str, Any]) -> list[Section]:
    with matplotlib_style():
        return sections({"default_strategy": "average", "selective": found})


def test_it_says_what_the_surest_rows_are_worth() -> None:
    (section,) = _sections({"average": POINTS, "member:a": POINTS})
    told = " ".join(block.text for block in section.blocks if isinstance(block, Words))
    assert "On all test rows average is right on 90.0%" in told
    assert "on the surest 90% of them, of a confidence of 0.600 or more, on 95.0%" in told
    assert "on the surest 75% of them, of a confidence of 0.800 or more, on 99.0%" in told
    (table,) = (block for block in section.blocks if isinstance(block, Table))
    assert list(table.rows[1]) == ["0.6000", "90.0%", "0.9500"]


def test_points_say_what_they_are_when_pointed_at() -> None:
    (section,) = _sections({"average": POINTS, "member:a": POINTS[:1]})
    with matplotlib_style():
        drawn = [inline(plot.figure, "k", plot.title) for plot in section.blocks[2].plots]  # type: ignore[union-attr]
    for svg in drawn:
        assert "confidence 0.8000 or more" in svg
        assert "75.0% answered, right on 99.00%" in svg
    assert "<title>a</title>" in drawn[0]


def test_of_one_confidence_there_is_one_point_and_without_figures_no_section() -> None:
    (section,) = _sections({"average": POINTS[:1]})
    told = section.blocks[0]
    assert isinstance(told, Words)
    assert told.text == "On all test rows average is right on 90.0%."
    assert _sections({}) == []
    assert _sections({"member:a": POINTS}) == []
    assert sections({}) == []
