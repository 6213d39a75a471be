"""The manifest `ensemble.toml`: the contract between what publishes an ensemble and what serves it."""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from server.errors import InvalidRepository
from server.toml import Table, first_repeated, parse_toml

NAME_PATTERN = r"^[A-Za-z0-9_][A-Za-z0-9_-]{0,63}$"
MANIFEST_FILE = "ensemble.toml"
VECTORS_FILE = "vectors.npz"
REPORT_FILE = "report.json"
GATES_INPUT = "members"
"""The boolean input `(n_members,)` of a packed graph: which members are to run."""
ANSWERS_INPUT = "answers"
"""The input `(n_members, n, n_classes)` of a final estimator: what the members have answered."""
STACK_INPUT, MEAN_INPUT = "/stack", "/mean"
"""The boolean inputs `(1,)` of a packed graph: whether its final estimator is to run, and whether it is to average."""

REPLAY_TOLERANCE = 1e-4
"""How far a replayed test vector may lie from the recorded probability: processors differ in their last digits."""
RESERVED_INPUTS = frozenset({GATES_INPUT, ANSWERS_INPUT, "weights", "member_probabilities", "probabilities", "stacked"})
"""Names that tensors of a packed graph, or arrays of the test vectors, have already."""


def _not_reserved(name: str) -> str:
    if name in RESERVED_INPUTS:
        raise ValueError(f"expected a name other than {', '.join(sorted(RESERVED_INPUTS))}")
    return name


def _no_single_class(names: list[str]) -> list[str]:
    if len(names) == 1:
        raise PydanticCustomError("too_short", "List should have at least 2 items, not 1")
    return names


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
Task = Literal["classification", "regression"]
OnFailure = Literal["fail", "degrade"]
OutputName = Annotated[str, Field(min_length=1, max_length=256)]
ClassNames = Annotated[list[OutputName], AfterValidator(_no_single_class)]
TargetNames = Annotated[list[OutputName], Field(max_length=4096)]
Quorum = Annotated[int, Field(ge=1, le=256)]
Threshold = Annotated[float, Field(ge=0, le=1)]
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


class FinalEstimatorSpec(Table):
    """The learned combiner of stacking: an output `(n, n_classes)` of a graph that reads `answers`.

    Other inputs of the graph are the ensemble's, which get no rows, and the gates of a packed one, which are shut.
    """

    file: FileName
    output: str


class StageSpec(Table):
    members: Annotated[list[Name], Field(min_length=1)]
    threshold: Threshold = 1.0
    """A row whose answer is at least so sure stops here; in the last stage every row does."""


class CascadeSpec(Table):
    """Members in stages, cheap ones first: a row goes on to the next only while its answer is not sure enough.

    The answer of a stage is the fusion of all members that have run by then (Wang et al. 2021, Wisdom of Committees).
    """

    strategy: str
    """Which fuses the members of the stages."""
    measure: Literal["confidence", "agreement"] = "confidence"
    """How sure an answer is: the probability of its label, or the share of the members that say the same."""
    tolerance: Threshold | None = None
    """Share of rows by which its accuracy on the fitted rows may lie below that of all members."""
    stages: Annotated[list[StageSpec], Field(min_length=2, max_length=256)]


class FileSpec(Table):
    name: FileName
    sha256: Sha256
    bytes: Annotated[int, Field(ge=0, lt=1 << 48)]


def fill_in_strategy(said: Any) -> Any:
    """With the default strategy of the task, where a manifest names none."""
    if not isinstance(said, dict) or "default_strategy" in said:
        return said
    return {**said, "default_strategy": "mean" if said.get("task") == "regression" else "average"}


def check_outputs(task: Task, classes: list[str], targets: list[str]) -> None:
    """Raises ValueError unless a classification has classes, a regression targets, and neither the other's."""
    wanted, own, other, strange = (
        ("classes", classes, "targets", targets)
        if task == "classification"
        else ("targets", targets, "classes", classes)
    )
    if not own:
        raise PydanticCustomError("missing", f"{wanted}: Field required: a {task} has {wanted}")
    if strange:
        raise PydanticCustomError("strange", f"{other}: a {task} has none, but {wanted}; got {len(strange)}")


def _check_stages(cascade: CascadeSpec, names: list[str]) -> None:
    staged = [name for stage in cascade.stages for name in stage.members]
    if unknown := [name for name in staged if name not in names]:
        raise ValueError(f"cascade: expected members of the ensemble, {', '.join(names)}; got {unknown[0]!r}")
    if twice := first_repeated(staged):
        raise ValueError(f"cascade: member {twice!r} is in more than one stage")


class Manifest(Table):
    """What `ensemble.toml` says. A version's folder holds this file and the files that it lists, nothing else.

    A hand-made one may say less: `server.handmade` reads the rest off the graphs.
    """

    format: Literal[1] = 1
    """The version of the manifest's format."""
    name: Name
    version: VersionNumber
    task: Task = "classification"
    description: str = ""
    created: str = ""
    default_strategy: str = ""
    """If it is not said, `average`; of a regression, `mean`."""
    on_failure: OnFailure = "degrade"
    """What becomes of a request when a member fails or is late: an error, or the answer of the others."""
    quorum: Quorum | None = None
    """The least number of members that make an answer; None: a majority of those that are asked."""
    max_batch_size: RowLimit = 4096
    """The most rows that one request may hold."""
    classes: ClassNames = Field(default_factory=list)
    """Of a classification, two at least."""
    targets: TargetNames = Field(default_factory=list)
    """Of a regression: the names of the numbers that it predicts."""
    inputs: Annotated[list[InputSpec], Field(min_length=1, max_length=4096)]
    members: Annotated[list[MemberSpec], Field(min_length=1, max_length=256)]
    final_estimator: FinalEstimatorSpec | None = None
    cascade: CascadeSpec | None = None
    files: Annotated[list[FileSpec], Field(min_length=1)]

    _filled_in = model_validator(mode="before")(fill_in_strategy)

    @property
    def outputs(self) -> list[str]:
        """What the columns of an answer stand for: classes, or targets."""
        return self.classes or self.targets

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        check_outputs(self.task, self.classes, self.targets)
        for what, values in (
            ("classes", self.classes),
            ("targets", self.targets),
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
        if self.final_estimator is not None and self.final_estimator.file not in listed:
            raise ValueError(f"final_estimator: its file {self.final_estimator.file!r} is not among the files")
        if self.task == "regression" and (self.final_estimator is not None or self.cascade is not None):
            raise ValueError("a regression has neither a final_estimator nor a cascade")
        if self.cascade is not None:
            _check_stages(self.cascade, [member.name for member in self.members])
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
