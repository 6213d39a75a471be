"""What a page is made of: sections, of words, tables and plots."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Cell:
    """A table's cell. `shade`, 0 to 1: a bar behind the text, or in a `Heat` how deep the colour is."""

    text: str
    shade: float | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """Columns of words come first, then columns of numbers. Rows of `marked` indices stand out."""

    kind = "table"
    caption: str
    words: Sequence[str]
    numbers: Sequence[str]
    rows: Sequence[Sequence[str | Cell]]
    marked: frozenset[int] = frozenset()
    folded: bool = False


@dataclass(frozen=True, slots=True)
class Heat:
    """A matrix whose cells are coloured by what they hold: a table and a picture at once."""

    kind = "heat"
    caption: str
    corner: str
    rows: Sequence[str]
    columns: Sequence[str]
    cells: Sequence[Sequence[Cell]]


@dataclass(frozen=True, slots=True)
class Plot:
    """A matplotlib figure; `title` says what it shows, `says` what is to be seen. Those not `wide` go side by side."""

    kind = "plot"
    figure: Any
    title: str
    says: str = ""
    wide: bool = False


@dataclass(frozen=True, slots=True)
class Tile:
    """One figure, writ large."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Tiles:
    kind = "tiles"
    tiles: Sequence[Tile]


@dataclass(frozen=True, slots=True)
class Plots:
    """Plots side by side, as many as there is room for: two, or three if `small`."""

    kind = "plots"
    plots: Sequence[Plot]
    small: bool = False


@dataclass(frozen=True, slots=True)
class Words:
    """A paragraph; `soft` ones explain, the others conclude."""

    kind = "words"
    text: str
    soft: bool = False


Block = Table | Heat | Plot | Plots | Tiles | Words


@dataclass(frozen=True, slots=True)
class Section:
    title: str
    blocks: Sequence[Block]
    parts: Sequence["Section"] = field(default=())
