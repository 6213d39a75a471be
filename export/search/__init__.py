"""The search for networks that are good, fast and small at once."""

from export.search.front import Found, pick
from export.search.study import run_search

__all__ = ["Found", "pick", "run_search"]
