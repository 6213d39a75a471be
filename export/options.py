"""What `committee-export pack` is told about members on the command line, read into what it means."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from export.adapt import Adaptation
from export.errors import InvalidModel
from server.manifest import NAME_PATTERN
from server.toml import first_repeated


def read_members(given: Sequence[str]) -> dict[str, Path]:
    """Files by the names of their members, from `PATH` or `NAME=PATH`. Raises InvalidModel.

    A name that is not given is that of the file, in letters that a name may have, and with a number if it is taken.
    """
    pairs = [_pair(text) for text in given]
    chosen = [name for name, _ in pairs if name is not None]
    if twice := first_repeated(chosen):
        raise InvalidModel(f"member {twice!r}: expected each name once")
    members: dict[str, Path] = {}
    taken = set(chosen)
    for name, path in pairs:
        if name is None:
            name = _free_name(path, taken)
            taken.add(name)
        members[name] = path
    return members


def read_adaptations(
    members: Sequence[str], scales: Sequence[str], shifts: Sequence[str], logits: Sequence[str]
) -> dict[str, Adaptation]:
    """By member, from `NAME=1/255`, `NAME=0.5,0.25,0.25` and `NAME`. Raises InvalidModel."""
    scale, shift = (dict(_factors(text, option) for text in given) for option, given in _options(scales, shifts))
    for name in [*scale, *shift, *logits]:
        if name not in members:
            raise InvalidModel(f"expected a member, one of {', '.join(members)}; got {name!r}")
    return {
        name: Adaptation(scale.get(name), shift.get(name), name in logits)
        for name in members
        if name in scale or name in shift or name in logits
    }


def _options(scales: Sequence[str], shifts: Sequence[str]) -> tuple[tuple[str, Sequence[str]], ...]:
    return ("--scale", scales), ("--shift", shifts)


def _factors(text: str, option: str) -> tuple[str, NDArray[np.float32]]:
    name, _, factors = text.partition("=")
    try:
        values = [_number(factor) for factor in factors.split(",")]
    except (ValueError, ZeroDivisionError) as exc:
        raise InvalidModel(f"{option}: expected NAME=NUMBER, such as cnn=1/255, got {text!r}") from exc
    return name, np.array(values[0] if len(values) == 1 else values, dtype=np.float32)


def _number(text: str) -> float:
    """`0.5`, or `1/255`."""
    above, slash, below = text.partition("/")
    value = float(above) / float(below) if slash else float(above)
    if not np.isfinite(value):
        raise ValueError(text)
    return value


def _pair(text: str) -> tuple[str | None, Path]:
    name, sign, path = text.partition("=")
    if not sign or Path(text).exists():
        return None, Path(text)
    if not re.fullmatch(NAME_PATTERN, name):
        raise InvalidModel(f"expected a member's name of letters, digits, _ and -, at most 64; got {name!r}")
    return name, Path(path)


def _free_name(path: Path, taken: set[str]) -> str:
    stem = re.sub(r"[^A-Za-z0-9_-]+", "_", path.name if path.is_dir() else path.stem).lstrip("-")[:60] or "model"
    names = (stem if number == 1 else f"{stem}_{number}" for number in range(1, 1000))
    return next(name for name in names if name not in taken)
