"""The manifest `ensemble.toml`: the contract between what publishes an ensemble and what serves it."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from server.errors import InvalidRepository
from server.toml import Table, first_repeated, parse_toml

NAME_PATTERN = r"^[A-Za-z0-9_][A-Za-z0-9_-]{0,63}$"
MANIFEST_FILE = "ensemble.toml"
VECTORS_FILE = "vectors.npz"
REPORT_FILE = "report.json"
GATES_INPUT = "members"
"""The boolean input `(n_members,)` of a packed graph: which members are to run."""

REPLAY_TOLERANCE = 1e-4
"""How far a replayed test vector may lie from the recorded probability: processors differ in their last digits."""
RESERVED_INPUTS = frozenset({GATES_INPUT, "weights", "member_probabilities", "probabilities"})
"""Names that tensors of a packed graph, or arrays of the test vectors, have already."""


def _not_reserved(name: str) -> str:
    if name in RESERVED_INPUTS:
        raise ValueError(f"expected a name other than {', '.join(sorted(RESERVED_INPUTS))}")
    return name


Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
InputName = Annotated[
    str,
    # Columns have names like `hours per week`, tensors like `input.1`; `/` would be a folder among the test vectors.
    StringConstraints(pattern=r"^[^\x00-\x1f\x7f/\\]{1,128}$"),
    AfterValidator(_not_reserved),
]
FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
VersionNumber = Annotated[int, Field(ge=1, lt=10**9)]
ClassNames = Annotated[list[Annotated[str, Field(min_length=1, max_length=256)]], Field(min_length=2)]
RowLimit = Annotated[int, Field(ge=1, le=1 << 16)]
Gate = Annotated[int, Field(ge=0, lt=1 << 16)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Temperature = Annotated[float, Field(ge=1e-3, le=1e3, allow_inf_nan=False)]
Cost = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Tolerance = Annotated[float, Field(gt=0, le=1)]


class InputSpec(Table):
    """An input that the members share: numbers of this shape a row, or a piece of text.

    An ensemble of images or vectors has one, and a row is an array. A table has one a column, and a row is an object
    with a value for each. For images the values are raw pixels, 0 to 255: scaling is each member's own affair, inside
    its graph.
    """

    name: InputName
    datatype: Literal["FP32", "BYTES"] = "FP32"
    """`BYTES` is text, as in the Open Inference Protocol."""
    shape: Annotated[list[Annotated[int, Field(ge=1, le=1 << 20)]], Field(min_length=1, max_length=8)]
    """Of one row, without the batch dimension; `[1]` for a column."""
    low: Annotated[float | None, Field(allow_inf_nan=False)] = None
    high: Annotated[float | None, Field(allow_inf_nan=False)] = None
    """The domain of numbers, ends included; a value outside it is refused. None: no bound on that side."""
    missing: bool = False
    """Whether a value may be missing: `null`. The graphs then read NaN, or empty text."""
    categories: Annotated[list[str] | None, Field(min_length=1, max_length=10_000)] = None
    """The values that text can have, as seen in training; None if it is free."""
    unknown: Literal["refuse", "accept"] = "refuse"
    """What becomes of text that is not among the categories; accepted, the members treat it as they were trained to."""

    @model_validator(mode="after")
    def _fits_its_datatype(self) -> Self:
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError(f"expected low below high, got {self.low} and {self.high}")
        if self.datatype == "BYTES" and (self.low, self.high, self.shape) != (None, None, [1]):
            raise ValueError(f"text has shape [1], and neither low nor high; got {self.shape}, {self.low}, {self.high}")
        if self.datatype == "FP32" and self.categories is not None:
            raise ValueError("categories are of text, got some for numbers")
        return self


class MemberSpec(Table):
    """One model of the ensemble: an output of an ONNX file.

    A plain member is an output `(n_samples, n_classes)`. With `gate` it is one of several that are packed into one
    graph: entry `gate` of the boolean input `members` makes it run, and its probabilities are entry `gate` of the
    output `(n_members, n_samples, n_classes)`.
    """

    name: Name
    framework: str = ""
    file: FileName
    output: str
    gate: Gate | None = None
    weights: dict[str, Weight] = Field(default_factory=dict)
    """By strategy, as fitted on validation data; 1 for a strategy that is not named."""
    temperature: Temperature = 1.0
    """Divides the member's log-probabilities to calibrate them (Guo et al. 2017)."""
    cost_us: Cost | None = None
    """Microseconds a row, measured alone, one thread, in batches of 64."""
    tolerance: Tolerance = REPLAY_TOLERANCE
    """How far a probability may lie from the recorded one when the test vectors are replayed. Processors differ in the
    last digits; where a member is quantised, these can move a value by a whole step."""


class FileSpec(Table):
    name: FileName
    sha256: Sha256
    bytes: Annotated[int, Field(ge=0, lt=1 << 48)]


class Manifest(Table):
    """What `ensemble.toml` says. A version's folder holds this file and the files that it lists, nothing else.

    A hand-made one may say less: `server.handmade` reads the rest off the graphs.
    """

    format: Literal[1] = 1
    """The version of the manifest's format."""
    name: Name
    version: VersionNumber
    task: Literal["classification"] = "classification"
    description: str = ""
    created: str = ""
    default_strategy: str = "average"
    max_batch_size: RowLimit = 4096
    """The most rows that one request may hold."""
    classes: ClassNames
    inputs: Annotated[list[InputSpec], Field(min_length=1, max_length=4096)]
    members: Annotated[list[MemberSpec], Field(min_length=1, max_length=256)]
    files: Annotated[list[FileSpec], Field(min_length=1)]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for what, values in (
            ("classes", self.classes),
            ("inputs", [spec.name for spec in self.inputs]),
            ("members", [member.name for member in self.members]),
            ("files", [file.name for file in self.files]),
        ):
            if twice := first_repeated(values):
                raise ValueError(f"{what}: {twice!r} is named more than once")
        listed = {file.name for file in self.files}
        for member in self.members:
            if member.file not in listed:
                raise ValueError(f"member {member.name!r}: its file {member.file!r} is not among the files")
        gates = [(member.file, member.gate) for member in self.members if member.gate is not None]
        packed = {file for file, _ in gates}
        if plain := [member.name for member in self.members if member.gate is None and member.file in packed]:
            raise ValueError(f"member {plain[0]!r}: has no gate, but others of its file do")
        if shared := first_repeated(gates):
            raise ValueError(f"members: two of them share gate {shared[1]} of {shared[0]!r}")
        return self


def parse_manifest(data: bytes, *, where: str) -> Manifest:
    """Read the bytes of an `ensemble.toml`; `where` is the file's path, for the message.

    Raises InvalidRepository, in one line that names the file, the field, what was expected and what came.
    """
    try:
        return parse_toml(Manifest, data)
    except ValueError as exc:
        raise InvalidRepository(f"{where}: {exc}") from exc
