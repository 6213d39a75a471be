"""Good requests over gRPC."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable

import grpc
import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc.service_pb2 import ModelInferRequest, ModelInferResponse

from tests import tiny

METHOD = "/inference.GRPCInferenceService/ModelInfer"
TOLERANCE = 1e-5
SECONDS = 30.0
N_ROWS = 16
RETRIES = {
    "maxAttempts": 4,
    "initialBackoff": "0.1s",
    "maxBackoff": "1s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
}
"""What comes in the moment in which a worker stops, gRPC's own server refuses so: `docs/reliability.md`."""
UNBEGUN = "Received RST_STREAM with error code 7"
"""HTTP/2's word, REFUSED_STREAM, for a call that has not been begun: gRPC's own, where more come than are taken up."""
RECONNECTING = [
    ("grpc.service_config", json.dumps({"methodConfig": [{"name": [{}], "retryPolicy": RETRIES}]})),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
]


class Calls:
    """One channel, that connects again when the worker at its other end goes. Counts as requests over HTTP do."""

    def __init__(self, port: int, counts: Counter[str], killed: Callable[[], bool]) -> None:
        self._counts, self._killed = counts, killed
        self.faults: list[str] = []
        self._channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=RECONNECTING)
        self._method = self._channel.unary_unary(METHOD)
        x = tiny.rows(N_ROWS, seed=3)
        self._cases = list(zip(map(_request, x), tiny.answers(x, 3).mean(axis=0), strict=True))
        self._going: set[asyncio.Task[None]] = set()

    async def go_on(self, rate: float, seconds: float) -> None:
        """So many a second, whatever becomes of them."""
        end, number = time.monotonic() + seconds, 0
        while time.monotonic() < end:
            task = asyncio.get_running_loop().create_task(self._call(*self._cases[number % N_ROWS]))
            self._going.add(task)
            task.add_done_callback(self._going.discard)
            number += 1
            await asyncio.sleep(1 / rate)

    async def close(self) -> None:
        if self._going:
            await asyncio.wait(self._going)
        await self._channel.close()

    async def _call(self, request: bytes, right: NDArray[np.float32]) -> None:
        self._counts["asked"] += 1
        began = time.monotonic()
        try:
            data = await self._method(request, timeout=SECONDS, wait_for_ready=True)
        except grpc.aio.AioRpcError as exc:
            word = self._word(exc)
            if word == "lost":
                took = time.monotonic() - began
                self.faults.append(f"gRPC: {exc.code().name} after {took:.1f} s: {exc.debug_error_string()}"[:300])
        else:
            found = np.frombuffer(ModelInferResponse.FromString(data).raw_output_contents[0], "<f4")
            word = "right" if np.allclose(found, right, atol=TOLERANCE) else "wrong"
        self._counts[word] += 1

    def _word(self, exc: grpc.aio.AioRpcError) -> str:
        if exc.code() is grpc.StatusCode.UNAVAILABLE and self._killed():
            return "cut"
        if exc.code() is grpc.StatusCode.UNAVAILABLE and "busy" in (exc.details() or ""):
            return "refused"
        if exc.code() is grpc.StatusCode.UNAVAILABLE and UNBEGUN in str(exc):
            return "unbegun"
        return "lost"


def _request(row: NDArray[np.float32]) -> bytes:
    said = ModelInferRequest.InferInputTensor(name="X", datatype="FP32", shape=[1, tiny.N_FEATURES])
    data: bytes = ModelInferRequest(
        model_name="tiny",
        inputs=[said],
        outputs=[ModelInferRequest.InferRequestedOutputTensor(name="probabilities")],
        raw_input_contents=[row.tobytes()],
    ).SerializeToString()
    return data
