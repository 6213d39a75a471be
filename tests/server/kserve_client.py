"""KServe's own clients, for tests, by the Python of `make kserve`: a question a line of JSON, an answer a line.

    python -m tests.server.kserve_client 127.0.0.1:8000 127.0.0.1:8001

A question says what to `do`, `by` which client: `rest` or `grpc` of the Open Inference Protocol, or `v1`.
"""

import asyncio
import json
import logging
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import grpc
import httpx
import numpy as np
from google.protobuf.json_format import MessageToDict
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub
from kserve.protocol.infer_type import RequestedOutput, to_http_parameters

Do = Callable[..., Awaitable[Any]]
DTYPES = {"FP16": np.float16, "FP32": np.float32, "FP64": np.float64, "INT64": np.int64, "UINT8": np.uint8}
"""Of numbers that tests send; all else is BYTES."""


async def main(http: str, rpc: str) -> None:
    async with AsyncExitStack() as stack:
        rest = await stack.enter_async_context(InferenceRESTClient(RESTConfig(protocol="v2")))
        v1 = await stack.enter_async_context(InferenceRESTClient(RESTConfig(protocol="v1")))
        over_grpc = await stack.enter_async_context(InferenceGRPCClient(rpc))
        stub = GRPCInferenceServiceStub(await stack.enter_async_context(grpc.aio.insecure_channel(rpc)))
        url = f"http://{http}"
        known: Mapping[tuple[str, str], Do] = {
            ("rest", "live"): partial(rest.is_server_live, url),
            ("rest", "ready"): partial(rest.is_server_ready, url),
            ("rest", "model_ready"): partial(rest.is_model_ready, url),
            ("rest", "infer"): lambda **said: _infer(partial(_by_rest, rest, url), **said),
            ("grpc", "live"): over_grpc.is_server_live,
            ("grpc", "ready"): over_grpc.is_server_ready,
            ("grpc", "model_ready"): over_grpc.is_model_ready,
            ("grpc", "infer"): lambda **said: _infer(over_grpc.infer, **said),
            ("grpc", "metadata"): lambda: _read(stub.ServerMetadata(pb.ServerMetadataRequest())),
            ("grpc", "model_metadata"): lambda **said: _read(stub.ModelMetadata(pb.ModelMetadataRequest(**said))),
            ("v1", "model_ready"): partial(v1.is_model_ready, url),
            ("v1", "infer"): partial(v1.infer, url),
        }
        for line in sys.stdin:
            question = json.loads(line)
            answer = await _answer(known[question.pop("by"), question.pop("do")], question)
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()


async def _answer(do: Do, said: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        return {"answer": await do(**said)}
    except httpx.HTTPStatusError as exc:
        return {"status": exc.response.status_code, "error": str(exc)}
    except grpc.RpcError as exc:
        return {"status": exc.code().name, "error": exc.details()}


async def _by_rest(client: InferenceRESTClient, url: str, request: InferRequest) -> Any:
    return await client.infer(url, request, model_name=request.model_name)


async def _infer(
    ask: Do,
    *,
    model_name: str,
    inputs: Mapping[str, tuple[str, Any]],
    binary: bool,
    outputs: Mapping[str, Mapping[str, Any]] | None = None,
    **said: Any,
) -> Mapping[str, Any]:
    """`inputs` are of datatypes and nested values; `outputs` those that are wanted, with their parameters."""
    wanted = None if outputs is None else [RequestedOutput(name, dict(outputs[name])) for name in outputs]
    made = [_input(name, *given, binary=binary) for name, given in inputs.items()]
    response = await ask(InferRequest(model_name, made, request_outputs=wanted, **said))
    return {
        "id": response.id,
        "model_name": response.model_name,
        "parameters": to_http_parameters(response.parameters or {}),
        "outputs": {output.name: _listed(output.as_numpy()) for output in response.outputs},
    }


def _input(name: str, datatype: str, values: Any, *, binary: bool) -> InferInput:
    array = np.array(values, dtype=DTYPES.get(datatype, np.object_))
    made = InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array, binary_data=binary)
    return made


def _listed(array: Any) -> Any:
    """BYTES, which one client has as bytes and the other as text, as text."""
    if array.dtype != np.object_:
        return array.tolist()
    texts = [value.decode() if isinstance(value, bytes) else value for value in array.ravel()]
    return np.array(texts, dtype=np.object_).reshape(array.shape).tolist()


async def _read(call: Awaitable[Any]) -> dict[str, Any]:
    said: dict[str, Any] = MessageToDict(await call, preserving_proto_field_name=True)
    return said


if __name__ == "__main__":
    logging.disable()  # the client logs what it raises, too
    asyncio.run(main(*sys.argv[1:]))
