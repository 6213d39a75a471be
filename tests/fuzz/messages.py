"""Changes to protocol buffers by what they hold: fields of any depth get other values, come twice, or go."""

from collections.abc import Callable, Iterator
from random import Random
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

INTEGERS = (0, 1, -1, 2, 7, 16, 255, 1 << 16, (1 << 31) - 1, -(1 << 31), 1 << 40, (1 << 63) - 1, -(1 << 63))
FLOATS = (0.0, -1.0, 1e-45, 3.4e38, float("inf"), float("-inf"), float("nan"))
TEXTS = ("", "X", "W", "probabilities", "/etc/passwd", "..", "ai.onnx.ml", "com.evil", "\0", "x" * 10_000)
OPERATORS = (
    *("Identity", "Loop", "If", "Scan", "Sequence", "Gather", "Reshape", "Expand", "Tile", "ConstantOfShape", "Range"),
    *("Concat", "Split", "Pad", "Resize", "TopK", "Einsum", "MatMul", "Softmax", "Cast", "RandomNormalLike", "NonZero"),
    *("TreeEnsembleClassifier", "Conv", "LSTM", "GridSample", "StringNormalizer", "Optional", "Unique", "CumSum"),
)
MOST_BYTES = 64


def change(random: Random, message: Message) -> None:
    """One field of the message, or of one within it. What a field cannot hold stays as it was."""
    within = list(_within(message))
    chosen = random.choice(within)
    fields = [field for field in chosen.DESCRIPTOR.fields if random.random() < 0.7 or _is_set(chosen, field)]
    if not fields:
        return
    field = random.choice([field for field in fields if _is_set(chosen, field)] or fields)
    try:
        if field.is_repeated:
            _change_repeated(random, getattr(chosen, field.name), field, within)
        elif field.message_type is not None:
            _change_message(random, chosen, field, within)
        else:
            setattr(chosen, field.name, _scalar(random, field, getattr(chosen, field.name)))
    except (ValueError, TypeError, RecursionError):
        return


def _within(message: Message) -> Iterator[Message]:
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in value if field.is_repeated else (value,):
                yield from _within(part)


def _is_set(message: Message, field: FieldDescriptor) -> bool:
    return any(known.name == field.name for known, _ in message.ListFields())


def _change_repeated(random: Random, values: Any, field: FieldDescriptor, within: list[Message]) -> None:
    at = random.randrange(len(values)) if len(values) else 0
    what = random.choice(("delete", "double", "replace", "add", "swap")) if len(values) else "add"
    if what == "delete":
        del values[at]
    elif field.message_type is not None:
        others = [other for other in within if other.DESCRIPTOR is field.message_type]
        source = _copy(values[at] if what == "double" else random.choice(others)) if others else None
        target = values.add() if what in ("double", "add") else values[at]
        if source is not None:
            target.CopyFrom(source)
    elif what == "swap":
        other = random.randrange(len(values))
        values[at], values[other] = values[other], values[at]
    elif what == "replace":
        values[at] = _scalar(random, field, values[at])
    else:
        values.append(values[at] if what == "double" else _scalar(random, field, None))


def _change_message(random: Random, message: Message, field: FieldDescriptor, within: list[Message]) -> None:
    others = [other for other in within if other.DESCRIPTOR is field.message_type]
    if others and random.random() < 0.6:
        getattr(message, field.name).CopyFrom(_copy(random.choice(others)))
    else:
        message.ClearField(field.name)


def _copy(message: Message) -> Message:
    """Of one that may hold where the copy goes: into itself nothing can be copied."""
    copy = type(message)()
    copy.CopyFrom(message)
    return copy


def _scalar(random: Random, field: FieldDescriptor, was: Any) -> Any:
    makers: dict[int, Callable[[], Any]] = {
        FieldDescriptor.CPPTYPE_INT32: lambda: random.choice([*INTEGERS[:10], (was or 0) + random.choice((-1, 1))]),
        FieldDescriptor.CPPTYPE_INT64: lambda: random.choice([*INTEGERS, (was or 0) + random.choice((-1, 1))]),
        FieldDescriptor.CPPTYPE_UINT64: lambda: random.choice([number for number in INTEGERS if number >= 0]),
        FieldDescriptor.CPPTYPE_FLOAT: lambda: random.choice(FLOATS),
        FieldDescriptor.CPPTYPE_DOUBLE: lambda: random.choice(FLOATS),
        FieldDescriptor.CPPTYPE_ENUM: lambda: random.choice(field.enum_type.values).number,
        FieldDescriptor.CPPTYPE_STRING: lambda: _text(random, field, was),
    }
    return makers[field.cpp_type]()


def _text(random: Random, field: FieldDescriptor, was: Any) -> Any:
    if field.type == FieldDescriptor.TYPE_STRING:
        return random.choice((*OPERATORS, *TEXTS)) if field.name != "op_type" else random.choice(OPERATORS)
    data = bytearray(was or b"")
    if data and random.random() < 0.7:
        data[random.randrange(len(data))] = random.choice((0, 0x7F, 0x80, 0xFF))
        return bytes(data)
    return bytes(data[: random.randint(0, len(data))]) + random.randbytes(random.randint(0, MOST_BYTES))
