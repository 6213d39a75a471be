"""How messages quote what came, and what was expected: always of bounded length."""

import difflib
from collections.abc import Sequence

NAMED = 10
"""How many names a message lists before it only counts them."""
COMPARED, LETTERS = 200, 32
"""How many names a misspelt one is compared with, and how much of each: it is slow, and anyone can ask for it."""


def shown(value: object) -> str:
    """A JSON value as a message may quote it."""
    match value:
        case None | bool():
            return {None: "null", True: "true", False: "false"}[value]
        case str():
            return f"the string {value!r}" if len(value) <= 64 else f"a string of {len(value)} characters"
        case list():
            return f"an array of {len(value)}"
        case dict():
            return f"an object of {len(value)} fields"
        case int() if value.bit_length() > 128:
            return f"an integer of {value.bit_length()} bits"
        case _:
            return repr(value)


def named(name: str) -> str:
    """A name that a client chose, of a file or a column, as a message may quote it."""
    return repr(name if len(name) <= 64 else name[:63] + "…")


def listed(names: Sequence[str], came: str | None = None) -> str:
    """The names that are expected; of many, those nearest to what `came`, else the first."""
    if len(names) <= NAMED:
        return ", ".join(map(named, names))
    near = _nearest(names, came.casefold()[:LETTERS]) if came else []
    return f"{', '.join(map(named, near or names[:NAMED]))}, … ({len(names)} in all)"


def _nearest(names: Sequence[str], came: str) -> list[str]:
    folded = {name.casefold()[:LETTERS]: name for name in names}
    alike = [name for name in folded if name[:1] == came[:1]]
    candidates = alike if len(folded) > COMPARED else list(folded)
    near = difflib.get_close_matches(came, candidates[:COMPARED], n=3, cutoff=0.5)
    return [folded[name] for name in near]
