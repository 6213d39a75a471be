"""Bodies of predict requests, of every media type, to rows and options."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from server.bounds import Bounds
from server.codec.arrays import NPY_MAGIC, decode_npy, decode_raw
from server.codec.csv_rows import decode_csv_table, decode_csv_tensor
from server.codec.fast_json import read_numbers
from server.codec.forms import Part, parse_form
from server.codec.json_text import LIGHT, check_weight, parse_object
from server.codec.media import CSV, FORM, JSON, NPY, PICTURES, RAW, Media, check_media
from server.codec.messages import named, shown
from server.codec.options import NO_OPTIONS, OPTIONS, RequestOptions, decode_options, parse_options
from server.codec.pictures import PictureDecoder, sniff_picture
from server.codec.tables import decode_objects
from server.codec.tensors import decode_tensor
from server.errors import InvalidInput, TooLarge
from server.manifest import InputSpec
from server.rows import Rows, is_table

INLINE_BYTES = 1 << 18
"""What is no longer is decoded at once, in about a millisecond; a thread would take as long to be asked."""
MAX_ID_LENGTH = 128
FIELDS = ("instances", "id", *OPTIONS)
_FIELDS = frozenset(FIELDS)
BOUNDS = Bounds()
OPTION_COMMAS = 1 << 12
"""More than there are in the options of a body, and in its id."""
FIELD_BYTES = 1 << 16
"""Of a field of a form."""


@dataclass(slots=True, kw_only=True)  # not frozen: that takes three times as long to make
class PredictBody:
    rows: Rows
    """`(n, *shape)` float32, or a table's `(n,)`: checked against the ensemble's inputs."""
    id: str | None = None
    options: RequestOptions = NO_OPTIONS


def decode_predict(
    body: bytes, media: Media, inputs: Sequence[InputSpec], *, max_rows: int, bounds: Bounds = BOUNDS
) -> PredictBody:
    """Read a body of this media type for an ensemble with these inputs.

    Raises InvalidInput, which says what was expected, what came and where; UnsupportedMediaType for a type that such
    inputs cannot be read from; TooLarge for more than `max_rows` rows, too many pixels, or JSON that would take too
    much memory.
    """
    if media.type == JSON:  # of which every ensemble can be read
        return decode_json(body, inputs, max_rows=max_rows, bounds=bounds)
    check_media(media.type, inputs)
    if media.type == RAW:
        return PredictBody(rows=_decode_numbers(body, media, inputs, max_rows))
    pictures = PictureDecoder(inputs[0].shape, max_pixels=bounds.max_pixels)
    if media.type == FORM:
        return _decode_form(body, media, inputs, pictures, max_rows=max_rows)
    return PredictBody(rows=_decode_rows(body, media, inputs, pictures, max_rows))


def decode_json(body: bytes, inputs: Sequence[InputSpec], *, max_rows: int, bounds: Bounds = BOUNDS) -> PredictBody:
    """Read `{"instances": […]}`, which may hold `id` and the options too.

    A row is an array, flat or nested as the input's shape with or without its last dimensions of 1; of a table it is an
    object. Raises InvalidInput and TooLarge.
    """
    check_weight(body, bounds)
    if not is_table(inputs):
        _check_size(body, math.prod(inputs[0].shape), max_rows)
    if not is_table(inputs) and (plain := _decode_plain(body, inputs[0], max_rows)) is not None:
        return plain
    fields = parse_object(body, bounds)
    for name in fields:
        if name not in FIELDS:
            raise InvalidInput(f"body: expected no fields but {', '.join(FIELDS)}; got {shown(name)}")
    if "instances" not in fields:
        raise InvalidInput('body: expected a field "instances", an array of rows; got none')
    instances = fields["instances"]
    if not isinstance(instances, list) or not instances:
        raise InvalidInput(f"instances: expected an array of at least one row; got {shown(instances)}")
    if len(instances) > max_rows:
        raise TooLarge(f"instances: expected at most {max_rows} rows; got {len(instances)}")
    place = "instances[{}]".format
    rows = decode_objects(instances, inputs, place) if is_table(inputs) else decode_tensor(instances, inputs[0], place)
    return PredictBody(rows=rows, id=_decode_id(fields), options=decode_options(fields))


def _check_size(body: bytes, size: int, max_rows: int) -> None:
    """Raise TooLarge for a long body of more numbers than so many rows have: what it takes to parse it is in vain."""
    if len(body) > LIGHT and body.count(b",") > max_rows * size + OPTION_COMMAS:
        raise TooLarge(f"instances: expected at most {max_rows} rows of {size} numbers; got more numbers")


def _decode_plain(body: bytes, spec: InputSpec, max_rows: int) -> PredictBody | None:
    """Of rows that hold nothing but numbers; None if they hold more, or if anything is wrong."""
    read = read_numbers(body, spec, max_rows=max_rows)
    if read is None or not read[1].keys() <= _FIELDS:
        return None
    rows, fields = read
    if not fields:
        return PredictBody(rows=rows)
    try:
        return PredictBody(rows=rows, id=_decode_id(fields), options=decode_options(fields))
    except InvalidInput:
        return None


def _decode_id(fields: Mapping[str, Any]) -> str | None:
    if "id" not in fields:
        return None
    value = fields["id"]
    if not isinstance(value, str) or len(value) > MAX_ID_LENGTH:
        raise InvalidInput(f"id: expected a string of at most {MAX_ID_LENGTH} characters; got {shown(value)}")
    return value


def _decode_rows(
    data: bytes, media: Media, inputs: Sequence[InputSpec], pictures: PictureDecoder, max_rows: int
) -> Rows:
    """Of a body, or a file of a form, that holds nothing but rows."""
    if media.type in PICTURES:
        return pictures.decode(data, media.type).astype(np.float32)
    if media.type == CSV:
        if is_table(inputs):
            return decode_csv_table(data, inputs, max_rows=max_rows)
        return decode_csv_tensor(data, inputs[0], max_rows=max_rows)
    return _decode_numbers(data, media, inputs, max_rows)


def _decode_numbers(data: bytes, media: Media, inputs: Sequence[InputSpec], max_rows: int) -> Rows:
    if media.type == NPY or (data.startswith(NPY_MAGIC) and "dtype" not in media.parameters):
        return decode_npy(data, inputs[0], max_rows=max_rows)
    return decode_raw(data, inputs[0], dtype=media.parameters.get("dtype", "float32"), max_rows=max_rows)


def _decode_form(
    body: bytes, media: Media, inputs: Sequence[InputSpec], pictures: PictureDecoder, *, max_rows: int
) -> PredictBody:
    """Every file holds a row, or several; the other fields are options."""
    if "boundary" not in media.parameters:
        raise InvalidInput("Content-Type: expected multipart/form-data with its boundary; got none")
    parts = parse_form(body, media.parameters["boundary"], max_parts=max_rows + len(OPTIONS))
    options = parse_options(_fields(parts), where="form")
    rows: list[Rows] = []
    for part in parts:
        if part.filename is not None:
            left = max_rows - sum(map(len, rows))
            if not left:
                raise TooLarge(f"form: expected at most {max_rows} rows; got more")
            rows.append(_decode_file(part, part.filename, inputs, pictures, left))
    if not rows:
        raise InvalidInput("form: expected at least one file; got none")
    return PredictBody(rows=np.concatenate(rows), options=options)


def _fields(parts: Iterable[Part]) -> list[tuple[str, str]]:
    fields = []
    for part in parts:
        if part.filename is None:
            if len(part.data) > FIELD_BYTES:
                raise TooLarge(f"form: field {named(part.name)}: expected at most {FIELD_BYTES} bytes; got more")
            fields.append((part.name, part.data.decode(errors="replace")))
    return fields


def _decode_file(
    part: Part, filename: str, inputs: Sequence[InputSpec], pictures: PictureDecoder, max_rows: int
) -> Rows:
    """The rows of one file. Raises InvalidInput and its kinds, which name the file."""
    try:
        media = Media(_type_of(part, filename))
        check_media(media.type, inputs, where="its type")
        return _decode_rows(part.data, media, inputs, pictures, max_rows)
    except InvalidInput as exc:
        raise type(exc)(f"file {named(filename)}: {exc.message}") from exc


def _type_of(part: Part, filename: str) -> str:
    """By what is declared, if that is a type of files; else by the first bytes, or the name of a CSV file."""
    declared = part.type.partition(";")[0].strip().lower()
    if declared in (*PICTURES, NPY, CSV):
        return declared
    if part.data.startswith(NPY_MAGIC):
        return NPY
    if found := sniff_picture(part.data):
        return found
    if filename.lower().endswith(".csv"):
        return CSV
    raise InvalidInput("expected a PNG, JPEG or WebP picture, an .npy or a .csv file; got something else")
