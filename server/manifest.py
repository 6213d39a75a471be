"""The manifest `ensemble.toml`: the contract between what publishes an ensemble and what serves it."""

import tomllib
from collections import Counter
from collections.abc import Hashable, Iterable
from typing import Annotated, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from server.errors import InvalidRepository

T = TypeVar("T", bound=Hashable)

NAME_PATTERN = r"^[A-Za-z0-9_][A-Za-z0-9_-]{0,63}$"
MANIFEST_FILE = "ensemble.toml"
VECTORS_FILE = "vectors.npz"
GATES_INPUT = "members"
"""The boolean input `(n_members,)` of a packed graph: which members are to run."""

Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class InputSpec(_Table):
    """The one input that all members share: a batch of rows of this shape.

    For images the values are raw pixels, 0 to 255: scaling is each member's own affair, inside its graph.
    """

    name: Name
    datatype: Literal["FP32"] = "FP32"
    shape: Annotated[list[Annotated[int, Field(ge=1, le=1 << 20)]], Field(min_length=1, max_length=8)]
    """Of one row, without the batch dimension."""
    low: Annotated[float | None, Field(allow_inf_nan=False)] = None
    high: Annotated[float | None, Field(allow_inf_nan=False)] = None


class MemberSpec(_Table):
    """One model of the ensemble: an output of an ONNX file.

    A plain member is an output `(n_samples, n_classes)`. With `gate` it is one of several that are packed into one
    graph: entry `gate` of the boolean input `members` makes it run, and its probabilities are entry `gate` of the
    output `(n_members, n_samples, n_classes)`.
    """

    name: Name
    framework: str = ""
    file: FileName
    output: str
    gate: Annotated[int | None, Field(ge=0)] = None
    weights: dict[str, Weight] = {}
    """By strategy, as fitted on validation data; 1 for a strategy that is not named."""
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    """Divides the member's log-probabilities to calibrate them (Guo et al. 2017)."""
    cost_us: Annotated[float | None, Field(ge=0, allow_inf_nan=False)] = None
    """Microseconds a row, measured alone, one thread, in batches of 64."""


class FileSpec(_Table):
    name: FileName
    sha256: Sha256
    bytes: Annotated[int, Field(ge=0)]


class Manifest(_Table):
    """What `ensemble.toml` says. A version's folder holds this file and the files that it lists, nothing else."""

    format: Literal[1] = 1
    """The version of the manifest's format."""
    name: Name
    version: Annotated[int, Field(ge=1)]
    task: Literal["classification"] = "classification"
    description: str = ""
    created: str = ""
    default_strategy: str = "average"
    max_batch_size: Annotated[int, Field(ge=1, le=1 << 16)] = 4096
    """The most rows that one request may hold."""
    classes: Annotated[list[str], Field(min_length=2)]
    input: InputSpec
    members: Annotated[list[MemberSpec], Field(min_length=1, max_length=256)]
    files: Annotated[list[FileSpec], Field(min_length=1)]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for what, values in (
            ("classes", self.classes),
            ("members", [member.name for member in self.members]),
            ("files", [file.name for file in self.files]),
        ):
            if twice := _repeated(values):
                raise ValueError(f"{what}: {twice!r} is named more than once")
        listed = {file.name for file in self.files}
        for member in self.members:
            if member.file not in listed:
                raise ValueError(f"member {member.name!r}: its file {member.file!r} is not among the files")
        gates = [(member.file, member.gate) for member in self.members if member.gate is not None]
        if shared := _repeated(gates):
            raise ValueError(f"members: two of them share gate {shared[1]} of {shared[0]!r}")
        return self


def parse_manifest(data: bytes, *, where: str) -> Manifest:
    """Read the bytes of an `ensemble.toml`; `where` is the file's path, for the message.

    Raises InvalidRepository, in one line that names the file, the field, what was expected and what came.
    """
    try:
        return Manifest.model_validate(tomllib.loads(data.decode()))
    except UnicodeDecodeError as exc:
        raise InvalidRepository(f"{where}: expected UTF-8, got byte {data[exc.start]:#04x} at {exc.start}") from exc
    except tomllib.TOMLDecodeError as exc:
        raise InvalidRepository(f"{where}: not TOML: {exc}") from exc
    except ValidationError as exc:
        first = exc.errors(include_url=False)[0]
        raise InvalidRepository(f"{where}: {_path(first['loc'])}{first['msg']}{_got(first['input'])}") from exc


def _repeated(values: Iterable[T]) -> T | None:
    return next((value for value, count in Counter(values).items() if count > 1), None)


def _path(location: tuple[int | str, ...]) -> str:
    """`("members", 2, "weight")` as `members[2].weight: `."""
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in location)
    return f"{path.lstrip('.')}: " if path else ""


def _got(value: object) -> str:
    shown = repr(value)
    return f", got {shown}" if len(shown) <= 80 and not isinstance(value, dict) else ""
