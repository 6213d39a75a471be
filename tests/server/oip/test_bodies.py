"""Bodies of requests and answers over HTTP: JSON, and behind it the bytes of tensors."""

import asyncio
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from server.engine import Engine
from server.errors import InvalidInput
from server.oip.bodies import InferBody, read_infer, write_infer
from server.oip.envelopes import Envelope
from server.oip.infer import InferResponse, infer
from server.oip.models import Model, find_model
from server.oip.tensors import ELEMENTS, Datatype, from_list
from tests import tiny
from tests.server.codec.specs import refusal, refused

ROW = np.array([[1, 2, 3, 4]], dtype="<f4")
MODEL = Model(tiny.answering(3, 4))
"""Whose input `X` has four numbers."""


def body(*inputs: dict[str, Any], **fields: Any) -> bytes:
    return json.dumps({"inputs": inputs, **fields}).encode()


def head(size: int | None = None, data: Any = None, **changes: Any) -> dict[str, Any]:
    said: dict[str, Any] = {"name": "X", "shape": [1, 4], "datatype": "FP32", **changes}
    if size is not None:
        said["parameters"] = {"binary_data_size": size}
    if data is not None:
        said["data"] = data
    return said


def read(text: bytes, tail: bytes | None = None, length: int | None = None) -> InferBody:
    """A body of JSON, or with what follows it."""
    if tail is None:
        return read_infer(text, MODEL, json_length=length)
    return read_infer(text + tail, MODEL, json_length=len(text))


class TestJson:
    @pytest.mark.parametrize("data", [[1, 2, 3, 4], [[1, 2, 3, 4]], [1.5, 2, 3, 4]])
    @pytest.mark.parametrize("datatype", ["FP32", "FP64"])
    def test_one_tensor_of_numbers(self, datatype: Datatype, data: list[Any]) -> None:
        [tensor] = read(body(head(data=data, datatype=datatype))).tensors
        assert (tensor.name, tensor.datatype, tensor.shape) == ("X", datatype, (1, 4))
        assert_array_equal(tensor.values.ravel(), np.ravel(data))

    def test_several_tensors(self) -> None:
        said = read(body(head(data=[1, 2, 3, 4]), head(name="job", shape=[1], datatype="BYTES", data=["é"])))
        assert [tensor.values.ravel().tolist() for tensor in said.tensors] == [[1, 2, 3, 4], ["é"]]

    values = st.one_of(
        st.integers(-1, 256),
        st.integers(-(2**70), 2**70),
        st.floats(allow_nan=False, width=32),
        st.sampled_from([None, True, "1", 1e39, -1e39, 0.1, 1e-320]),
    )

    @given(
        st.sampled_from([datatype for datatype in ELEMENTS if datatype != "BYTES"]),
        st.lists(values, min_size=3, max_size=5),
        st.sampled_from([[1, 4], [4], [2, 2], [2, 2, 1]]),
        st.booleans(),
    )
    def test_the_short_way_reads_as_the_long_one(
        self, datatype: Datatype, data: list[Any], shape: list[int], nested: bool
    ) -> None:
        """A field with an escape is not read the short way."""
        given_ = np.array(data, dtype=object).reshape(shape).tolist() if nested and len(data) == 4 else data
        texts = [body(head(data=given_, shape=shape, datatype=datatype), id=id_) for id_ in ("a", '"')]
        outcomes: list[object] = []
        for text in texts:
            try:
                [tensor] = read(text).tensors
                with np.errstate(over="ignore"):
                    as_float = tensor.values.astype(np.float64).astype(np.float32)
                outcomes.append((tensor.shape, np.nan_to_num(as_float, nan=-7).tolist()))
            except InvalidInput as exc:
                outcomes.append(exc.message)
        assert outcomes[0] == outcomes[1]

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            (body(head(data=[1, 2, 3])), "input 'X': data: expected 4 values, flat or nested as [1, 4]; got 3 "),
            (body(head(data=[1, 2, 3, "4"])), "input 'X': data[3]: expected a number for FP32, that float32 holds; "),
            (body(head(data=[1, 2, 3, 256], datatype="UINT8")), "input 'X': data[3]: expected 0 to 255 for UINT8; "),
            (body(head(data=[1, 2, 3, 4.5], datatype="INT8")), "input 'X': data[3]: expected integers for INT8; "),
            (body(head(data={})), "input 'X': data: expected an array; got an object of 0 fields"),
            (body(head()), "input 'X': expected data; got none"),
            (body(head(16)), "input 'X': binary_data_size: expected the header Inference-Header-Content-Length too; "),
        ],
    )
    def test_refused(self, text: bytes, said: str) -> None:
        assert refusal(lambda: read(text)).startswith(said)


