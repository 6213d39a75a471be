"""An environment for each peer, made once from its list of exact versions."""

import subprocess
import sys
from pathlib import Path

from bench.peers.workloads import ROOT, WORK

REQUIREMENTS = Path(__file__).with_name("requirements")
MARK = ".installed"
"""Holds the list that was installed: another list makes the environment anew."""


class NotInstalled(Exception):
    pass


def python(name: str) -> Path:
    """The interpreter of an environment; `serve` is Committee's own, of `make serve`."""
    return (ROOT / ".venv" / name if name == "serve" else WORK / "venv" / name) / "bin" / "python"


def is_installed(name: str) -> bool:
    """Whether it is there, and of the versions that are listed."""
    folder = python(name).parents[1]
    mark = folder / MARK
    return mark.exists() and (name == "serve" or mark.read_text() == (REQUIREMENTS / f"{name}.txt").read_text())


def install(name: str) -> None:
    """Make an environment, if it is not there. Raises NotInstalled with the last of what pip said."""
    if is_installed(name):
        return
    if name == "serve":
        raise NotInstalled("expected Committee's own environment: make .venv/serve/.installed")
    listed = REQUIREMENTS / f"{name}.txt"
    folder = python(name).parents[1]
    commands = [
        [sys.executable, "-m", "venv", "--clear", str(folder)],
        [str(python(name)), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(listed)],
    ]
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise NotInstalled(f"{listed.name}: {done.stderr.strip()[-400:]}")
    (folder / MARK).write_text(listed.read_text())
