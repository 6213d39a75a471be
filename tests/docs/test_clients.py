"""The page of clients: every block runs as it stands there, against a server of the shipped ensembles."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.app import create_app
from server.settings import Settings
from tests.server.served_http import SECONDS, served

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "clients.md"
BLOCKS = re.findall(r"^## (.*?)$.*?^```(\w+)\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
PROGRAMS = {
    "python": (sys.executable, "-W", "error", "-c"),
    "sh": ("bash", "-euo", "pipefail", "-c"),
    "js": ("node", "--input-type=module", "-e"),
}


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with served(create_app(Settings(models=ROOT / "models"))) as server:
        yield server.port


@pytest.mark.parametrize(("title", "language", "block"), BLOCKS, ids=[title for title, *_ in BLOCKS])
def test_a_block(port: int, title: str, language: str, block: str) -> None:
    program = PROGRAMS[language]
    if shutil.which(program[0]) is None:
        pytest.skip(f"{program[0]} is not there")
    assert "127.0.0.1:8000" in block
    code = block.replace("127.0.0.1:8000", f"127.0.0.1:{port}")
    done = subprocess.run([*program, code], cwd=ROOT, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_every_block_is_run() -> None:
    assert len(BLOCKS) == PAGE.read_text().count("\n```") // 2 == 6
