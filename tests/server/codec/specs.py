"""Inputs for tests, and what a decoder says of what it refuses."""

from collections.abc import Callable

import pytest

from server.errors import InvalidInput
from server.manifest import InputSpec
from tests.tiny import JOBS

FOUR = InputSpec(name="X", shape=[4])
GAPPY = InputSpec(name="X", shape=[4], low=-10.0, high=10.0, missing=True)
IMAGE = InputSpec(name="image", shape=[28, 28, 1], low=0.0, high=255.0)
AGE = InputSpec(name="age", shape=[1], low=0.0, high=120.0, missing=True)
JOB = InputSpec(name="job", datatype="BYTES", shape=[1], categories=JOBS)
NOTE = InputSpec(name="note", datatype="BYTES", shape=[1], missing=True)
HEIGHT = InputSpec(name="height", shape=[1])
TABLE = [AGE, JOB]
WIDE = [AGE, JOB, NOTE, HEIGHT]


def refusal(call: Callable[[], object], kind: type[InvalidInput] = InvalidInput) -> str:
    """The message of the error that the call raises, which is of exactly this kind."""
    with pytest.raises(InvalidInput) as caught:
        call()
    assert type(caught.value) is kind
    return caught.value.message


def refused(call: Callable[[], object]) -> str | None:
    """The message if the call refuses what it is given, None if it takes it; any other error is raised."""
    try:
        call()
    except InvalidInput as exc:
        return exc.message
    return None
