"""What abstaining is worth: how often an ensemble is right where it answers the rows it is surest of, and no others."""

from collections.abc import Mapping, Sequence
from typing import Any

from export.page import words
from export.page.answers import MEMBER, plain
from export.page.blocks import Block, Plot, Plots, Section, Table, Words
from export.page.charts import ACCENT, axes, legend
from export.page.svg import INK, SOFT, tip

Points = Sequence[Mapping[str, float]]
"""By threshold, all rows first: `threshold`, `share` of the rows that are answered, `accuracy` on these."""
TOLD = (0.9, 0.8)
"""Shares of the rows that words are made of."""


def sections(ensemble: Mapping[str, Any]) -> list[Section]:
    found, default = ensemble.get("selective") or {}, str(ensemble.get("default_strategy", ""))
    points: Points = found.get(default) or []
    if not points:
        return []
    members = {plain(name): each for name, each in found.items() if name.startswith(MEMBER)}
    about = "A row whose confidence is under a threshold gets no answer: abstain_below asks for that. "
    about += "What is answered is right more often, if confidence is worth anything."
    blocks: list[Block] = [
        Words(_told(default, points)),
        Words(about, soft=True),
        Plots([_plot(default, points, members), _by_threshold(default, points)]),
        _table(points),
    ]
    return [Section("What if it answers only where it is sure?", blocks)]


def _told(default: str, points: Points) -> str:
    everything = points[0]
    told = f"On all test rows {default} is right on {words.share(everything['accuracy'], 1)}"
    for share in TOLD:
        near = min(points, key=lambda point: abs(point["share"] - share))
        if near is not everything:
            told += (
                f"; on the surest {words.share(near['share'])} of them, of a confidence of "
                f"{words.figure(near['threshold'], 3)} or more, on {words.share(near['accuracy'], 1)}"
            )
    return f"{told}."


def _plot(default: str, points: Points, members: Mapping[str, Points]) -> Plot:
    drawn = axes("share of the rows answered", "accuracy where it answers")
    for number, (name, each) in enumerate(members.items()):
        about = {"label": "member"} if number == 0 else {}
        places = [point["share"] for point in each], [point["accuracy"] for point in each]
        drawn.plot(*places, color=SOFT, linewidth=1.2, alpha=0.55, gid=tip(name), **about)
    drawn.plot(
        [point["share"] for point in points], [point["accuracy"] for point in points], color=ACCENT, label=default
    )
    _dots(drawn, [(point["share"], point) for point in points])
    drawn.set_xlim(0, 1.02)
    legend(drawn)
    says = "To the right all rows are answered; to the left fewer, the surest ones. Above is better."
    return Plot(drawn.figure, "Accuracy against the share answered", says)


def _by_threshold(default: str, points: Points) -> Plot:
    drawn = axes("threshold of the confidence", "share")
    thresholds = [point["threshold"] for point in points]
    for key, colour, name in (("accuracy", ACCENT, "right, of those answered"), ("share", INK, "answered")):
        drawn.plot(thresholds, [point[key] for point in points], color=colour, linewidth=1.5, label=name)
    _dots(drawn, [(point["threshold"], point) for point in points])
    drawn.set(xlim=(0, 1.02), ylim=(0, 1.02))
    legend(drawn)
    return Plot(drawn.figure, "What a threshold does", f"By {default}, on the test rows.")


def _dots(drawn: Any, places: Sequence[tuple[float, Mapping[str, float]]]) -> None:
    for x, point in places:
        drawn.scatter(x, point["accuracy"], s=20, color=ACCENT, linewidths=0, zorder=3, gid=tip(_tip(point)))


def _tip(point: Mapping[str, float]) -> str:
    return (
        f"confidence {words.figure(point['threshold'])} or more\n{words.share(point['share'], 1)} answered, "
        f"right on {words.share(point['accuracy'], 2)}"
    )


def _table(points: Points) -> Table:
    rows = [
        [words.figure(point["threshold"]), words.share(point["share"], 1), words.figure(point["accuracy"])]
        for point in points
    ]
    numbers = ["confidence at least", "rows answered", "accuracy"]
    return Table("By threshold, on the test rows.", [], numbers, rows, folded=True)
