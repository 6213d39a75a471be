"""`inference.GRPCInferenceService`: what each method answers."""

from collections.abc import Awaitable, Callable, Mapping
from importlib.metadata import version as version_of
from typing import Any

import grpc
from grpc.aio import ServicerContext

from server.engine import Engine
from server.errors import NotFound, NotReady
from server.keys import Scope
from server.oip.models import EXTENSIONS, find_model, is_ready, parse_version
from server.oip.statistics import counted_until_now, models_of, statistics_of
from server.rpc import inference_pb2 as pb
from server.rpc.access import CheckKey, guarded
from server.rpc.descriptions import config_of, metadata_of, statistics_message
from server.rpc.infer import Inferring, infer, parse
from server.rpc.observer import Method, observed
from server.rpc.repository import RepositoryControl
from server.rpc.tensors import scalars

SERVICE = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
RPC_EXTENSIONS = (*EXTENSIONS, "model_repository")

OPEN = ("ServerLive", "ServerReady")
"""What everybody may ask, with a key or without."""

Answer = Callable[[Any], Awaitable[Any]]
"""From one message to another. Raises CommitteeError."""


class Service:
    """`engine` raises NotReady before the start has ended and once the stop has begun."""

    def __init__(
        self, engine: Callable[[], Engine], by: Inferring, control: RepositoryControl, check_key: CheckKey
    ) -> None:
        self._engine, self._by, self._control, self._check_key = engine, by, control, check_key

    def handler(self) -> grpc.GenericRpcHandler:
        """For gRPC. It is handed bytes and hands out bytes, so that what is no message can be told from a fault."""
        handlers: dict[str, Any] = {
            name: grpc.unary_unary_rpc_method_handler(observed(name, self._guarded(name, method)))
            for name, method in self._methods().items()
        }
        return grpc.method_handlers_generic_handler(SERVICE.full_name, handlers)

    def _guarded(self, name: str, method: Method) -> Method:
        if name in OPEN:
            return method
        scope: Scope = self._control.scope if name.startswith("Repository") else "predict"
        return guarded(name, method, scope, self._check_key)

    def _methods(self) -> Mapping[str, Method]:
        answers: Mapping[str, tuple[Any, Answer]] = {
            "ServerLive": (pb.ServerLiveRequest, self._server_live),
            "ServerReady": (pb.ServerReadyRequest, self._server_ready),
            "ModelReady": (pb.ModelReadyRequest, self._model_ready),
            "ServerMetadata": (pb.ServerMetadataRequest, self._server_metadata),
            "ModelMetadata": (pb.ModelMetadataRequest, self._model_metadata),
            "ModelConfig": (pb.ModelConfigRequest, self._model_config),
            "ModelStatistics": (pb.ModelStatisticsRequest, self._model_statistics),
            "RepositoryIndex": (pb.RepositoryIndexRequest, self._index),
            "RepositoryModelLoad": (pb.RepositoryModelLoadRequest, self._load),
            "RepositoryModelUnload": (pb.RepositoryModelUnloadRequest, self._unload),
        }
        return {"ModelInfer": self._infer, **{name: _method(*answer) for name, answer in answers.items()}}

    async def _infer(self, data: bytes, context: ServicerContext[bytes, bytes]) -> bytes:
        return await infer(data, self._engine(), self._by, seconds=context.time_remaining())

    async def _server_live(self, message: pb.ServerLiveRequest) -> pb.ServerLiveResponse:
        return pb.ServerLiveResponse(live=True)

    async def _server_ready(self, message: pb.ServerReadyRequest) -> pb.ServerReadyResponse:
        return pb.ServerReadyResponse(ready=can_answer(self._engine))

    async def _model_ready(self, message: pb.ModelReadyRequest) -> pb.ModelReadyResponse:
        """A model that there is not is not ready, as Triton has it."""
        version = parse_version(message.version)
        try:
            engine = self._engine()
            ready = is_ready(engine, find_model(engine, message.name, version))
        except (NotReady, NotFound):
            ready = False
        return pb.ModelReadyResponse(ready=ready)

    async def _server_metadata(self, message: pb.ServerMetadataRequest) -> pb.ServerMetadataResponse:
        return pb.ServerMetadataResponse(
            name="committee", version=version_of("committee"), extensions=sorted(RPC_EXTENSIONS)
        )

    async def _model_metadata(self, message: pb.ModelMetadataRequest) -> pb.ModelMetadataResponse:
        engine = self._engine()
        return metadata_of(engine, find_model(engine, message.name, parse_version(message.version)))

    async def _model_config(self, message: pb.ModelConfigRequest) -> pb.ModelConfigResponse:
        engine = self._engine()
        return config_of(engine, find_model(engine, message.name, parse_version(message.version)))

    async def _model_statistics(self, message: pb.ModelStatisticsRequest) -> pb.ModelStatisticsResponse:
        models = models_of(self._engine(), message.name, message.version)
        return statistics_message(statistics_of(models, await counted_until_now()))

    async def _index(self, message: pb.RepositoryIndexRequest) -> pb.RepositoryIndexResponse:
        entry = pb.RepositoryIndexResponse.ModelIndex
        return pb.RepositoryIndexResponse(
            models=[
                entry(
                    name=found.name,
                    version="" if found.version is None else str(found.version),
                    state=found.state,
                    reason=found.reason,
                )
                for found in await self._control.index()
                if found.state == "READY" or not message.ready
            ]
        )

    async def _load(self, message: pb.RepositoryModelLoadRequest) -> pb.RepositoryModelLoadResponse:
        await self._control.load(message.model_name, scalars(message.parameters))
        return pb.RepositoryModelLoadResponse()

    async def _unload(self, message: pb.RepositoryModelUnloadRequest) -> pb.RepositoryModelUnloadResponse:
        await self._control.unload(message.model_name, scalars(message.parameters))
        return pb.RepositoryModelUnloadResponse()


def can_answer(engine: Callable[[], Engine]) -> bool:
    """Whether there is an ensemble that can."""
    try:
        return engine().can_answer()
    except NotReady:
        return False


def _method(kind: Any, answer: Answer) -> Method:
    async def method(data: bytes, _: ServicerContext[bytes, bytes]) -> bytes:
        answered: bytes = (await answer(parse(kind, data))).SerializeToString()
        return answered

    return method
