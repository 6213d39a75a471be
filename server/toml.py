"""TOML files read strictly into pydantic models, with errors that fit on one line."""

import tomllib
from collections import Counter
from collections.abc import Hashable, Iterable
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

T = TypeVar("T", bound=Hashable)
M = TypeVar("M", bound="Table")

KEY_LIMIT = 128
REASON_LIMIT = 300
"""Characters of a key, and of what the parser says, that a message quotes."""


class Table(BaseModel):
    """A TOML table: no field but those declared, no value of another type, nothing changed afterwards."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def parse_toml(model: type[M], data: bytes) -> M:
    """Read a file's bytes.

    Raises ValueError in one line: the field, what was expected, and what came.
    """
    try:
        return model.model_validate(tomllib.loads(data.decode()))
    except UnicodeDecodeError as exc:
        raise ValueError(f"expected UTF-8, got byte {data[exc.start]:#04x} at {exc.start}") from exc
    except ValidationError as exc:
        first = exc.errors(include_url=False)[0]
        raise ValueError(f"{_path(first['loc'])}{first['msg']}{_got(first['input'])}") from exc
    except (ValueError, RecursionError) as exc:  # tomllib lets out more than its own TOMLDecodeError
        raise ValueError(f"not TOML: {str(exc)[:REASON_LIMIT]}") from exc


def first_repeated(values: Iterable[T]) -> T | None:
    """The first value that comes more than once, None if each comes once."""
    return next((value for value, count in Counter(values).items() if count > 1), None)


def _path(location: tuple[int | str, ...]) -> str:
    """`("members", 2, "weight")` as `members[2].weight: `."""
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{_on_one_line(step)}" for step in location)
    return f"{path.removeprefix('.')}: " if path else ""


def _on_one_line(key: str) -> str:
    shown = key if len(key) <= KEY_LIMIT else f"{key[:KEY_LIMIT]}…"
    return shown if shown.isprintable() else repr(shown)


def _got(value: object) -> str:
    try:
        shown = repr(value)
    except ValueError:  # an integer of more digits than Python is willing to write
        return ""
    return f", got {shown}" if len(shown) <= 80 and not isinstance(value, dict) else ""
