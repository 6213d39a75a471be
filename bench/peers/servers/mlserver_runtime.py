"""MLServer: a custom runtime in the serving process, with adaptive batching."""

import asyncio
import os

import uvloop
from mlserver import MLModel, MLServer
from mlserver.codecs import NumpyCodec
from mlserver.settings import ModelSettings, Settings
from mlserver.types import InferenceRequest, InferenceResponse

from bench.peers.servers.members import Members

MAX_BATCH, MAX_WAIT_SECONDS = 64, 0.001


class Ensemble(MLModel):  # type: ignore[misc]
    async def load(self) -> bool:
        self.members = Members()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        answer = self.members(NumpyCodec.decode_input(payload.inputs[0]))
        output = NumpyCodec.encode_output("probabilities", answer)
        return InferenceResponse(id=payload.id, model_name=self.name, outputs=[output])


async def main() -> None:
    settings = Settings(
        debug=False,
        host="127.0.0.1",
        http_port=int(os.environ["PORT"]),
        grpc_port=int(os.environ["SECOND_PORT"]),
        metrics_endpoint=None,
        parallel_workers=0,
        gzip_enabled=False,
        use_structured_logging=False,
    )
    model = ModelSettings(
        name="ensemble", implementation=Ensemble, max_batch_size=MAX_BATCH, max_batch_time=MAX_WAIT_SECONDS
    )
    await MLServer(settings).start([model])


if __name__ == "__main__":
    uvloop.install()
    asyncio.run(main())
