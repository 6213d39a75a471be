"""Media types: which there are for a body, and which of them an ensemble's inputs can be read from."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from server.errors import UnsupportedMediaType
from server.manifest import InputSpec
from server.rows import is_table

JSON = "application/json"
FORM = "multipart/form-data"
RAW = "application/octet-stream"
NPY = "application/x-npy"
CSV = "text/csv"
PNG, JPEG, WEBP = "image/png", "image/jpeg", "image/webp"
PICTURES = (PNG, JPEG, WEBP)
TYPES = (JSON, *PICTURES, FORM, RAW, NPY, CSV)

_PARAMETERS: dict[str, Mapping[str, tuple[str, ...] | None]] = {
    JSON: {"charset": ("utf-8",)},
    CSV: {"charset": ("utf-8",)},
    RAW: {"dtype": ("float32", "uint8")},
    FORM: {"boundary": None},
}
"""By type: the parameters that it may have, with their values; None if any."""

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_TYPE = re.compile(rf"{_TOKEN}/{_TOKEN}")
_PARAMETER = re.compile(rf'[ \t]*;[ \t]*(?:({_TOKEN})=(?:({_TOKEN})|"([^"\\]*)"))?[ \t]*')


@dataclass(frozen=True, slots=True)
class Media:
    """A media type: lower case, one of TYPES, and its parameters."""

    type: str
    parameters: Mapping[str, str] = field(default_factory=dict)


def parse_media(text: str, *, where: str = "Content-Type") -> Media:
    """From `application/octet-stream; dtype=uint8`. Raises UnsupportedMediaType, which lists what there is."""
    type_, parameters = _split(text.strip())
    if type_ not in TYPES:
        raise UnsupportedMediaType(f"{where}: expected one of {', '.join(TYPES)}; got {text[:64]!r}")
    known = _PARAMETERS.get(type_, {})
    for name, value in parameters.items():
        values = known.get(name, ())
        if values is not None and value.lower() not in values:
            told = "; ".join(f"{name}={' or '.join(values or ('…',))}" for name, values in known.items())
            raise UnsupportedMediaType(f"{where}: expected {type_}{told and '; ' + told}; got {text[:64]!r}")
    return Media(type_, {name: value if known[name] is None else value.lower() for name, value in parameters.items()})


def is_picture(inputs: Sequence[InputSpec]) -> bool:
    """Whether the one input is a picture: `[height, width]`, with or without 1 or 3 channels, from 0 to 255."""
    [spec, *others] = inputs
    channels = spec.shape[2:]
    whole = len(spec.shape) == 2 or channels in ([1], [3])
    return not others and spec.datatype == "FP32" and whole and (spec.low, spec.high) == (0, 255)


def types_for(inputs: Sequence[InputSpec]) -> tuple[str, ...]:
    """The media types from which rows of these inputs can be read."""
    if is_table(inputs):
        return (JSON, CSV, FORM)
    pictures = PICTURES if is_picture(inputs) else ()
    return (JSON, *pictures, FORM, RAW, NPY, CSV)


def check_media(type_: str, inputs: Sequence[InputSpec], *, where: str = "Content-Type") -> None:
    """Raise UnsupportedMediaType unless the ensemble's rows can be read from this type."""
    if type_ in (RAW, NPY) and not is_table(inputs):
        return
    taken = types_for(inputs)
    if type_ not in taken:
        kind = "a table" if is_table(inputs) else "no picture with values from 0 to 255"
        raise UnsupportedMediaType(
            f"{where}: the ensemble's input is {kind}; expected one of {', '.join(taken)}; got {type_}"
        )


def _split(text: str) -> tuple[str, dict[str, str]]:
    """The type in lower case, empty if it is malformed, and the parameters."""
    if not (match := _TYPE.match(text)):
        return "", {}
    type_, place, parameters = match[0].lower(), match.end(), {}
    while place < len(text):
        if not (parameter := _PARAMETER.match(text, place)):
            return "", {}
        place = parameter.end()
        if (name := (parameter[1] or "").lower()) in parameters:
            return "", {}
        if name:
            parameters[name] = parameter[2] if parameter[3] is None else parameter[3]
    return type_, parameters
