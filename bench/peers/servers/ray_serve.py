"""Ray Serve: two replicas of a deployment that holds all members, with its batching, behind HAProxy."""

import os
import signal
import time
from typing import Any

import numpy as np
import orjson
import ray
from numpy.typing import NDArray
from ray import serve
from ray.serve.config import HTTPOptions
from starlette.requests import Request
from starlette.responses import Response

from bench.peers.servers.members import Members

MAX_BATCH, REPLICAS = 64, 2


@serve.deployment(num_replicas=REPLICAS, ray_actor_options={"num_cpus": 0}, max_ongoing_requests=256)
class Ensemble:
    def __init__(self) -> None:
        self.members = Members()

    @serve.batch(max_batch_size=MAX_BATCH, batch_wait_timeout_s=0.0)  # type: ignore[untyped-decorator]
    async def infer(self, batch: list[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        ends = np.cumsum([len(rows) for rows in batch])[:-1]
        return np.split(self.members(np.concatenate(batch)), ends)

    async def __call__(self, request: Request) -> Response:
        body = await request.body()
        if request.headers.get("content-type") == "application/octet-stream":
            rows = np.frombuffer(body, np.float32).reshape(-1, 784)
        else:
            rows = np.array(orjson.loads(body)["instances"], dtype=np.float32)
        answer: Any = await self.infer(rows)
        return Response(
            orjson.dumps({"probabilities": answer}, option=orjson.OPT_SERIALIZE_NUMPY), media_type="application/json"
        )


if __name__ == "__main__":
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        configure_logging=False,
        object_store_memory=200 * 2**20,
        _node_ip_address="127.0.0.1",
    )
    serve.start(http_options=HTTPOptions(host="127.0.0.1", port=int(os.environ["PORT"])))
    serve.run(Ensemble.bind(), route_prefix="/predict")  # type: ignore[attr-defined]
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    while True:
        time.sleep(1)
