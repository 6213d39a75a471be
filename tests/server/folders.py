"""Folders of a repository as people, and not the exporter, leave them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from server.manifest import MANIFEST_FILE
from tests import tiny

BY_HAND = f"""
classes = {tiny.CLASSES}

[[members]]
file = "m1.onnx"

[[members]]
file = "m2.onnx"
"""


def write_by_hand(root: Path, text: str = BY_HAND, *, place: str = "tiny/1", **files: bytes) -> Path:
    """Write the first two members of the tiny ensemble with a manifest that lists no files; returns the folder.

    `files` replace graphs, `m2=…`, or add some.
    """
    folder = root / place
    folder.mkdir(parents=True)
    (folder / MANIFEST_FILE).write_text(text)
    members = {f"m{k + 1}": tiny.linear_member(weights) for k, weights in enumerate(tiny.coefficients(2))}
    for name, data in {**members, **files}.items():
        (folder / f"{name}.onnx").write_bytes(data)
    return folder


@contextmanager
def unprivileged() -> Iterator[None]:
    """Root reads everything; be nobody for a while."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
