"""Which versions of which libraries are at work."""

import importlib.metadata
from collections.abc import Iterable
from functools import cache


def versions(names: Iterable[str]) -> dict[str, str]:
    """Those of these distributions that are installed."""
    installed = _installed()
    return {name: installed[name] for name in names if name in installed}


@cache
def _installed() -> dict[str, str]:
    return {found.metadata["Name"].lower(): found.version for found in importlib.metadata.distributions()}
