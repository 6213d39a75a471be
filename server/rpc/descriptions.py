"""What is said of models: their metadata, how they are set up, how often they have been asked."""

from collections.abc import Iterable
from dataclasses import asdict

from server.engine import Engine
from server.oip.configuration import configuration_of
from server.oip.models import Model, describe
from server.oip.statistics import ModelStatistics
from server.rpc import inference_pb2 as pb


def metadata_of(engine: Engine, model: Model) -> pb.ModelMetadataResponse:
    said = asdict(describe(engine, model))
    del said["properties"]  # for which the protocol has no place here; they stand in the configuration
    return pb.ModelMetadataResponse(**said)


def config_of(engine: Engine, model: Model) -> pb.ModelConfigResponse:
    return pb.ModelConfigResponse(config=pb.ModelConfig(**asdict(configuration_of(engine, model))))


def statistics_message(statistics: Iterable[ModelStatistics]) -> pb.ModelStatisticsResponse:
    return pb.ModelStatisticsResponse(model_stats=[pb.ModelStatistics(**asdict(of)) for of in statistics])
