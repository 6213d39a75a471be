"""What is said of models: their metadata, how they are set up, how often they have been asked."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from server.engine import Engine
from server.oip.models import Model, ModelMetadata, describe
from server.oip.statistics import ModelStatistics
from server.oip.tensors import DATATYPES, Datatype
from server.rpc import inference_pb2 as pb

DATA_TYPES: Mapping[Datatype, int] = {
    datatype: getattr(pb, "TYPE_STRING" if datatype == "BYTES" else f"TYPE_{datatype}") for datatype in DATATYPES
}
"""What a configuration calls the datatypes."""
BACKENDS = {True: "committee", False: "onnxruntime"}


def metadata_of(engine: Engine, model: Model) -> pb.ModelMetadataResponse:
    said = asdict(describe(engine, model))
    del said["properties"]  # for which the protocol has no place here; they stand in the configuration
    return pb.ModelMetadataResponse(**said)


def config_of(engine: Engine, model: Model) -> pb.ModelConfigResponse:
    """As Triton has it: dimensions are those of a row."""
    said: ModelMetadata = describe(engine, model)
    manifest = model.ensemble.manifest
    missing = {spec.name for spec in manifest.inputs if spec.missing and len(manifest.inputs) > 1}
    return pb.ModelConfigResponse(
        config=pb.ModelConfig(
            name=said.name,
            platform=said.platform,
            backend=BACKENDS[model.member is None],
            max_batch_size=manifest.max_batch_size,
            dynamic_batching=pb.ModelDynamicBatching(),
            input=[pb.ModelInput(**_row(tensor), optional=tensor.name in missing) for tensor in said.inputs],
            output=[pb.ModelOutput(**_row(tensor)) for tensor in said.outputs],
            parameters={name: pb.ModelParameter(string_value=value) for name, value in said.properties.items()},
        )
    )


def statistics_message(statistics: Iterable[ModelStatistics]) -> pb.ModelStatisticsResponse:
    return pb.ModelStatisticsResponse(model_stats=[pb.ModelStatistics(**asdict(of)) for of in statistics])


def _row(tensor: Any) -> dict[str, Any]:
    return {"name": tensor.name, "data_type": DATA_TYPES[tensor.datatype], "dims": tensor.shape[1:]}
