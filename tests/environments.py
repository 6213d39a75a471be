"""The environments beside the one that runs the tests."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def kserve() -> str:
    """The Python that KServe's own client is installed for, which cannot share an environment with the tests."""
    folders = [ROOT / ".venv", Path(sys.prefix).parent]
    found = [folder / "kserve" / "bin" / "python" for folder in folders if (folder / "kserve" / ".installed").exists()]
    assert found, "expected KServe's client in .venv/kserve; `make kserve` installs it there"
    return str(found[0])
