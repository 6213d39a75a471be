"""An ensemble in memory: runs its members on a batch of rows."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.errors import InvalidRepository, MemberFailed
from server.fusion import STRATEGIES
from server.manifest import GATES_INPUT, InputSpec, Manifest, MemberSpec
from server.session import Session, TensorSpec


class Ensemble:
    """The members that a manifest names, loaded from the bytes of its files.

    Members that name the same file share its session. Raises InvalidRepository, naming `where`, if a file is not a
    graph that ONNX Runtime takes, or if its tensors are not what the manifest says.
    """

    def __init__(self, manifest: Manifest, files: Mapping[str, bytes], *, where: str, threads: int = 1) -> None:
        self.manifest = manifest
        self.where = where
        self.names = [member.name for member in manifest.members]
        self.temperatures = np.array([member.temperature for member in manifest.members], dtype=np.float32)
        self._weights = {
            strategy: np.array([member.weights.get(strategy, 1.0) for member in manifest.members], dtype=np.float32)
            for strategy in STRATEGIES
        }
        self._sessions = {
            name: Session(files[name], where=f"{where}/{name}", threads=threads)
            for name in dict.fromkeys(member.file for member in manifest.members)
        }
        for member in manifest.members:
            _check_contract(member, manifest, self._sessions[member.file])

    def weights(self, strategy: str) -> NDArray[np.float32]:
        """The manifest's weights `(n_members,)` for a strategy: fitted ones, or all ones."""
        return self._weights[strategy]

    def run(self, rows: NDArray[np.float32], members: Sequence[int] | None = None) -> NDArray[np.float32]:
        """Probabilities `(len(members), n_samples, n_classes)` of these members, all by default, in this order.

        `rows` is `(n_samples, *input.shape)`. A member that is not asked for costs nothing. Raises MemberFailed if a
        graph raises, or answers another shape or a value that is not finite.
        """
        chosen = range(len(self.names)) if members is None else members
        answer = np.empty((len(chosen), len(rows), len(self.manifest.classes)), dtype=np.float32)
        for name, session in self._sessions.items():
            places = [place for place, index in enumerate(chosen) if self.manifest.members[index].file == name]
            if places:
                self._run_file(session, rows, [chosen[place] for place in places], places, answer)
        if not np.isfinite(answer).all():
            broken = next(
                self.names[i] for i, rows_ in zip(chosen, answer, strict=True) if not np.isfinite(rows_).all()
            )
            raise MemberFailed(f"{self.where}: member {broken!r} answered a value that is not finite")
        return answer

    def _run_file(
        self,
        session: Session,
        rows: NDArray[np.float32],
        members: Sequence[int],
        places: Sequence[int],
        answer: NDArray[np.float32],
    ) -> None:
        """Run one file for some of its members, and write what they answer to their places in `answer`."""
        specs = [self.manifest.members[index] for index in members]
        feeds: dict[str, NDArray[Any]] = {self.manifest.input.name: rows}
        if specs[0].gate is not None:
            gates = np.zeros(_n_gates(session), dtype=np.bool_)
            gates[[spec.gate for spec in specs if spec.gate is not None]] = True
            feeds[GATES_INPUT] = gates
        wanted = list(dict.fromkeys(spec.output for spec in specs))
        outputs = dict(zip(wanted, session.run(wanted, feeds), strict=True))
        for place, spec in zip(places, specs, strict=True):
            output = outputs[spec.output] if spec.gate is None else outputs[spec.output][spec.gate]
            if output.shape != answer.shape[1:]:
                raise MemberFailed(
                    f"{self.where}: member {spec.name!r}: expected probabilities of shape {answer.shape[1:]}, "
                    f"got {output.shape}"
                )
            answer[place] = output


def _n_gates(session: Session) -> int:
    gates = session.inputs.get(GATES_INPUT) or session.optional_inputs[GATES_INPUT]
    return int(gates.shape[0] or 0)


def _check_contract(member: MemberSpec, manifest: Manifest, session: Session) -> None:
    """Raise InvalidRepository unless the session's tensors are what the manifest promises for this member."""
    where = f"{session.where}: member {member.name!r}"
    _check_inputs(where, manifest.input, member, session)
    output = session.outputs.get(member.output)
    if output is None:
        raise InvalidRepository(f"{where}: expected an output {member.output!r}, got {sorted(session.outputs)}")
    n_gates = () if member.gate is None else (_n_gates(session),)
    _check_tensor(where, output, "tensor(float)", (*n_gates, None, len(manifest.classes)))


def _check_inputs(where: str, spec: InputSpec, member: MemberSpec, session: Session) -> None:
    inputs = dict(session.inputs)
    rows = inputs.pop(spec.name, None)
    if rows is None:
        raise InvalidRepository(f"{where}: expected an input {spec.name!r}, got {sorted(session.inputs)}")
    _check_tensor(where, rows, "tensor(float)", (None, *spec.shape))
    if member.gate is not None:
        gates = inputs.pop(GATES_INPUT, None) or session.optional_inputs.get(GATES_INPUT)
        if gates is None or gates.type != "tensor(bool)" or len(gates.shape) != 1 or gates.shape[0] is None:
            raise InvalidRepository(f"{where}: has a gate, but the graph has no input {GATES_INPUT!r} of booleans")
        if member.gate >= gates.shape[0]:
            raise InvalidRepository(f"{where}: gate {member.gate} is not below the graph's {gates.shape[0]} gates")
    if inputs:
        raise InvalidRepository(f"{where}: the graph wants inputs that nobody gives: {sorted(inputs)}")


def _check_tensor(where: str, tensor: TensorSpec, type_: str, shape: tuple[int | None, ...]) -> None:
    """The batch dimension must be free; another free one is let through: the test vectors will tell."""
    fits = len(tensor.shape) == len(shape) and all(
        got is None if want is None else got in (want, None) for got, want in zip(tensor.shape, shape, strict=True)
    )
    if tensor.type != type_ or not fits:
        raise InvalidRepository(
            f"{where}: expected {tensor.name!r} to be {type_} of shape {_shown(shape)}, "
            f"got {tensor.type} of shape {_shown(tensor.shape)}"
        )


def _shown(shape: tuple[int | None, ...]) -> str:
    return "[" + ", ".join("n" if size is None else str(size) for size in shape) + "]"