class TestBinary:
    def test_behind_the_json(self) -> None:
        [tensor] = read(body(head(16)), ROW.tobytes()).tensors
        assert_array_equal(tensor.values, ROW)

    def test_in_order_and_mixed_with_json(self) -> None:
        text = body(head(16), head(name="Y", data=[9, 9, 9, 9]), head(4, name="Z", datatype="UINT8"))
        said = read(text, ROW.tobytes() + b"\1\2\3\4")
        assert [tensor.values.ravel().tolist() for tensor in said.tensors] == [[1, 2, 3, 4], [9] * 4, [1, 2, 3, 4]]

    def test_nothing_behind_the_json(self) -> None:
        [tensor] = read(body(head(data=[1, 2, 3, 4])), b"").tensors
        assert_array_equal(tensor.values, ROW)

    @pytest.mark.parametrize(
        ("text", "tail", "said"),
        [
            (
                body(head(16)),
                bytes(15),
                "input 'X': binary_data_size: expected at most the 15 bytes that are left; got 16",
            ),
            (body(head(16)), bytes(17), "body: expected 16 bytes behind the JSON, as the inputs say; got 17"),
            (body(head(12)), bytes(12), "input 'X': expected 16 bytes of FP32 of shape [1, 4]; got 12"),
            (
                body(head(1 << 70)),
                bytes(8),
                "input 'X': binary_data_size: expected at most the 8 bytes that are left; ",
            ),
            (body(head(8), head(8, name="Y")), bytes(8), "input 'X': expected 16 bytes of FP32 of shape [1, 4]; got 8"),
            (body(head(data=[1, 2, 3, 4])), b"x", "body: expected 0 bytes behind the JSON, as the inputs say; got 1"),
        ],
    )
    def test_refused(self, text: bytes, tail: bytes, said: str) -> None:
        assert refusal(lambda: read(text, tail)).startswith(said)

    def test_a_length_beyond_the_body(self) -> None:
        assert refusal(lambda: read(b"{}", length=3)) == (
            "Inference-Header-Content-Length: expected at most the body's 2 bytes; got 3"
        )

    @given(st.binary(max_size=60), st.integers(0, 70))
    def test_any_bytes_are_read_or_refused(self, data: bytes, length: int) -> None:
        assert refused(lambda: read_infer(data, MODEL, json_length=length)) != ""


class TestRaw:
    def test_rows(self) -> None:
        said = read(np.concatenate([ROW, ROW]).tobytes(), length=0)
        assert said.envelope.binary
        assert_array_equal(said.tensors[0].values, [[1, 2, 3, 4]] * 2)

    @pytest.mark.parametrize("n", [0, 15, 17])
    def test_a_part_of_a_row(self, n: int) -> None:
        said = refusal(lambda: read(bytes(n), length=0))
        assert said == f"body: expected rows of 16 bytes of FP32; got {n} bytes"

    def test_of_several_inputs(self, engine: Engine) -> None:
        people = find_model(engine, "people")
        assert refusal(lambda: read_infer(b"x", people, json_length=0)) == (
            "Inference-Header-Content-Length: expected the length of JSON that names the 2 inputs; got 0"
        )


class TestAnswers:
    @pytest.fixture
    def response(self, engine: Engine) -> InferResponse:
        text = body(head(data=[[1, 2, 3, 4], [4, 3, 2, 1]], shape=[2, 4]), id="7")
        request = read(text).request(find_model(engine, "tiny", 1), read(text).envelope.options)
        return asyncio.run(infer(engine, request))

    def write(self, response: InferResponse, **fields: Any) -> tuple[dict[str, Any], bytes]:
        """The JSON, and what is behind it."""
        text, length = write_infer(response, self.asked(**fields))
        return json.loads(text[:length]), b"" if length is None else text[length:]

    def asked(self, **fields: Any) -> Envelope:
        return read(body(head(data=[0] * 4), **fields)).envelope

    def test_of_json(self, response: InferResponse) -> None:
        said, tail = self.write(response)
        assert tail == b""
        assert list(said) == ["model_name", "model_version", "id", "parameters", "outputs"]
        assert (said["model_name"], said["model_version"], said["id"]) == ("tiny", "1", "7")
        for output, tensor in zip(said["outputs"], response.outputs, strict=True):
            assert list(output) == ["name", "datatype", "shape", "data"]
            back = from_list(output["name"], output["datatype"], tuple(output["shape"]), output["data"])
            assert_array_equal(back.values, tensor.values)

    def test_of_bytes(self, response: InferResponse) -> None:
        said, tail = self.write(response, parameters={"binary_data_output": True})
        sizes = [output["parameters"]["binary_data_size"] for output in said["outputs"]]
        assert all("data" not in output for output in said["outputs"])
        assert sum(sizes) == len(tail)
        assert_array_equal(np.frombuffer(tail, "<f4", 6).reshape(2, 3), response.outputs[0].values)

    def test_of_both(self, response: InferResponse) -> None:
        """What is said of an output counts more than what is said of all."""
        said, tail = self.write(
            response,
            parameters={"binary_data_output": True},
            outputs=[{"name": "label", "parameters": {"binary_data": False}}],
        )
        by_name = {output["name"]: output for output in said["outputs"]}
        assert set(by_name["label"]["data"]) <= set(tiny.CLASSES)
        assert "data" not in by_name["probabilities"]
        assert tail.startswith(response.outputs[0].values.tobytes())

    def test_nan_is_null(self, engine: Engine) -> None:
        text = body(head(data=tiny.rows(50).ravel().tolist(), shape=[50, 4]))
        request = read(text).request(find_model(engine, "cascade"), read(text).envelope.options)
        said, _ = self.write(asyncio.run(infer(engine, request)))
        members = next(output for output in said["outputs"] if output["name"] == "member_probabilities")
        assert None in members["data"]

    def test_without_an_id(self, engine: Engine) -> None:
        said = read(body(head(data=[1, 2, 3, 4])))
        response = asyncio.run(infer(engine, said.request(find_model(engine, "tiny.m1"), said.envelope.options)))
        answer, _ = self.write(response)
        assert list(answer) == ["model_name", "model_version", "outputs"]
