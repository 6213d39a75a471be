"""What is asked of an ensemble that is evaluated, its strategies, members, subsets and thresholds, and the answers.

Every answer is that of a request with these options: `server.plan` makes the plan, `server.predicting` drives it. The
members' answers are recorded once; only for what it costs is a plan really run, members and all.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from time import perf_counter, thread_time
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from export.errors import Mismatch
from server.ensemble import Ensemble
from server.errors import InvalidInput
from server.fusion import CASCADE, STACKING
from server.plan import Options, Plan, make_plan
from server.predicting import Ask, drive, predict
from server.prediction import FALLBACK, Prediction
from server.rows import Rows

Kind = Literal["strategy", "member", "subset", "cascade"]

BATCH = 64
ALL_SUBSETS_UP_TO = 6
"""Members of which every subset is asked by default; of more, each left out and each alone."""
THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
"""Of a cascade."""
REPEATS = 30
LEAST_REPEATS = 5
SECONDS = 120.0
"""Of measuring; when they are over, at least `LEAST_REPEATS` are made."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One plan, and what it is called among those of its kind."""

    kind: Kind
    name: str
    plan: Plan
    threshold: float | None = None
    """Of a cascade, in place of the manifest's."""

    @property
    def key(self) -> str:
        return f"{self.kind}:{self.name}"


@dataclass(frozen=True, slots=True)
class Subject:
    """An ensemble and the rows as it reads them, with what its members answer: `(n_members, n, n_outputs)`."""

    ensemble: Ensemble
    x: Rows
    answers: NDArray[np.float32]


def asked_of(
    ensemble: Ensemble, subsets: Sequence[Sequence[str]] = (), thresholds: Sequence[float] = ()
) -> list[Asked]:
    """Every strategy and every member alone, then subsets of the members, then thresholds of the cascade.

    `subsets` are asked in place of those by default; `thresholds` beside those by default. Raises Mismatch for a name
    that is no member's, and for thresholds of an ensemble without a cascade.
    """
    asked = [Asked("strategy", name, make_plan(ensemble, Options(strategy=name))) for name in ensemble.strategies]
    alone = ensemble.strategies[0]  # the mean, of one member its own answer
    for name in ensemble.names:
        asked.append(Asked("member", name, make_plan(ensemble, Options(strategy=alone, members=[name]))))
    asked += _subsets(ensemble, subsets)
    if thresholds and CASCADE not in ensemble.strategies:
        raise Mismatch(f"--threshold: expected an ensemble with a cascade; {ensemble.where} has none")
    if CASCADE in ensemble.strategies:
        for threshold in sorted({*THRESHOLDS, *thresholds}):
            plan = make_plan(ensemble, Options(strategy=CASCADE, cascade_threshold=threshold))
            asked.append(Asked("cascade", f"cascade {threshold:g}", plan, threshold))
    return asked


def subset_strategy(ensemble: Ensemble) -> str:
    """What subsets are fused by: the default strategy, or what stands in for one that takes no subset."""
    manifest = ensemble.manifest
    if manifest.default_strategy == CASCADE and manifest.cascade is not None:
        return manifest.cascade.strategy
    return FALLBACK if manifest.default_strategy == STACKING else manifest.default_strategy


def default_of(ensemble: Ensemble) -> Asked:
    """What a request gets that asks for nothing in particular."""
    return Asked("strategy", ensemble.manifest.default_strategy, make_plan(ensemble, Options()))


def _subsets(ensemble: Ensemble, named: Sequence[Sequence[str]]) -> list[Asked]:
    strategy = subset_strategy(ensemble)
    found = {}
    for names in named or _usual_subsets(ensemble.names):
        try:
            plan = make_plan(ensemble, Options(strategy=strategy, members=names))
        except InvalidInput as exc:
            raise Mismatch(f"--members {','.join(names)}: {ensemble.where}: {exc.message}") from exc
        name = " + ".join(ensemble.names[index] for index in plan.members)
        found[name] = Asked("subset", name, plan)
    return list(found.values())


def _usual_subsets(names: Sequence[str]) -> Iterator[Sequence[str]]:
    """Small ones first, but not all members, which the strategies ask."""
    n = len(names)
    for size in range(1, n) if n <= ALL_SUBSETS_UP_TO else (1, n - 1):
        yield from combinations(names, size)


# ---- Answers --------------------------------------------------------------------------------------------------------


def record(ensemble: Ensemble, x: Rows, advance: Callable[[int], None]) -> Subject:
    """Run every member on every row, once, in batches; `advance` is told how many rows each had."""
    answers = np.empty((len(ensemble.names), len(x), len(ensemble.manifest.outputs)), dtype=np.float32)
    for start in range(0, len(x), BATCH):
        part = slice(start, start + BATCH)
        answers[:, part] = ensemble.run(x[part])
        advance(len(x[part]))
    return Subject(ensemble, x, answers)


def answer(subject: Subject, plan: Plan) -> Prediction:
    """What the ensemble answers to the rows, of what its members have answered. Raises MemberFailed."""

    def recorded(ask: Ask) -> NDArray[np.float32]:
        answers = subject.answers[list(ask.members)]
        return answers if ask.rows is None else answers[:, ask.rows]

    return drive(subject.ensemble, plan, len(subject.x), recorded)


def measure(
    plans: Mapping[str, tuple[Subject, Plan]], *, seed: int, advance: Callable[[], None] = lambda: None
) -> dict[str, NDArray[np.float64]]:
    """By plan, the microseconds a row of each of at most `REPEATS` batches of `BATCH` rows, the same for all.

    Processor time of this thread, as in `export.costs`, of all that a prediction takes: members and fusion. The rows
    are shuffled by `seed`, for a cascade's cost depends on them; the plans take turns, batch by batch, each time in
    another order, for what ran before leaves its traces in the caches. `advance` is called after each batch. Raises
    MemberFailed.
    """
    n_rows = len(next(iter(plans.values()))[0].x)
    generator = np.random.default_rng(seed)
    order = generator.permutation(n_rows)
    size = min(BATCH, n_rows)
    taken: dict[str, list[float]] = {key: [] for key in plans}
    began = perf_counter()
    for repeat in range(REPEATS + 1):
        rows = order[(repeat * size + np.arange(size)) % n_rows]
        for key in generator.permutation(list(plans)).tolist():
            subject, plan = plans[key]
            batch = subject.x[rows]
            start = thread_time()
            predict(subject.ensemble, batch, plan)
            taken[key].append((thread_time() - start) / size * 1e6)
        advance()
        if repeat >= LEAST_REPEATS and perf_counter() - began > SECONDS:
            break
    # Without the first call of each, which warms up.
    return {key: np.array(times[1:]) for key, times in taken.items()}
