"""An ensemble in memory: runs its members on a batch of rows."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from server.contract import check_final_estimator, check_member, n_gates, pair_inputs
from server.errors import InvalidRepository, MemberFailed
from server.fusion import BY_TASK, CASCADE, STACKING
from server.manifest import (
    ANSWERS_INPUT,
    GATES_INPUT,
    MEAN_INPUT,
    REPORT_FILE,
    STACK_INPUT,
    CascadeSpec,
    FinalEstimatorSpec,
    Manifest,
    MemberSpec,
    Task,
)
from server.rows import ELEMENTS, Rows, split_rows
from server.session import CPU, Session, Stop

SUM_TOLERANCE = 1e-3
"""How far a member's probabilities may sum from 1, and one of them lie below 0: some converters leave it at that."""


ROUTES = 256
"""Choices of members of which a graph remembers the way."""


class Ensemble:
    """The members that a manifest names, loaded from the bytes of its files.

    Members that name the same file share its session; `graphs` are sessions that are open already. Raises
    InvalidRepository, naming `where`, if a file is not a graph that ONNX Runtime takes, or if its tensors are not what
    the manifest says. An ensemble of one input gives it to a graph of one input, whatever the graph calls it.
    """

    def __init__(
        self,
        manifest: Manifest,
        files: Mapping[str, bytes],
        *,
        where: str,
        threads: int = 1,
        providers: Sequence[str] = CPU,
        graphs: Mapping[str, Session] | None = None,
        verified: bool = False,
    ) -> None:
        self.manifest = manifest
        self.labels = (manifest.name, manifest.version)
        """By which what becomes of it is counted."""
        self.where = where
        self.verified = verified
        """Whether its files are those that were published, by their hashes, and its recorded answers are replayed."""
        self.names = [member.name for member in manifest.members]
        self.strategies = offered_strategies(manifest)
        """By name, those that a request may ask for."""
        self.temperatures = np.array([member.temperature for member in manifest.members], dtype=np.float32)
        self._weights = {
            strategy: np.array([member.weights.get(strategy, 1.0) for member in manifest.members], dtype=np.float64)
            for strategy in self.strategies
        }
        graphs = graphs or open_graphs(graph_files(manifest), files, where=where, threads=threads, providers=providers)
        by_file = {member.file: graphs[member.file] for member in manifest.members}
        self._graphs = [_Graph(manifest, name, session) for name, session in by_file.items()]
        estimator = manifest.final_estimator
        self.final_estimator = (
            None if estimator is None else FinalEstimator(estimator, manifest, graphs[estimator.file])
        )
        """Makes one answer of those of all members; None if there is none."""
        self.report = _parse_report(files[REPORT_FILE], f"{where}/{REPORT_FILE}") if REPORT_FILE in files else None

    def weights(self, strategy: str) -> NDArray[np.float64]:
        """The manifest's weights `(n_members,)` for a strategy; all ones for one that is not fitted."""
        return self._weights[strategy]

    def run(self, rows: Rows, members: Sequence[int] | None = None, *, stop: Stop | None = None) -> NDArray[np.float32]:
        """Answers `(len(members), n_samples, n_outputs)` of these members, all by default, in this order.

        `rows` is `(n_samples, *shape)`, or a table's `(n_samples,)`; see `server.rows`. A member that is not asked for
        costs nothing. Raises MemberFailed if a graph raises, or answers another shape or something that is no
        distribution; of a regression, no number.
        """
        chosen = tuple(range(len(self.names)) if members is None else members)
        answer, valid = self.ask(rows, chosen, stop)
        if not valid.all():
            self._refuse(answer, valid, chosen)
        return answer

    def ask(
        self, rows: Rows, members: Sequence[int], stop: Stop | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """As `run`, and with it which answers `(len(members), n_samples)` are what answers have to be.

        Raises MemberFailed if a graph raises, is stopped, or answers another shape.
        """
        answer = np.empty((len(members), len(rows), len(self.manifest.outputs)), dtype=np.float32)
        for graph in self._graphs:
            graph.run(rows, tuple(members), answer, stop)
        return answer, are_valid(answer, self.manifest.task)

    def _refuse(self, answer: NDArray[np.float32], valid: NDArray[np.bool_], chosen: Sequence[int]) -> None:
        member, number = np.argwhere(~valid)[0]
        row = on_one_line(answer[member, number])
        expected = "a distribution" if self.manifest.task == "classification" else "numbers"
        raise MemberFailed(
            f"{self.where}: member {self.names[chosen[member]]!r}: expected {expected}, got for row {number} {row}"
        )


class Describes(Protocol):
    """A manifest that is complete, or one that is not yet."""

    @property
    def task(self) -> Task: ...
    @property
    def members(self) -> Sequence["NamesFile"]: ...
    @property
    def final_estimator(self) -> FinalEstimatorSpec | None: ...
    @property
    def cascade(self) -> CascadeSpec | None: ...


class NamesFile(Protocol):
    """A member, of a manifest that is complete or of one that is not yet."""

    @property
    def file(self) -> str: ...


def graph_files(manifest: Describes) -> list[str]:
    """The files that hold its graphs."""
    estimator = [manifest.final_estimator.file] if manifest.final_estimator else []
    return list(dict.fromkeys([*(member.file for member in manifest.members), *estimator]))


def offered_strategies(manifest: Describes) -> list[str]:
    """Those that a request may name: the pools of its task, and what the manifest has what it takes for."""
    pools = [name for name in BY_TASK[manifest.task] if name != STACKING or manifest.final_estimator]
    return [*pools, CASCADE] if manifest.cascade else pools


def open_graphs(
    names: Iterable[str],
    files: Mapping[str, bytes],
    *,
    where: str,
    threads: int = 1,
    providers: Sequence[str] = CPU,
) -> dict[str, Session]:
    """A session for each of these files. Raises InvalidRepository."""
    return {name: Session(files[name], where=f"{where}/{name}", threads=threads, providers=providers) for name in names}


def on_one_line(row: NDArray[np.floating]) -> str:
    """A row `(n,)` of numbers for a message: four digits of each, and the middle left out of a long one."""
    return np.array2string(row, precision=4, threshold=10, max_line_width=sys.maxsize)


def are_valid(answers: NDArray[np.float32], task: Task) -> NDArray[np.bool_]:
    """Which of the rows `(…, n_outputs)` are, but for rounding, probabilities that sum to 1; or all finite."""
    if task == "regression":
        return np.asarray(np.isfinite(answers).all(axis=-1))
    # Neither sum() nor min() along the last axis, which take several times as long, and warn of infinities.
    sums = np.einsum("...c->...", answers)
    valid: NDArray[np.bool_] = np.asarray(np.abs(sums - 1) <= SUM_TOLERANCE)  # NaN compares as false
    if answers.min(initial=0) < -SUM_TOLERANCE:
        valid &= answers.min(axis=-1) >= -SUM_TOLERANCE
    return valid


def are_distributions(probabilities: NDArray[np.float32]) -> bool:
    """Whether all of the rows `(…, n_classes)` are."""
    return bool(are_valid(probabilities, "classification").all())


class FinalEstimator:
    """The learned combiner of stacking. Raises InvalidRepository if the session cannot be it."""

    def __init__(self, spec: FinalEstimatorSpec, manifest: Manifest, session: Session) -> None:
        check_final_estimator(spec, manifest, session)
        self._session, self._output = session, spec.output
        self._feeds: dict[str, NDArray[Any]] = {}
        # A packed graph has the members too: it gets no rows for them, and shut gates.
        for tensor in manifest.inputs:
            if tensor.name in session.inputs:
                self._feeds[tensor.name] = np.empty((0, *tensor.shape), dtype=ELEMENTS[tensor.datatype])
        if GATES_INPUT in session.inputs.keys() | session.optional_inputs.keys():
            self._feeds[GATES_INPUT] = np.zeros(n_gates(session), dtype=np.bool_)
        for switch, on in ((STACK_INPUT, True), (MEAN_INPUT, False)):
            if switch in session.inputs.keys() | session.optional_inputs.keys():
                self._feeds[switch] = np.array([on])

    def __call__(self, answers: NDArray[np.float32], stop: Stop | None = None) -> NDArray[np.float32]:
        """From `(n_members, n, n_outputs)` to `(n, n_outputs)`. Raises MemberFailed, also over what is no answer."""
        feeds = {**self._feeds, ANSWERS_INPUT: np.ascontiguousarray(answers)}
        (stacked,) = self._session.run([self._output], feeds, stop)
        if stacked.shape != answers.shape[1:] or not are_valid(stacked, "classification").all():
            raise MemberFailed(
                f"{self._session.where}: final_estimator: expected distributions of shape {answers.shape[1:]}, "
                f"got shape {stacked.shape}"
                + (": NaN, or no distribution" if stacked.shape == answers.shape[1:] else "")
            )
        return stacked


class _Graph:
    """One file of an ensemble: a session, and which members it answers for."""

    def __init__(self, manifest: Manifest, name: str, session: Session) -> None:
        self._session = session
        self._members = {index: spec for index, spec in enumerate(manifest.members) if spec.file == name}
        for spec in self._members.values():
            check_member(spec, manifest, session)
        # The manifest has it that all of a file's members have a gate, or none.
        gated = next(iter(self._members.values())).gate is not None
        self._inputs = {
            spec.name: tensor for tensor, spec in pair_inputs(manifest.inputs, session, gated=gated).items()
        }
        self._n_gates = n_gates(session) if gated else None
        switches = session.optional_inputs.keys() & {STACK_INPUT, MEAN_INPUT}
        self._shut = dict.fromkeys(switches, np.zeros(1, dtype=np.bool_))
        self._what = "probabilities" if manifest.task == "classification" else "values"
        # Bound to no method of this, which so is in no cycle: a graph that is served no more goes with its last user.
        self._route = lru_cache(ROUTES)(partial(_find_route, self._members, self._shut, self._n_gates))

    def run(self, rows: Rows, chosen: tuple[int, ...], answer: NDArray[np.float32], stop: Stop | None = None) -> None:
        """Run those of the `chosen` members that are in this file, and write what they answer to their places."""
        route = self._route(chosen)
        if not route.members:
            return
        feeds = {self._inputs[name]: tensor for name, tensor in split_rows(rows, self._inputs).items()}
        feeds.update(route.feeds)
        expected = answer.shape[1:] if self._n_gates is None else (self._n_gates, *answer.shape[1:])
        outputs = self._session.run(route.outputs, feeds, stop)
        for name, moves, output in zip(route.outputs, route.moves, outputs, strict=True):
            if output.shape != expected:
                member = next(spec.name for spec in route.members if spec.output == name)
                raise MemberFailed(
                    f"{self._session.where}: member {member!r}: expected {self._what} of shape {expected}, "
                    f"got {output.shape}"
                )
            for place, gate in moves:
                answer[place] = output if gate is None else output[gate]


@dataclass(frozen=True, slots=True)
class _Route:
    """How a choice of members goes through a graph."""

    members: Sequence[MemberSpec]
    feeds: Mapping[str, NDArray[Any]]
    """Beside the rows: the gates."""
    outputs: list[str]
    moves: list[list[tuple[int, int | None]]]
    """For each output: to which places of the answer it goes, and, of a packed graph, which gate's part of it."""


def _find_route(
    members: Mapping[int, MemberSpec],
    shut: Mapping[str, NDArray[Any]],
    n_gates: int | None,
    chosen: tuple[int, ...],
) -> _Route:
    """Of a graph that answers for these `members`, by their places in the manifest."""
    there = [(place, members[index]) for place, index in enumerate(chosen) if index in members]
    feeds = dict(shut)
    if n_gates is not None:
        open_gates = [spec.gate for _, spec in there if spec.gate is not None]
        feeds[GATES_INPUT] = np.isin(np.arange(n_gates), open_gates)
    names = list(dict.fromkeys(spec.output for _, spec in there))
    moves = [[(place, spec.gate) for place, spec in there if spec.output == name] for name in names]
    return _Route([spec for _, spec in there], feeds, names, moves)


def _parse_report(data: bytes, where: str) -> Any:
    """How the ensemble was made and evaluated: JSON that is handed on as it is. Raises InvalidRepository."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as exc:
        raise InvalidRepository(f"{where}: not JSON: {exc}") from exc
