"""JSON, parsed strictly, and never into more memory than is allowed."""

from typing import Any

import jiter
import numpy as np

from server.bounds import Bounds
from server.codec.messages import shown
from server.errors import InvalidInput, TooLarge

LIGHT = 1 << 20
"""Bytes of a body that is parsed unweighed: it becomes 30 times as much at most."""
_BRACKETS = b"[{"
_CONTAINER, _STRING, _NUMBER, _ENTRY, _ITEM = 96, 64, 24, 40, 24
"""Bytes of memory for each: of a float, for one; and for each entry of an object, and each item of anything."""


def parse_object(body: bytes, bounds: Bounds) -> dict[str, Any]:
    """An object of UTF-8, with every key once and no NaN. Raises InvalidInput, and TooLarge as `check_weight` does."""
    check_weight(body, bounds)
    try:
        fields = jiter.from_json(body, catch_duplicate_keys=True, allow_inf_nan=False, cache_mode="keys")
    except ValueError as exc:
        if "recursion limit" in str(exc):
            raise _too_deep(bounds.max_json_depth) from exc
        raise InvalidInput(f"body: expected JSON in UTF-8, every key once, no NaN and no Infinity; {exc}") from exc
    if not isinstance(fields, dict):
        raise InvalidInput(f"body: expected a JSON object; got {shown(fields)}")
    if sum(map(body.count, _BRACKETS)) > bounds.max_json_depth:
        check_depth(fields, bounds.max_json_depth)
    return fields


def check_weight(body: bytes, bounds: Bounds) -> None:
    """Raise TooLarge if the parsed body could take more memory than it may, by its brackets, quotes and commas."""
    if len(body) > LIGHT and (weight := _weigh(body)) > bounds.max_json_memory:
        raise TooLarge(
            f"body: expected JSON of at most {bounds.max_json_memory} bytes once parsed (max_json_memory); got about "
            f"{weight}: send fewer rows, or rows of numbers flat, or as .npy"
        )


def check_depth(fields: dict[str, Any], most: int) -> None:
    """Raise InvalidInput for arrays and objects more than `most` deep."""
    level: list[Any] = [fields]
    for _ in range(most):
        level = [
            item
            for container in level
            for item in (container.values() if isinstance(container, dict) else container)
            if isinstance(item, list | dict)
        ]
        if not level:
            return
    raise _too_deep(most)


def _too_deep(most: int) -> InvalidInput:
    return InvalidInput(f"body: expected JSON at most {most} deep (max_json_depth); got deeper")


def _weigh(body: bytes) -> int:
    text = np.frombuffer(body, np.uint8)
    count = {sign: int(np.count_nonzero(text == sign)) for sign in b'[{",:.-'}
    containers = count[ord("[")] + count[ord("{")]
    # A float has a point, or else (1e5) as many bytes as would weigh the same; of whole numbers only the small ones,
    # and no negative ones, are Python's own already.
    numbers = max(count[ord(".")], count[ord("-")])
    return (
        _CONTAINER * containers
        + _STRING * (count[ord('"')] // 2)
        + _NUMBER * numbers
        + _ENTRY * count[ord(":")]
        + _ITEM * (count[ord(",")] + containers)
    )
