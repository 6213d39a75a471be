"""An ensemble in memory: runs its members on a batch of rows."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from server.errors import InvalidRepository, MemberFailed
from server.fusion import STRATEGIES
from server.manifest import GATES_INPUT, REPORT_FILE, InputSpec, Manifest, MemberSpec
from server.rows import Rows, split_rows
from server.session import TYPES, Session, TensorSpec, shown_shape

SUM_TOLERANCE = 1e-3
"""How far a member's probabilities may sum from 1, and one of them lie below 0: some converters leave it at that."""


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
        graphs: Mapping[str, Session] | None = None,
        verified: bool = False,
    ) -> None:
        self.manifest = manifest
        self.where = where
        self.verified = verified
        """Whether its files are those that were published, by their hashes, and its recorded answers are replayed."""
        self.names = [member.name for member in manifest.members]
        self.temperatures = np.array([member.temperature for member in manifest.members], dtype=np.float32)
        self._weights = {
            strategy: np.array([member.weights.get(strategy, 1.0) for member in manifest.members], dtype=np.float64)
            for strategy in STRATEGIES
        }
        graphs = graphs or open_graphs(manifest.members, files, where=where, threads=threads)
        self._graphs = [_Graph(manifest, name, session) for name, session in graphs.items()]
        self.report = _parse_report(files[REPORT_FILE], f"{where}/{REPORT_FILE}") if REPORT_FILE in files else None

    def weights(self, strategy: str) -> NDArray[np.float64]:
        """The manifest's weights `(n_members,)` for a strategy; all ones for one that is not fitted."""
        return self._weights[strategy]

    def run(self, rows: Rows, members: Sequence[int] | None = None) -> NDArray[np.float32]:
        """Probabilities `(len(members), n_samples, n_classes)` of these members, all by default, in this order.

        `rows` is `(n_samples, *shape)`, or a table's `(n_samples,)`; see `server.rows`. A member that is not asked for
        costs nothing. Raises MemberFailed if a graph raises, or answers another shape or something that is no
        distribution.
        """
        chosen = range(len(self.names)) if members is None else members
        answer = np.empty((len(chosen), len(rows), len(self.manifest.classes)), dtype=np.float32)
        for graph in self._graphs:
            graph.run(rows, chosen, answer)
        if not are_distributions(answer):
            self._refuse(answer, chosen)
        return answer

    def _refuse(self, answer: NDArray[np.float32], chosen: Sequence[int]) -> None:
        member, number = next(place for place in np.ndindex(answer.shape[:2]) if not are_distributions(answer[place]))
        row = on_one_line(answer[member, number])
        raise MemberFailed(
            f"{self.where}: member {self.names[chosen[member]]!r}: expected a distribution, got for row {number} {row}"
        )


class NamesFile(Protocol):
    """A member, of a manifest that is complete or of one that is not yet."""

    @property
    def file(self) -> str: ...


def open_graphs(
    members: Iterable[NamesFile], files: Mapping[str, bytes], *, where: str, threads: int = 1
) -> dict[str, Session]:
    """A session for each file that the members name. Raises InvalidRepository."""
    names = dict.fromkeys(member.file for member in members)
    return {name: Session(files[name], where=f"{where}/{name}", threads=threads) for name in names}


def on_one_line(row: NDArray[np.floating]) -> str:
    """A row `(n,)` of numbers for a message: four digits of each, and the middle left out of a long one."""
    return np.array2string(row, precision=4, threshold=10, max_line_width=sys.maxsize)


def are_distributions(probabilities: NDArray[np.float32]) -> bool:
    """Whether all of `(…, n_classes)` are, but for rounding, probabilities that sum to 1; NaN is none."""
    off = np.abs(probabilities.sum(axis=-1) - 1)
    return bool(off.max(initial=0) <= SUM_TOLERANCE and probabilities.min(initial=0) >= -SUM_TOLERANCE)


