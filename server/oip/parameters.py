"""Parameters of a request: options, as scalars, and those that clients of Triton send by themselves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from server.codec.messages import listed, named, shown
from server.codec.numbers import is_number
from server.codec.options import LONGEST_MS, NO_OPTIONS, OPTIONS, RequestOptions, decode_options, join, parse_options
from server.errors import InvalidInput, Unsupported
from server.oip.models import Model
from server.oip.outputs import UNCERTAINTY
from server.plan import Options

Scalar = bool | int | float | str
Parameters = Mapping[str, Scalar]

NUMBERS = ("cascade_threshold", "deadline_ms", "quorum", "abstain_below")
"""Options that may come as numbers; the others are text, written as in a query."""
ACCEPTED = tuple(name for name in OPTIONS if name != "detail")
"""Options that are parameters: of detail there is what the outputs say."""
OF_MEMBERS = ("deadline_ms", "abstain_below")
"""Those that make sense of a member that answers alone."""
TIMEOUT = "timeout"
"""Microseconds, from when the request came; 0: none."""
IGNORED = frozenset({"priority", "sequence_id", "sequence_start", "sequence_end", "headers"})
"""What clients of Triton send and nothing here depends on."""
IGNORED_PREFIX = "triton_"
SHARED_MEMORY = "shared_memory_"
CLASSIFICATION = "classification"
BINARY_DATA, BINARY_DATA_SIZE, BINARY_DATA_OUTPUT = "binary_data", "binary_data_size", "binary_data_output"


@dataclass(frozen=True, slots=True)
class Wanted:
    """An output that a request asks for."""

    name: str
    classes: int = 0
    """Of its answer, as text, only so many of the best; 0: all, as numbers."""


def options_of(model: Model, options: RequestOptions) -> Options:
    """How the model is to answer. Raises InvalidInput for what it has no use for."""
    if options is NO_OPTIONS:
        return model.only or Options()
    if options.detail is not None:
        raise InvalidInput(f"detail: expected none; ask for outputs, such as {UNCERTAINTY}, instead")
    said = {name: value for name in ACCEPTED if (value := getattr(options, name)) is not None}
    if model.only is None:
        return Options(**said)
    if strange := [name for name in said if name not in OF_MEMBERS]:
        raise InvalidInput(f"{strange[0]}: expected none: {model.name!r} is one member; ask its ensemble")
    return replace(model.only, **said)


def parse_parameters(parameters: Mapping[str, object]) -> RequestOptions:
    """The options among a request's parameters, and the nearer of its timeout and its deadline. Raises InvalidInput."""
    options, timeout = split_parameters(parameters)
    if timeout is None:
        return options
    return replace(options, deadline_ms=min(timeout, options.deadline_ms or timeout))


def split_parameters(parameters: Mapping[str, object]) -> tuple[RequestOptions, float | None]:
    """The options among a request's parameters, and its timeout, in milliseconds. Raises InvalidInput."""
    texts: list[tuple[str, str]] = []
    numbers: dict[str, object] = {}
    timeout: float | None = None
    for name, value in parameters.items():
        if not isinstance(value, bool | int | float | str):
            raise InvalidInput(
                f"parameters: {named(name)}: expected a string, a number, true or false; got {shown(value)}"
            )
        if name == TIMEOUT:
            timeout = _parse_timeout(value)
        elif name in ACCEPTED or name == "detail":
            if name in NUMBERS and is_number(value):
                numbers[name] = value
            elif isinstance(value, str):
                texts.append((name, value))
            else:
                raise InvalidInput(f"parameters: {name}: expected a string; got {shown(value)}")
        elif name not in IGNORED and name != BINARY_DATA_OUTPUT and not name.startswith(IGNORED_PREFIX):
            raise InvalidInput(f"parameters: expected no others than {listed(ACCEPTED, name)}; got {named(name)}")
    if not texts and not numbers:
        return NO_OPTIONS, timeout
    return join(parse_options(texts, where="parameters"), decode_options(numbers)), timeout


def _parse_timeout(value: object) -> float | None:
    """In milliseconds; of more than an hour, an hour."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise InvalidInput(f"parameters: {TIMEOUT}: expected microseconds, a whole number; got {shown(value)}")
    return min(value / 1000, LONGEST_MS) if value else None


def parse_wanted(name: str, parameters: Mapping[str, object]) -> Wanted:
    """An output with its parameters. Raises InvalidInput, and Unsupported for shared memory."""
    classes = 0
    for key, value in parameters.items():
        where = f"output {named(name)}: parameters: "
        if key == CLASSIFICATION:
            if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                raise InvalidInput(f"{where}{key}: expected a whole number; got {shown(value)}")
            classes = value
        elif key != BINARY_DATA:
            _refuse(key, where, (BINARY_DATA, CLASSIFICATION))
    return Wanted(name, classes)


def check_input_parameters(name: str, parameters: Mapping[str, object]) -> None:
    """Raise InvalidInput for those that no input has, and Unsupported for shared memory."""
    for key in parameters:
        if key != BINARY_DATA_SIZE:
            _refuse(key, f"input {named(name)}: parameters: ", (BINARY_DATA_SIZE,))


def _refuse(name: str, where: str, known: Sequence[str]) -> None:
    if name.startswith(SHARED_MEMORY):
        raise Unsupported(f"{where}there is no shared memory with this server")
    raise InvalidInput(f"{where}expected no others than {listed(known)}; got {named(name)}")
