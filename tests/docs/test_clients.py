"""The page of clients: every block runs as it stands there, against a server of the shipped ensembles."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import environments
from tests.server.rpc.served import SECONDS, RpcServed, serving

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "clients.md"
BLOCKS = re.findall(r"^## (.*?)$.*?^```(\w+)\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
PROGRAMS = {
    "python": (sys.executable, "-W", "error", "-c"),
    "sh": ("bash", "-euo", "pipefail", "-c"),
    "js": ("node", "--input-type=module", "-e"),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RpcServed]:
    shipped = ("--models", str(ROOT / "models"), "--default", "fashion", "--workers", "1")
    with serving(tmp_path_factory.mktemp("clients"), *shipped) as served:
        yield served


@pytest.mark.parametrize(("title", "language", "block"), BLOCKS, ids=[title for title, *_ in BLOCKS])
def test_a_block(server: RpcServed, title: str, language: str, block: str) -> None:
    program = PROGRAMS[language]
    if "from kserve" in block:
        program = (environments.kserve(), *program[1:])
    if shutil.which(program[0]) is None:
        pytest.skip(f"{program[0]} is not there")
    assert "127.0.0.1:8000" in block
    code = block.replace("127.0.0.1:8000", f"127.0.0.1:{server.http.port}").replace("127.0.0.1:8001", server.address)
    done = subprocess.run([*program, code], cwd=ROOT, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_every_block_is_run() -> None:
    assert len(BLOCKS) == PAGE.read_text().count("\n```") // 2 == 7
