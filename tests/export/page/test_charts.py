import re
from xml.etree import ElementTree

from export.page.charts import axes, front, label, logarithmic
from export.page.svg import INK, inline, matplotlib_style, tip


def test_the_front_is_what_nothing_beats_in_both() -> None:
    assert front([(3, 1.0), (1, 3.0), (2, 3.5), (2, 2.0), (4, 1.0)]) == [(1, 3.0), (2, 2.0), (3, 1.0)]


def test_a_drawing_takes_its_colours_from_the_page_and_its_tips_become_titles() -> None:
    with matplotlib_style():
        drawn = axes("x", "y")
        drawn.scatter([1, 2], [1, 2], color=INK, gid=tip('"a" <b> & c'))
        svg = inline(drawn.figure, "p1", "a plot")
    root = ElementTree.fromstring(svg)
    assert root.attrib["aria-label"] == "a plot"
    assert "var(--ink)" in svg
    assert not re.search(r"#fe01|font-family|xmlns|http", svg)
    assert [title.text for title in root.iter("title")] == ['"a" <b> & c']


def test_two_drawings_share_no_id() -> None:
    with matplotlib_style():
        drawn = axes("x", "y")
        drawn.plot([1, 2], [1, 2], "o")
        pages = [inline(drawn.figure, key, "") for key in ("p1", "p2")]
    first, second = (set(re.findall(r'id="([^"]+)"', page)) for page in pages)
    assert first
    assert not first & second


def test_names_that_find_no_room_are_left_out() -> None:
    with matplotlib_style():
        drawn = axes("x", "y")
        drawn.set(xlim=(0, 1), ylim=(0, 1))
        label(drawn, [(0.5, 0.5, f"name {k}") for k in range(40)])
    shown = [text.get_text() for text in drawn.texts]
    assert 0 < len(shown) < 40


def test_a_logarithmic_axis_has_plain_numbers_in_a_wide_range_and_in_a_narrow_one() -> None:
    for low, high in ((0.2, 900.0), (20.0, 24.0), (1e-1, 1e5)):
        with matplotlib_style():
            drawn = axes("x", "y")
            logarithmic(drawn.xaxis, low, high)
            svg = inline(drawn.figure, "p1", "")
        ticks = [text for text in re.findall(r">([\d.,]+)</text>", svg) if float(text.replace(",", "")) > 0]
        assert len(ticks) >= 3, (low, high)
