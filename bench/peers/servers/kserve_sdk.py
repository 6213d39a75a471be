"""KServe's Python SDK: a custom model behind the Open Inference Protocol, JSON and binary."""

import argparse
import uuid
from typing import Any

import uvicorn
from kserve import Model, ModelServer, model_server
from kserve.protocol.infer_type import InferOutput, InferRequest, InferResponse

from bench.peers.servers.members import Members


class Loopback(uvicorn.Config):
    """The SDK listens on all interfaces, and has no option that says otherwise."""

    def __init__(self, app: Any, host: str = "", **said: Any) -> None:
        super().__init__(app, host="127.0.0.1", **said)


uvicorn.Config = Loopback  # type: ignore[misc,assignment]


class Ensemble(Model):  # type: ignore[misc]
    """Loads its members in the process that serves: the parent of several workers does not."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.members: Members | None = None
        self.ready = True

    def load(self) -> bool:
        self.members = Members()
        self.ready = True
        return True

    async def predict(self, payload: InferRequest, headers: Any = None, response_headers: Any = None) -> InferResponse:
        if self.members is None:
            self.load()
        assert self.members is not None
        answer = self.members(payload.inputs[0].as_numpy())
        asked = payload.request_outputs or []
        binary = bool(payload.use_binary_outputs or any(output.binary_data for output in asked))
        output = InferOutput(name="probabilities", shape=list(answer.shape), datatype="FP32")
        output.set_data_from_numpy(answer, binary_data=binary)
        return InferResponse(
            response_id=payload.id or uuid.uuid4().hex,
            model_name=self.name,
            infer_outputs=[output],
            use_binary_outputs=binary,
        )


if __name__ == "__main__":
    argparse.ArgumentParser(parents=[model_server.parser], conflict_handler="resolve").parse_known_args()
    ModelServer(enable_latency_logging=False).start([Ensemble("ensemble")])
