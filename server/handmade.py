"""A manifest that people write: what it leaves out is read off the graphs.

It is the one that lists no files. Then only the classes and a file a member must be said; `resolve` makes the complete
`Manifest` of it, the only form that the rest of the server knows.
"""

import hashlib
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, model_validator

from server.errors import InvalidRepository
from server.manifest import (
    GATES_INPUT,
    NAME_PATTERN,
    REPLAY_TOLERANCE,
    CascadeSpec,
    ClassNames,
    Cost,
    FileName,
    FileSpec,
    FinalEstimatorSpec,
    Gate,
    InputSpec,
    Manifest,
    MemberSpec,
    Name,
    OnFailure,
    Quorum,
    RowLimit,
    TargetNames,
    Task,
    Temperature,
    Tolerance,
    VersionNumber,
    Weight,
    check_outputs,
    fill_in_strategy,
)
from server.session import TYPES, Session, TensorSpec
from server.toml import Table, parse_toml


class DraftMember(Table):
    """A `MemberSpec` that need only say its file."""

    name: Name | None = None
    """None: the file's, without its ending."""
    framework: str = ""
    file: FileName
    output: str | None = None
    """None: the only one that can be the probabilities."""
    gate: Gate | None = None
    weights: dict[str, Weight] = Field(default_factory=dict)
    temperature: Temperature = 1.0
    cost_us: Cost | None = None
    tolerance: Tolerance = REPLAY_TOLERANCE


class Draft(Table):
    """A `Manifest` that lists no files, and may leave out what the folder and the graphs say."""

    format: Literal[1] = 1
    name: Name | None = None
    version: VersionNumber | None = None
    task: Task = "classification"
    description: str = ""
    created: str = ""
    default_strategy: str = ""
    on_failure: OnFailure = "degrade"
    quorum: Quorum | None = None
    max_batch_size: RowLimit = 4096
    classes: ClassNames = Field(default_factory=list)
    targets: TargetNames = Field(default_factory=list)
    inputs: Annotated[list[InputSpec] | None, Field(min_length=1, max_length=4096)] = None
    """None: those that all graphs agree on."""
    members: Annotated[list[DraftMember], Field(min_length=1, max_length=256)]
    final_estimator: FinalEstimatorSpec | None = None
    cascade: CascadeSpec | None = None

    _filled_in = model_validator(mode="before")(fill_in_strategy)

    @property
    def n_outputs(self) -> int:
        return len(self.classes or self.targets)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        check_outputs(self.task, self.classes, self.targets)
        return self


def is_hand_made(data: bytes) -> bool:
    """Whether these bytes of an `ensemble.toml` list no files. What is no TOML is nobody's."""
    try:
        return "files" not in tomllib.loads(data.decode())
    except (ValueError, RecursionError):
        return False


def parse_draft(data: bytes, *, where: str) -> Draft:
    """Read the bytes of an `ensemble.toml` that lists no files. Raises InvalidRepository, as `parse_manifest` does."""
    try:
        return parse_toml(Draft, data)
    except ValueError as exc:
        raise InvalidRepository(f"{where}: {exc}") from exc


def resolve(
    draft: Draft,
    files: Mapping[str, bytes],
    graphs: Mapping[str, Session],
    *,
    name: str,
    version: int,
    where: str,
) -> Manifest:
    """The complete manifest: of the draft, else of the folder (`name`, `version`), else of the members' graphs.

    Raises InvalidRepository, naming `where` (the manifest's path) or the graph: what cannot be told, and what to do.
    """
    members = [_complete(member, graphs[member.file], draft) for member in draft.members]
    said = draft.model_dump(exclude={"name", "version", "inputs", "members"})
    try:
        return Manifest(
            **said,
            name=name,
            version=version,
            inputs=infer_inputs(members, graphs, where=where) if draft.inputs is None else draft.inputs,
            members=members,
            files=[_describe(file, data) for file, data in files.items()],
        )
    except ValidationError as exc:
        raise InvalidRepository(f"{where}: {_reason(exc)}") from exc


def infer_inputs(members: Iterable[MemberSpec], graphs: Mapping[str, Session], *, where: str) -> list[InputSpec]:
    """The inputs that the graphs agree on. If each has just one, its name does not matter: the first one's is taken."""
    read = {member.file: _read_by(graphs[member.file], gated=member.gate is not None) for member in members}
    (first, expected), *others = read.items()
    for file, tensors in others:
        if not _agree(expected, tensors):
            raise InvalidRepository(
                f"{where}: the graphs read different inputs, so say them, [[inputs]] each with name and shape: "
                f"{first} reads {_listed(expected)}; {file} reads {_listed(tensors)}"
            )
    return [_infer_input(tensor, graphs[first].where) for tensor in expected]


