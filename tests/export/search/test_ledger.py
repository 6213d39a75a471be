"""The trials of a search in their file: drawn again alike, and gone on with after a kill."""

from pathlib import Path

import optuna
import pytest

from export.errors import CorruptLibrary
from export.search.ledger import STARTUP, Ledger
from export.search.spaces import SPACES, Draws, propose
from export.search.trial import Load, Result

N = STARTUP + 3
"""So many that the sampler has begun to learn."""


class Killed(BaseException):
    """As an interruption, which nothing catches."""


def attempt(draws: Draws) -> Result:
    """What came of a trial, by arithmetic and not by training."""
    proposal = propose(SPACES["deeper"], draws, 28)
    layers = [layer.model_dump(mode="json") for layer in proposal.layers]
    result = Result(layers, proposal.learning_rate, proposal.batch_size)
    if proposal.batch_size == 32:
        result.reason = "too slow"
        return result
    n = len(layers)
    result.state = "pruned" if n == 4 else "complete"
    result.load, result.curve, result.accuracy = Load(100 * n, 3.0 * n, 400 * n), [1 / n, 0.5 / n], 0.5
    return result


def drawn(ledger: Ledger) -> list[dict[str, object]]:
    return [entry.params for entry in ledger.entries()]


@pytest.fixture(scope="module", name="whole")
def _whole(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, object]]:
    """What is drawn without an interruption."""
    with Ledger(tmp_path_factory.mktemp("ledger") / "whole.db", seed=7) as ledger:
        entries = [ledger.run(number, attempt) for number in range(N)]
        assert ledger.entries() == entries
        assert {entry.result.state for entry in entries} >= {"complete", "failed"}
        return drawn(ledger)


def test_other_seeds_draw_otherwise(whole: list[dict[str, object]], tmp_path: Path) -> None:
    with Ledger(tmp_path / "other.db", seed=8) as ledger:
        assert ledger.run(0, attempt).params != whole[0]


def test_a_killed_search_goes_on_as_if_it_had_not_been(whole: list[dict[str, object]], tmp_path: Path) -> None:
    at = STARTUP + 1

    def killed(draws: Draws) -> Result:
        attempt(draws)
        raise Killed

    with Ledger(tmp_path / "trials.db", seed=7) as ledger:
        for number in range(at):
            ledger.run(number, attempt)
        with pytest.raises(Killed):
            ledger.run(at, killed)
    with Ledger(tmp_path / "trials.db", seed=7) as ledger:
        assert drawn(ledger) == whole[:at]
        for number in range(at, N):
            ledger.run(number, attempt)
        assert drawn(ledger) == whole


def test_a_trial_counts_once_its_result_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after that, before Optuna is told how it went: it is told when the file is next opened."""

    def killed(study: optuna.Study, *arguments: object, **options: object) -> None:
        raise Killed

    path = tmp_path / "trials.db"
    with Ledger(path, seed=7) as ledger, monkeypatch.context() as patched:
        patched.setattr(optuna.Study, "tell", killed)
        with pytest.raises(Killed):
            ledger.run(0, attempt)
    with Ledger(path, seed=7) as ledger:
        (entry,) = ledger.entries()
        assert ledger.run(1, attempt) == ledger.entries()[1]
        assert ledger.entries()[0] == entry


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "trials.db"
    path.write_bytes(b"not a database, whatever its name says\n" * 30)
    with pytest.raises(
        CorruptLibrary, match=r"trials\.db: expected a search's trials, got: .*; delete it to start over"
    ):
        Ledger(path, seed=7)
