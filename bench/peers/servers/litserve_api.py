"""LitServe: batching, and its fast queue between the server and one worker."""

import os
from typing import Any

import litserve
import numpy as np
from numpy.typing import NDArray

from bench.peers.servers.members import Members

MAX_BATCH = 64


class Api(litserve.LitAPI):  # type: ignore[misc]
    def setup(self, device: str) -> None:
        self.members = Members()

    def decode_request(self, request: dict[str, Any]) -> NDArray[np.float32]:
        return np.array(request["instances"], dtype=np.float32)

    def batch(self, inputs: list[NDArray[np.float32]]) -> NDArray[np.float32]:
        self.ends = np.cumsum([len(rows) for rows in inputs])[:-1]
        return np.concatenate(inputs)

    def predict(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        return self.members(rows)

    def unbatch(self, answers: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        return np.split(answers, self.ends)

    def encode_response(self, answer: NDArray[np.float32]) -> dict[str, Any]:
        return {"probabilities": answer.tolist()}


if __name__ == "__main__":
    server = litserve.LitServer(Api(max_batch_size=MAX_BATCH, batch_timeout=0.0), accelerator="cpu", fast_queue=True)
    server.run(
        host="127.0.0.1",
        port=int(os.environ["PORT"]),
        num_api_servers=2,
        generate_client_file=False,
        log_level="warning",
        access_log=False,
    )