def _complete(member: DraftMember, graph: Session, draft: Draft) -> MemberSpec:
    name = member.name or PurePath(member.file).stem
    if not re.fullmatch(NAME_PATTERN, name):
        raise InvalidRepository(
            f"{graph.where}: {name!r} cannot be a member's name, so say one: name = … (letters, digits, _ and -)"
        )
    output = infer_output(graph, draft.n_outputs, task=draft.task, said=member.output, gated=member.gate is not None)
    return MemberSpec(**member.model_dump(exclude={"name", "output"}), name=name, output=output)


def infer_output(
    graph: Session,
    n_outputs: int,
    *,
    task: Task = "classification",
    said: str | None = None,
    gated: bool = False,
) -> str:
    """The one output `(n, n_outputs)` of floats, or the one said. Raises InvalidRepository, with advice, if none is."""
    if said is not None and (gated or said not in graph.outputs):
        return said  # the ensemble looks whether it is right
    if gated:
        raise InvalidRepository(f"{graph.where}: expected a member with a gate to say its output")
    outputs = list(graph.outputs.values()) if said is None else [graph.outputs[said]]
    # Converters may leave the number of classes open; what the graph answers is looked at later.
    fits = [out for out in outputs if _is_float(out) and out.shape == (None, n_outputs)] or [
        out for out in outputs if _is_float(out) and out.shape == (None, None)
    ]
    if len(fits) != 1:
        meant = {
            "classification": f"the probabilities of the {n_outputs} classes",
            "regression": f"the values of the {n_outputs} targets" if n_outputs > 1 else "the value of the target",
        }
        advice = "; say which is meant: output = …" if fits else ""
        if not fits and task == "classification":
            advice = _advice(outputs, n_outputs)
        raise InvalidRepository(
            f"{graph.where}: expected just one output tensor(float) [n, {n_outputs}], {meant[task]}; "
            f"got {_listed(outputs)}{advice}"
        )
    return fits[0].name


def _advice(outputs: Iterable[TensorSpec], n_classes: int) -> str:
    """What to do about the outputs that converters are known to write."""
    for output in outputs:
        if output.type.startswith("seq(map("):
            return "; convert the model with zipmap=False (skl2onnx: options={'zipmap': False})"
        if output.type == "tensor(double)":
            return "; convert the model from rows of float32"
        if _is_float(output) and n_classes == 2 and output.shape in ((None,), (None, 1)):
            return "; one probability a row is not enough: let the graph answer both, 1 - p and p"
    return ""


def _is_float(tensor: TensorSpec) -> bool:
    return tensor.type == "tensor(float)"


def _read_by(graph: Session, *, gated: bool) -> list[TensorSpec]:
    return [tensor for name, tensor in graph.inputs.items() if not (gated and name == GATES_INPUT)]


def _agree(some: Sequence[TensorSpec], others: Sequence[TensorSpec]) -> bool:
    if len(some) == len(others) == 1:
        return (some[0].type, some[0].shape) == (others[0].type, others[0].shape)
    return {tensor.name: tensor for tensor in some} == {tensor.name: tensor for tensor in others}


def _infer_input(tensor: TensorSpec, where: str) -> InputSpec:
    refused = f"{where}: input {tensor}"
    datatypes = {type_: datatype for datatype, type_ in TYPES.items()}
    if tensor.type not in datatypes:
        raise InvalidRepository(
            f"{refused}: expected tensor(float) or tensor(string); convert the model from rows of float32 and text"
        )
    if len(tensor.shape) < 2 or tensor.shape[0] is not None:
        raise InvalidRepository(f"{refused}: expected the shape [n, …]: convert the model with a free batch dimension")
    shape = [size for size in tensor.shape[1:] if size is not None]
    if len(shape) + 1 != len(tensor.shape):
        raise InvalidRepository(f"{refused}: leaves sizes open, so say them: [[inputs]] with name and shape")
    try:
        return InputSpec.model_validate({"name": tensor.name, "datatype": datatypes[tensor.type], "shape": shape})
    except ValidationError as exc:
        named = exc.errors()[0]["loc"] == ("name",)
        advice = "; a graph of one input takes any: say [[inputs]] with name and shape" if named else ""
        raise InvalidRepository(f"{refused}: {_reason(exc)}{advice}") from exc


def _describe(name: str, data: bytes) -> FileSpec:
    return FileSpec(name=name, sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))


def _listed(tensors: Iterable[TensorSpec]) -> str:
    return ", ".join(map(str, tensors)) or "nothing"


def _reason(exc: ValidationError) -> str:
    return str(exc.errors(include_url=False)[0]["msg"]).removeprefix("Value error, ")
