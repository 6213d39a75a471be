"""Axes in the report's manner: measured in pixels, their title above, no more ink than needed."""

from collections.abc import Iterable, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from export.page.svg import INK, LINE, SERIES, SOFT

WIDE, HALF = 800, 430
"""Widths in pixels: of the page's column, and of half of it."""
ACCENT = SERIES[0]
LETTER, LINE_HEIGHT = 6.3, 13
"""Pixels that a letter of a label takes, about, and its line."""


def axes(
    x: str, y: str, *, width: int = HALF, height: int = 290, left: float = 52, right: float = 14, top: float = 34
) -> Any:
    """Axes of their own figure: `x` names what goes to the right, `y`, above, what goes up."""
    figure = Figure(figsize=(width / 72, height / 72), dpi=72, frameon=False)
    bottom = 44
    box = (left / width, bottom / height, (width - left - right) / width, (height - top - bottom) / height)
    drawn = figure.add_axes(box)
    drawn.set_title(y, loc="left", x=-left / (width - left - right), fontsize=12, color=SOFT, pad=14)
    drawn.set_xlabel(x, loc="right", fontsize=11, labelpad=7)
    drawn.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    drawn.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    drawn.grid(visible=False, axis="x")
    return drawn


def rows_of(names: Sequence[str], x: str, *, width: int = HALF, right: float = 20) -> Any:
    """Axes with a line a name, the first on top, for dots and bars to the right of it."""
    left = min(max([40.0, *(len(name) * LETTER + 14 for name in names)]), width * 0.45)
    drawn = axes(x, "", width=width, height=58 + 26 * len(names), left=left, right=right, top=12)
    drawn.set_ylim(len(names) - 0.5, -0.5)
    drawn.yaxis.set_major_locator(FixedLocator(range(len(names))))
    drawn.set_yticklabels([short(name) for name in names], color=INK)
    drawn.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
    return drawn


def logarithmic(axis: Any, low: float, high: float) -> None:
    """Make an axis logarithmic from a little below `low` to a little above `high`, its ticks plain numbers."""
    margin = max((high / low) ** 0.06, 1.06)
    narrow = high / low < 2
    subs = (1, 2, 3, 5, 7) if high / low < 20 else (1, 2, 5) if high / low < 1000 else (1,)
    axis.axes.set(**{f"{axis.axis_name}scale": "log", f"{axis.axis_name}lim": (low / margin, high * margin)})
    axis.set_major_locator(MaxNLocator(5) if narrow else LogLocator(subs=subs))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())


def whole(axis: Any) -> None:
    """Ticks at whole numbers only."""
    axis.set_major_locator(MaxNLocator(6, integer=True))


def legend(drawn: Any, *, columns: int = 6) -> None:
    """Above the axes, at their right."""
    drawn.legend(
        loc="lower right",
        bbox_to_anchor=(1.0, 1.01),
        ncols=columns,
        borderaxespad=0,
        handletextpad=0.4,
        handlelength=1.4,
        columnspacing=1.4,
    )


def front(places: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Of `(cost, loss)` places, those that none beats in both: dearer ones are better."""
    kept: list[tuple[float, float]] = []
    for place in sorted(places):
        if not kept or place[1] < kept[-1][1]:
            kept.append(place)
    return kept


def draw_front(drawn: Any, places: Iterable[tuple[float, float]], *, higher: bool = False) -> None:
    """The staircase under which nothing was found; above which, if `higher` is better."""
    sign = -1 if higher else 1
    steps = front((x, sign * y) for x, y in places)
    drawn.plot(
        [x for x, _ in steps],
        [sign * y for _, y in steps],
        drawstyle="steps-post",
        color=ACCENT,
        linewidth=1.5,
        alpha=0.6,
        zorder=1.5,
    )


def label(
    drawn: Any, points: Iterable[tuple[float, float, str]], *, others: Iterable[tuple[float, float]] = ()
) -> None:
    """Names beside `(x, y, name)` points where they cover no point and no other name; without room there is none."""
    wanted = list(points)
    drawn.get_xlim(), drawn.get_ylim()  # brings the scales up to date
    places = [tuple(drawn.transData.transform(xy)) for xy in [*((x, y) for x, y, _ in wanted), *others]]
    taken = [(px - 5, py - 5, px + 5, py + 5) for px, py in places]
    area = drawn.get_window_extent()
    for (px, py), (x, y, name) in zip(places, wanted, strict=False):
        text = short(name)
        breadth = len(text) * LETTER
        for dx, dy, ha in ((-7, -11, "right"), (-9, 0, "right"), (0, -14, "center"), (7, 11, "left"), (9, 0, "left"),
                           (0, 14, "center"), (7, -11, "left"), (-7, 11, "right")):  # fmt: skip
            start = px + dx - {"left": 0, "center": breadth / 2, "right": breadth}[ha]
            box = (start, py + dy - LINE_HEIGHT / 2, start + breadth, py + dy + LINE_HEIGHT / 2)
            inside = area.x0 <= box[0] and box[2] <= area.x1 + 10 and area.y0 <= box[1] and box[3] <= area.y1 + 8
            if inside and not any(_overlap(box, other) for other in taken):
                drawn.annotate(
                    text, (x, y), (dx, dy), textcoords="offset pixels", ha=ha, va="center_baseline", fontsize=11
                )
                taken.append(box)
                break


def short(name: str, longest: int = 26) -> str:
    return name if len(name) <= longest else name[: longest - 1] + "…"


def bars(drawn: Any, values: Sequence[float], labels: Sequence[str], colours: str | Sequence[str]) -> None:
    """From zero, one a line of `rows_of`, each with its label at its end."""
    zero_line(drawn)
    drawn.barh(range(len(values)), values, height=0.5, color=colours)
    for k, (value, text) in enumerate(zip(values, labels, strict=True)):
        drawn.annotate(
            text, (value, k), (5, 0), textcoords="offset pixels", va="center_baseline", fontsize=11, color=SOFT
        )


def zero_line(drawn: Any, at: float = 0.0) -> None:
    drawn.axvline(at, color=LINE, linewidth=1.5, zorder=1)


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
