"""The page for contributors: its strategy is registered as it stands there, and answers a request."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

from server import fusion
from server.app import create_app
from server.settings import Settings
from tests import tiny
from tests.server.rest.client import Client

PAGE = Path(__file__).parents[2] / "docs" / "contributing.md"
BLOCK = re.compile(r"^## A strategy in 15 lines$.*?^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(name="block")
def _block() -> str:
    (block,) = BLOCK.findall(PAGE.read_text())
    return str(block)


@pytest.fixture(name="strategy")
def _strategy(block: str) -> Iterator[str]:
    """Its name, as long as it is there."""
    before = dict(fusion.STRATEGIES)
    exec(block, dict(vars(fusion)))
    (added,) = fusion.STRATEGIES.keys() - before.keys()
    yield added
    fusion.STRATEGIES.clear()
    fusion.STRATEGIES.update(before)


def test_it_is_as_short_as_the_page_says(block: str) -> None:
    assert len(block.splitlines()) <= 15


def test_it_answers_a_request(strategy: str, tmp_path: Path) -> None:
    tiny.write_ensemble(tmp_path)
    x = tiny.rows(3)
    with Client(create_app(Settings(models=tmp_path, default="tiny"))) as client:
        answer = client.post(f"/predict?strategy={strategy}", json={"instances": x.tolist()}).json()
        described = client.get("/v1/ensembles/tiny").json()["strategies"][strategy]
    assert answer["strategy"] == strategy
    lowest = tiny.answers(x, 3).min(axis=0)
    expected = lowest / lowest.sum(axis=1, keepdims=True)
    assert_allclose([row["probabilities"] for row in answer["predictions"]], expected, rtol=1e-4)
    assert [row["label"] for row in answer["predictions"]] == [tiny.CLASSES[k] for k in expected.argmax(axis=1)]
    assert described["summary"].startswith("Lowest of the members' probabilities")


def test_it_keeps_the_laws_of_one_member_and_of_its_copies(strategy: str) -> None:
    answers = tiny.answers(tiny.rows(5), 1)
    for copies in (1, 3):
        fused = fusion.fuse(strategy, np.repeat(answers, copies, axis=0))
        assert_allclose(fused.probabilities, answers[0], atol=1e-6)


def test_it_is_gone_afterwards() -> None:
    assert "min" not in fusion.STRATEGIES