class _Graph:
    """One file of an ensemble: a session, and which members it answers for."""

    def __init__(self, manifest: Manifest, name: str, session: Session) -> None:
        self._session = session
        self._members = {index: spec for index, spec in enumerate(manifest.members) if spec.file == name}
        for spec in self._members.values():
            _check_contract(spec, manifest, session)
        # The manifest has it that all of a file's members have a gate, or none.
        gated = next(iter(self._members.values())).gate is not None
        self._inputs = {spec.name: tensor for tensor, spec in _pair(manifest.inputs, session, gated=gated).items()}
        self._n_gates = _n_gates(session) if gated else None

    def run(self, rows: Rows, chosen: Sequence[int], answer: NDArray[np.float32]) -> None:
        """Run those of the `chosen` members that are in this file, and write what they answer to their places."""
        wanted = [(place, self._members[index]) for place, index in enumerate(chosen) if index in self._members]
        if not wanted:
            return
        feeds = {self._inputs[name]: tensor for name, tensor in split_rows(rows, self._inputs).items()}
        expected = answer.shape[1:]
        if self._n_gates is not None:
            gates = feeds[GATES_INPUT] = np.zeros(self._n_gates, dtype=np.bool_)
            gates[[spec.gate for _, spec in wanted if spec.gate is not None]] = True
            expected = (self._n_gates, *expected)
        names = list(dict.fromkeys(spec.output for _, spec in wanted))
        outputs = dict(zip(names, self._session.run(names, feeds), strict=True))
        for place, spec in wanted:
            output = outputs[spec.output]
            if output.shape != expected:
                raise MemberFailed(
                    f"{self._session.where}: member {spec.name!r}: expected probabilities of shape {expected}, "
                    f"got {output.shape}"
                )
            answer[place] = output if spec.gate is None else output[spec.gate]


def _parse_report(data: bytes, where: str) -> Any:
    """How the ensemble was made and evaluated: JSON that is handed on as it is. Raises InvalidRepository."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as exc:
        raise InvalidRepository(f"{where}: not JSON: {exc}") from exc


def _n_gates(session: Session) -> int:
    gates = session.inputs.get(GATES_INPUT) or session.optional_inputs[GATES_INPUT]
    return int(gates.shape[0] or 0)


def _check_contract(member: MemberSpec, manifest: Manifest, session: Session) -> None:
    """Raise InvalidRepository unless the session's tensors are what the manifest promises for this member."""
    where = f"{session.where}: member {member.name!r}"
    _check_inputs(where, manifest.inputs, member, session)
    output = session.outputs.get(member.output)
    if output is None:
        raise InvalidRepository(f"{where}: expected an output {member.output!r}, got {sorted(session.outputs)}")
    n_gates = () if member.gate is None else (_n_gates(session),)
    _check_tensor(where, output, "tensor(float)", (*n_gates, None, len(manifest.classes)))


def _check_inputs(where: str, specs: Sequence[InputSpec], member: MemberSpec, session: Session) -> None:
    inputs = dict(session.inputs)
    pairs = _pair(specs, session, gated=member.gate is not None)
    for name, spec in pairs.items():
        _check_tensor(where, inputs.pop(name), TYPES[spec.datatype], (None, *spec.shape))
    if member.gate is not None:
        gates = inputs.pop(GATES_INPUT, None) or session.optional_inputs.get(GATES_INPUT)
        if gates is None or gates.type != "tensor(bool)" or len(gates.shape) != 1 or gates.shape[0] is None:
            raise InvalidRepository(f"{where}: has a gate, but the graph has no input {GATES_INPUT!r} of booleans")
        if member.gate >= gates.shape[0]:
            raise InvalidRepository(f"{where}: gate {member.gate} is not below the graph's {gates.shape[0]} gates")
    if not pairs:
        raise InvalidRepository(
            f"{where}: expected {_one_of([spec.name for spec in specs])}, got {sorted(session.inputs)}"
        )
    if inputs:
        raise InvalidRepository(f"{where}: the graph wants inputs that nobody gives: {sorted(inputs)}")


def _pair(specs: Sequence[InputSpec], session: Session, *, gated: bool) -> dict[str, InputSpec]:
    """By name of the graph's tensor: the input that it reads. Of one input on either side, the name does not matter."""
    own = [name for name in session.inputs if not (gated and name == GATES_INPUT)]
    if len(specs) == len(own) == 1:
        return {own[0]: specs[0]}
    return {spec.name: spec for spec in specs if spec.name in own}


def _one_of(names: Sequence[str]) -> str:
    return f"an input {names[0]!r}" if len(names) == 1 else f"some of the inputs {', '.join(names)}"


def _check_tensor(where: str, tensor: TensorSpec, type_: str, shape: tuple[int | None, ...]) -> None:
    """The batch dimension must be free; another free one is let through: the test vectors will tell."""
    fits = len(tensor.shape) == len(shape) and all(
        got is None if want is None else got in (want, None) for got, want in zip(tensor.shape, shape, strict=True)
    )
    if tensor.type != type_ or not fits:
        raise InvalidRepository(
            f"{where}: expected {tensor.name!r} to be {type_} of shape {shown_shape(shape)}, "
            f"got {tensor.type} of shape {shown_shape(tensor.shape)}"
        )
