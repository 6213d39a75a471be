import os
import re
from pathlib import Path

import pytest

from tests.chaos.report import Line, show, write

LINES = pytest.StashKey[list[Line]]()


@pytest.fixture
def line(request: pytest.FixtureRequest) -> Line:
    """What the test says of its fault, to be shown at the end; the fault is what the test is called."""
    line = Line(re.sub(r"[\[\]_]", " ", request.node.name.removeprefix("test_")).strip())
    request.config.stash.setdefault(LINES, []).append(line)
    return line


def pytest_terminal_summary(config: pytest.Config) -> None:
    lines = config.stash.get(LINES, [])
    if lines:
        show(lines)
    if path := os.environ.get("CHAOS_FIGURES"):
        write(lines, Path(path))
