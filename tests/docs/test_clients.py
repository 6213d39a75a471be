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
TRANSCRIPTS = re.findall(r"^```console\n\$ python (\S+)\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"\b\d\.\d{4}\b")
BLOCKS = re.findall(r"^## (.*?)$.*?^```(python|sh|js)\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
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


@pytest.mark.parametrize(("program", "shown"), TRANSCRIPTS, ids=[program for program, _ in TRANSCRIPTS])
def test_a_transcript(server: RpcServed, program: str, shown: str) -> None:
    python = environments.kserve() if "kserve" in program else sys.executable
    command = [python, "-W", "error", program, f"127.0.0.1:{server.http.port}", server.address]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stderr
    assert NUMBER.sub("…", done.stdout) == NUMBER.sub("…", shown)
    said, expected = ([float(number) for number in NUMBER.findall(text)] for text in (done.stdout, shown))
    assert said == pytest.approx(expected, abs=2e-4)


def test_every_block_is_run() -> None:
    assert (len(BLOCKS), len(TRANSCRIPTS)) == (7, 2)
    assert PAGE.read_text().count("\n```") == 2 * (len(BLOCKS) + len(TRANSCRIPTS))
