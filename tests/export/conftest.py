from pathlib import Path

import pytest
from rich.console import Console
from rich.progress import Progress

from export.train import train

DIGITS = Path(__file__).parents[2] / "export" / "recipes" / "digits.toml"


@pytest.fixture(name="progress")
def _progress() -> Progress:
    return Progress(console=Console(quiet=True))


@pytest.fixture(scope="session", name="published")
def _published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits recipe, trained and published for real: the version's folder."""
    out = tmp_path_factory.mktemp("models")
    with Progress(console=Console(quiet=True)) as progress:
        return train(DIGITS, out=out, data=None, progress=progress)
