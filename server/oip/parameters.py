"""Parameters of a request: options, as scalars, and those that clients of Triton send by themselves."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from server.codec.messages import listed, named, shown
from server.codec.numbers import is_number
from server.codec.options import LONGEST_MS, OPTIONS, RequestOptions, decode_options, join, parse_options
from server.errors import InvalidInput
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
IGNORED = frozenset({"priority", "sequence_id", "sequence_start", "sequence_end", "headers", "binary_data_output"})
"""What clients of Triton send and nothing here depends on, or what the transport sees to itself."""
IGNORED_PREFIX = "triton_"


def options_of(model: Model, parameters: Mapping[str, object], query: Iterable[tuple[str, str]] = ()) -> Options:
    """What the parameters, and those of a query, say together of how the model is to answer.

    Raises InvalidInput for a parameter that is unknown or malformed, and where the two differ.
    """
    options = parse_parameters(parameters)
    if query:
        options = join(parse_options(query, where="query"), options)
    if options.detail is not None:
        raise InvalidInput(f"detail: expected none; ask for outputs, such as {UNCERTAINTY}, instead")
    said = {name: value for name in ACCEPTED if (value := getattr(options, name)) is not None}
    if model.only is None:
        return Options(**said)
    if strange := [name for name in said if name not in OF_MEMBERS]:
        raise InvalidInput(f"{strange[0]}: expected none: {model.name!r} is one member; ask its ensemble")
    return replace(model.only, **said)


def parse_parameters(parameters: Mapping[str, object]) -> RequestOptions:
    """The options among a request's parameters. Raises InvalidInput."""
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
        elif name not in IGNORED and not name.startswith(IGNORED_PREFIX):
            raise InvalidInput(f"parameters: expected no others than {listed(ACCEPTED, name)}; got {named(name)}")
    if not texts and not numbers and timeout is None:
        return _NONE
    options = join(parse_options(texts, where="parameters"), decode_options(numbers))
    if timeout is None:
        return options
    return replace(options, deadline_ms=min(timeout, options.deadline_ms or timeout))


def _parse_timeout(value: object) -> float | None:
    """In milliseconds; of more than an hour, an hour."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise InvalidInput(f"parameters: {TIMEOUT}: expected microseconds, a whole number; got {shown(value)}")
    return min(value / 1000, LONGEST_MS) if value else None


_NONE = RequestOptions()
