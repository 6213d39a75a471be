"""What the tensors of a graph have to be, for the manifest to be right about it."""

from collections.abc import Sequence

from server.errors import InvalidRepository
from server.manifest import (
    ANSWERS_INPUT,
    GATES_INPUT,
    MEAN_INPUT,
    STACK_INPUT,
    FinalEstimatorSpec,
    InputSpec,
    Manifest,
    MemberSpec,
)
from server.session import TYPES, Session, TensorSpec, shown_shape

PACKED_INPUTS = frozenset({GATES_INPUT, ANSWERS_INPUT, STACK_INPUT, MEAN_INPUT})


def n_gates(session: Session) -> int:
    gates = session.inputs.get(GATES_INPUT) or session.optional_inputs[GATES_INPUT]
    return int(gates.shape[0] or 0)


def check_member(member: MemberSpec, manifest: Manifest, session: Session) -> None:
    """Raise InvalidRepository unless the session's tensors are what the manifest promises for this member."""
    where = f"{session.where}: member {member.name!r}"
    _check_inputs(where, manifest.inputs, member, session)
    output = session.outputs.get(member.output)
    if output is None:
        raise InvalidRepository(f"{where}: expected an output {member.output!r}, got {sorted(session.outputs)}")
    gates = () if member.gate is None else (n_gates(session),)
    _check_tensor(where, output, "tensor(float)", (*gates, None, len(manifest.outputs)))


def _check_inputs(where: str, specs: Sequence[InputSpec], member: MemberSpec, session: Session) -> None:
    inputs = dict(session.inputs)
    pairs = pair_inputs(specs, session, gated=member.gate is not None)
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


def pair_inputs(specs: Sequence[InputSpec], session: Session, *, gated: bool) -> dict[str, InputSpec]:
    """By name of the graph's tensor: the input that it reads. Of one input on either side, the name does not matter."""
    own = [name for name in session.inputs if not (gated and name in PACKED_INPUTS)]
    if len(specs) == len(own) == 1:
        return {own[0]: specs[0]}
    return {spec.name: spec for spec in specs if spec.name in own}


def check_final_estimator(spec: FinalEstimatorSpec, manifest: Manifest, session: Session) -> None:
    """Raise InvalidRepository unless the session can be the final estimator that the manifest names."""
    where = f"{session.where}: final_estimator"
    answers = session.inputs.get(ANSWERS_INPUT) or session.optional_inputs.get(ANSWERS_INPUT)
    if answers is None:
        raise InvalidRepository(f"{where}: expected an input {ANSWERS_INPUT!r}, got {sorted(session.inputs)}")
    _check_tensor(where, answers, "tensor(float)", (len(manifest.members), None, len(manifest.outputs)))
    output = session.outputs.get(spec.output)
    if output is None:
        raise InvalidRepository(f"{where}: expected an output {spec.output!r}, got {sorted(session.outputs)}")
    _check_tensor(where, output, "tensor(float)", (None, len(manifest.outputs)))
    known = {tensor_spec.name for tensor_spec in manifest.inputs} | PACKED_INPUTS
    if strangers := sorted(session.inputs.keys() - known):
        raise InvalidRepository(f"{where}: the graph wants inputs that nobody gives: {strangers}")


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
