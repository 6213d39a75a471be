from pathlib import Path

import pytest
from rich.console import Console
from rich.progress import Progress

DIGITS = Path(__file__).parents[2] / "export" / "recipes" / "digits.toml"


@pytest.fixture(name="progress")
def _progress() -> Progress:
    return Progress(console=Console(quiet=True))


@pytest.fixture(scope="session", name="published")
def _published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits recipe, trained and published for real: the version's folder."""
    from export.recipe import load_recipe
    from export.run import Run
    from export.steps import train

    out = tmp_path_factory.mktemp("models")
    with Progress(console=Console(quiet=True)) as progress:
        run = Run(load_recipe(DIGITS), work=tmp_path_factory.mktemp("runs"), data=None, progress=progress)
        (folder,) = train(run, out)
    return folder
