"""The JSON of a request but for large data."""

import json
from typing import Any

import pytest

from server.codec.options import NO_OPTIONS, RequestOptions
from server.errors import Unsupported
from server.oip.envelopes import SHORT, Envelope, InputHead, read_envelope
from server.oip.parameters import Wanted
from tests.server.codec.specs import refusal

INPUT = {"name": "X", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}


def read(**fields: Any) -> Envelope:
    return read_envelope(json.dumps({"inputs": [INPUT], **fields}).encode())


def changed(**fields: Any) -> list[dict[str, Any]]:
    """The input with these fields; without those that are None."""
    return [{key: value for key, value in {**INPUT, **fields}.items() if value is not None}]


def test_the_least_that_there_is() -> None:
    said = read()
    assert said.inputs == [InputHead("X", "FP32", (1, 2), None, [1, 2])]
    assert (said.outputs, said.options, said.timeout, said.id) == ([], NO_OPTIONS, None, None)
    assert (said.binary, said.binary_outputs) == (False, {})


def test_all_that_there_is() -> None:
    said = read(
        id="7",
        model_name="tiny",
        model_version="1",
        inputs=[{"name": "X", "shape": [1, 2], "datatype": "FP32", "parameters": {"binary_data_size": 8}}],
        outputs=[
            {"name": "p", "parameters": {"binary_data": False}},
            {"name": "q", "parameters": {"binary_data": True}},
        ],
        parameters={"binary_data_output": True, "strategy": "vote", "timeout": 1000},
    )
    assert said.inputs == [InputHead("X", "FP32", (1, 2), 8, None)]
    assert said.outputs == [Wanted("p"), Wanted("q")]
    assert (said.options, said.timeout, said.id) == (RequestOptions(strategy="vote"), 1.0, "7")
    assert (said.binary, said.binary_outputs) == (True, {"p": False, "q": True})


def test_what_may_be_null() -> None:
    assert read(id=None, parameters=None, outputs=None, model_name=None) == read()


def test_short_ones_are_remembered_and_read_alike() -> None:
    short = json.dumps({"inputs": [INPUT], "id": "a"}).encode()
    assert read_envelope(short) is read_envelope(short)
    long = short + b" " * SHORT
    assert read_envelope(long) is not read_envelope(long)
    assert read_envelope(long) == read_envelope(short)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"inputs": None}, "inputs: expected an array; got none"),
        ({"inputs": {}}, "inputs: expected an array; got an object of 0 fields"),
        ({"inputs": [5]}, "inputs[0]: expected an object; got 5"),
        ({"inputs": changed(name=None)}, "inputs[0]: name: expected a string; got none"),
        ({"inputs": changed(name=5)}, "inputs[0]: name: expected a string; got 5"),
        ({"inputs": changed(name="x" * 1025)}, "inputs[0]: name: expected a string; got a string of 1025 characters"),
        ({"inputs": changed(x=1)}, "inputs[0]: expected no fields but 'name', 'shape', 'datatype', "),
        ({"inputs": changed(datatype=None)}, "input 'X': datatype: expected one of BOOL, "),
        ({"inputs": changed(shape=None)}, "input 'X': shape: expected an array of 1 to 16 integers; got null"),
        ({"inputs": changed(data=None)}, "input 'X': expected data; got none"),
        ({"inputs": changed(parameters=[])}, "input 'X': parameters: expected an object; got an array of 0"),
        (
            {"inputs": changed(parameters={"binary_data_size": 8})},
            "input 'X': binary_data_size: expected none beside data; got both",
        ),
        *(
            (
                {"inputs": changed(data=None, parameters={"binary_data_size": size})},
                "input 'X': binary_data_size: expected a number of bytes; got ",
            )
            for size in (-1, 1.0, True, "8", [8])
        ),
        ({"outputs": {}}, "outputs: expected an array; got an object of 0 fields"),
        ({"outputs": ["p"]}, "outputs[0]: expected an object; got the string 'p'"),
        ({"outputs": [{}]}, "outputs[0]: name: expected a string; got none"),
        ({"outputs": [{"name": "p", "shape": [1]}]}, "outputs[0]: expected no fields but 'name', 'parameters'; got"),
        (
            {"outputs": [{"name": "p", "parameters": {"binary_data": 1}}]},
            "output 'p': parameters: binary_data: expected true or false; got 1",
        ),
        ({"parameters": "vote"}, "parameters: expected an object; got the string 'vote'"),
        ({"parameters": {"binary_data_output": 1}}, "parameters: binary_data_output: expected true or false; got 1"),
        ({"id": 5}, "id: expected a string of at most 128 characters; got 5"),
        ({"id": "x" * 129}, "id: expected a string of at most 128 characters; got a string of 129 characters"),
        ({"model_name": 5}, "model_name: expected a string; got 5"),
        ({"model_version": 1}, "model_version: expected a string; got 1"),
        ({"instances": []}, "body: expected no fields but 'id', 'parameters', 'inputs', 'outputs', "),
    ],
)
def test_refused(fields: dict[str, Any], said: str) -> None:
    assert refusal(lambda: read(**fields)).startswith(said)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b"\xff", b'{"inputs": [], "inputs": []}'])
def test_what_is_no_object_of_json(text: bytes) -> None:
    assert refusal(lambda: read_envelope(text)).startswith("body: ")


def test_shared_memory() -> None:
    with pytest.raises(Unsupported):
        read(inputs=changed(data=None, parameters={"shared_memory_region": "r", "shared_memory_byte_size": 8}))
