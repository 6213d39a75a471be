"""A server in a process of its own: in this one Triton's client has its own messages of the same names."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import tritonclient.grpc as triton
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2

from tests.server.processes import Server, running

SECONDS = 30
SERVICE = "inference.GRPCInferenceService"


@dataclass
class RpcServed:
    http: Server
    address: str


@contextmanager
def serving(folder: Path, *options: str) -> Iterator[RpcServed]:
    with running(folder, "--grpc-port", "0", *options) as http:
        [entry] = http.said("^gRPC on ")
        yield RpcServed(http, entry["message"].rpartition(" ")[2])


def tensor(name: str, values: NDArray[Any], datatype: str = "FP32") -> triton.InferInput:
    given = triton.InferInput(name, list(values.shape), datatype)
    given.set_data_from_numpy(values)
    return given


def infer(
    client: triton.InferenceServerClient, rows: NDArray[Any], *, of: str = "tiny", name: str = "X", **said: Any
) -> triton.InferResult:
    return client.infer(of, [tensor(name, rows.astype(np.float32))], **said)


def message(model: str = "tiny", **fields: Any) -> service_pb2.ModelInferRequest:
    return service_pb2.ModelInferRequest(model_name=model, **fields)


def entry(datatype: str, shape: Sequence[int], name: str = "X", **contents: Any) -> Any:
    """An input with typed contents, if there are any."""
    made = service_pb2.ModelInferRequest.InferInputTensor(name=name, datatype=datatype, shape=shape)
    if contents:
        made.contents.CopyFrom(service_pb2.InferTensorContents(**contents))
    return made


def call(channel: grpc.Channel, method: str, request: bytes | Any, *, metadata: Any = ()) -> tuple[Any, Any]:
    """The bytes of the answer, and the call."""
    data = request if isinstance(request, bytes) else request.SerializeToString()
    answer, done = channel.unary_unary(f"/{SERVICE}/{method}").with_call(data, timeout=SECONDS, metadata=metadata)
    return answer, done


def ask(channel: grpc.Channel, request: service_pb2.ModelInferRequest) -> service_pb2.ModelInferResponse:
    data, _ = call(channel, "ModelInfer", request)
    return service_pb2.ModelInferResponse.FromString(data)


def refusal(channel: grpc.Channel, request: bytes | Any, method: str = "ModelInfer") -> tuple[grpc.StatusCode, str]:
    try:
        call(channel, method, request)
    except grpc.RpcError as exc:
        return exc.code(), exc.details()
    raise AssertionError("it was answered")
