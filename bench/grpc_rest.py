"""The Open Inference Protocol over gRPC beside HTTP: the same rows as bytes, from one client to one worker.

    python -m bench.grpc_rest [--seconds 3] [--rows 1,32] [--connections 1,8]

For each it prints requests a second, milliseconds at the median and at the 99th percentile, and the microseconds of
processor that the worker spends on a request. The client runs in this process, on its own event loop; over gRPC it
takes about as long for a request as the server does, so that with several connections the client is the limit.
"""

import argparse
import asyncio
import json
import os
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import grpc
import numpy as np
from rich.console import Console
from rich.table import Table

from bench.serving import serving
from export.commands import count, positive
from server.rpc.inference_pb2 import ModelInferRequest

MODEL, INPUT, SHAPE = "fashion-fast", "image", (28, 28, 1)
METHOD = "/inference.GRPCInferenceService/ModelInfer"

Ask = Callable[[], Awaitable[None]]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="The Open Inference Protocol over gRPC beside HTTP.")
    parser.add_argument("--seconds", type=positive, default=3.0, help="for each figure")
    parser.add_argument("--rows", type=_counts, default="1,32")
    parser.add_argument("--connections", type=_counts, default="1,8")
    options = parser.parse_args(arguments)
    table = Table("rows", "connections", "over", "requests/s", "p50 ms", "p99 ms", "worker µs/request")
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder) / "log", workers=1) as server:
        (worker,) = server.ready()
        for n_rows in options.rows:
            for connections in options.connections:
                for name, run in (
                    ("HTTP", _over_http(server.port, n_rows)),
                    ("gRPC", _over_grpc(server.rpc_port, n_rows)),
                ):
                    figures = asyncio.run(_measure(run, worker, connections, options.seconds))
                    table.add_row(str(n_rows), str(connections), name, *figures)
    Console().print(table)


def _counts(text: str) -> list[int]:
    """Numbers with commas between them. Raises ArgumentTypeError."""
    return [count(number) for number in text.split(",")]


def _pixels(n_rows: int) -> bytes:
    return np.random.default_rng(0).integers(0, 256, (n_rows, *SHAPE)).astype("<f4").tobytes()


def _over_http(port: int, n_rows: int) -> Callable[[], Awaitable[Ask]]:
    pixels = _pixels(n_rows)
    said = {"name": INPUT, "shape": [n_rows, *SHAPE], "datatype": "FP32"}
    head = json.dumps(
        {
            "parameters": {"binary_data_output": True},
            "inputs": [{**said, "parameters": {"binary_data_size": len(pixels)}}],
            "outputs": [{"name": "probabilities"}],
        }
    ).encode()
    request = (
        f"POST /v2/models/{MODEL}/infer HTTP/1.1\r\nHost: x\r\nInference-Header-Content-Length: {len(head)}\r\n"
        f"Content-Length: {len(head) + len(pixels)}\r\n\r\n"
    ).encode()

    async def connect() -> Ask:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)

        async def ask() -> None:
            writer.write(request + head + pixels)
            answer = await reader.readuntil(b"\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 200 "), answer
            length = answer.lower().partition(b"\r\ncontent-length: ")[2].partition(b"\r")[0]
            await reader.readexactly(int(length))

        return ask

    return connect


def _over_grpc(port: int, n_rows: int) -> Callable[[], Awaitable[Ask]]:
    said = ModelInferRequest.InferInputTensor(name=INPUT, datatype="FP32", shape=[n_rows, *SHAPE])
    wanted = [ModelInferRequest.InferRequestedOutputTensor(name="probabilities")]
    request = ModelInferRequest(
        model_name=MODEL, inputs=[said], outputs=wanted, raw_input_contents=[_pixels(n_rows)]
    ).SerializeToString()

    async def connect() -> Ask:
        options = [("grpc.use_local_subchannel_pool", 1)]
        method = grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options).unary_unary(METHOD)

        async def ask() -> None:
            await method(request)

        return ask

    return connect


async def _measure(
    connect: Callable[[], Awaitable[Ask]], worker: int, connections: int, seconds: float
) -> tuple[str, ...]:
    asks = [await connect() for _ in range(connections)]
    await asyncio.gather(*map(_warm, asks))
    taken: list[float] = []
    burnt, began = _processor(worker), time.perf_counter()

    async def go_on(ask: Ask) -> None:
        while (start := time.perf_counter()) < began + seconds:
            await ask()
            taken.append(time.perf_counter() - start)

    await asyncio.gather(*map(go_on, asks))
    elapsed, burnt = time.perf_counter() - began, _processor(worker) - burnt
    p50, p99 = np.percentile(taken, [50, 99]) * 1000
    return f"{len(taken) / elapsed:.0f}", f"{p50:.2f}", f"{p99:.2f}", f"{burnt / len(taken) * 1e6:.0f}"


async def _warm(ask: Ask) -> None:
    for _ in range(50):
        await ask()


def _processor(pid: int) -> float:
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
