"""The trials of a search, kept by Optuna in an SQLite file: what was tried, and what to try next."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import optuna
from optuna.trial import TrialState

from export.errors import CorruptLibrary
from export.search.spaces import Draws
from export.search.trial import Result
from server.errors import first_line

RESULT = "result"
"""The attribute that makes a trial count: it is written before Optuna hears how the trial went, so that a process may
be killed in between."""
STARTUP = 8
"""Trials drawn evenly before the sampler learns from them."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A trial that counts; `params` are what was drawn for it."""

    params: dict[str, Any]
    result: Result


class Ledger:
    """One search's trials. One process at a time may write to it.

    What is drawn comes of the seed and of the trials before alone, by multi-objective TPE (Ozaki et al. 2022), so a
    search that was killed goes on as if it had not been.
    """

    def __init__(self, path: Path, *, seed: int) -> None:
        """Opens the file, or makes it. Raises CorruptLibrary."""
        self._seed = seed
        path.parent.mkdir(parents=True, exist_ok=True)
        level = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.ERROR)  # it logs each study that it makes or finds
        try:
            self._storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
            self._study = optuna.create_study(
                storage=self._storage, study_name="search", directions=["minimize"] * 3, load_if_exists=True
            )
        except Exception as exc:  # SQLAlchemy's, or Optuna's own
            raise CorruptLibrary(
                f"{path}: expected a search's trials, got: {first_line(exc)}; delete it to start over"
            ) from exc
        finally:
            optuna.logging.set_verbosity(level)
        for trial in self._study.get_trials(states=(TrialState.RUNNING,)):
            self._settle(trial)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._storage.remove_session()
        self._storage.engine.dispose()

    def entries(self) -> list[Entry]:
        """Those that count, in the order in which they were tried."""
        return [
            Entry(trial.params, Result.from_json(trial.user_attrs[RESULT]))
            for trial in self._study.get_trials(deepcopy=False)
            if RESULT in trial.user_attrs
        ]

    def run(self, number: int, attempt: Callable[[Draws], Result]) -> Entry:
        """One more trial, the one of this number: what `attempt` makes of what it draws."""
        (own_seed,) = np.random.SeedSequence([self._seed, number]).generate_state(1)
        self._study.sampler = optuna.samplers.TPESampler(seed=int(own_seed), n_startup_trials=STARTUP)
        trial = self._study.ask()
        result = attempt(trial)
        trial.set_user_attr(RESULT, result.as_json())
        self._settle(trial)
        return Entry(trial.params, result)

    def _settle(self, trial: Any) -> None:
        """Tell Optuna how a trial went; one that was killed has failed."""
        found = trial.user_attrs.get(RESULT)
        result = None if found is None else Result.from_json(found)
        if result is None or result.state == "failed":
            self._study.tell(trial.number, state=TrialState.FAIL)
        elif result.state == "pruned":
            self._study.tell(trial.number, state=TrialState.PRUNED)
        else:
            self._study.tell(trial.number, _objectives(result))


def _objectives(result: Result) -> list[float]:
    """Log-loss, steps of cost and bytes, all three by logarithms, so that the sampler weighs ratios."""
    assert result.load is not None
    return [math.log(max(result.curve[-1], 1e-9)), float(result.load.cost_steps), math.log(result.load.bytes)]
