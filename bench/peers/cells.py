"""A cell: which rows are sent how, over how many connections, such as `json32@8`."""

import re
from dataclasses import dataclass

KINDS = ("json", "digits", "binary", "mixed")
"""`json`: whole numbers, as pixels are. `digits`: numbers of 17 digits, the dearest to read. `binary`: float32.
`mixed`: JSON, each request with another strategy than the last."""

_NAME = re.compile(rf"({'|'.join(KINDS)})([1-9]\d*)@([1-9]\d*)")


@dataclass(frozen=True, slots=True, order=True)
class Cell:
    kind: str
    rows: int
    connections: int

    def __str__(self) -> str:
        return f"{self.kind}{self.rows}@{self.connections}"

    @property
    def title(self) -> str:
        """For the head of a table."""
        rows = "1 row" if self.rows == 1 else f"{self.rows} rows"
        return f"{rows}, {self.kind}, {self.connections} conn."


def parse(name: str) -> Cell:
    """`json32@8` → the cell. Raises ValueError."""
    match = _NAME.fullmatch(name)
    if match is None:
        raise ValueError(f"expected a cell such as json1@64, of kind {', '.join(KINDS)}; got {name!r}")
    return Cell(match[1], int(match[2]), int(match[3]))


def cells(names: str) -> tuple[Cell, ...]:
    """Of names with spaces between them."""
    return tuple(parse(name) for name in names.split())
