"""How a model is set up, in the words of Triton's extension for it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from server.engine import Engine
from server.oip.models import Model, TensorMetadata, describe


@dataclass(frozen=True, slots=True)
class TensorConfiguration:
    name: str
    data_type: str
    """`TYPE_FP32`, …"""
    dims: tuple[int, ...]
    """Of a row."""


@dataclass(frozen=True, slots=True)
class InputConfiguration(TensorConfiguration):
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Parameter:
    string_value: str


@dataclass(frozen=True, slots=True)
class ModelConfiguration:
    name: str
    platform: str
    backend: str
    max_batch_size: int
    input: tuple[InputConfiguration, ...]
    output: tuple[TensorConfiguration, ...]
    parameters: Mapping[str, Parameter]
    """What metadata have as properties."""
    dynamic_batching: Mapping[str, int] = field(default_factory=dict)
    """There is; it sets itself up."""


def configuration_of(engine: Engine, model: Model) -> ModelConfiguration:
    said, manifest = describe(engine, model), model.ensemble.manifest
    missing = {spec.name for spec in manifest.inputs if spec.missing and len(manifest.inputs) > 1}
    return ModelConfiguration(
        name=said.name,
        platform=said.platform,
        backend="committee" if model.member is None else "onnxruntime",
        max_batch_size=manifest.max_batch_size,
        input=tuple(InputConfiguration(*_row(tensor), optional=tensor.name in missing) for tensor in said.inputs),
        output=tuple(TensorConfiguration(*_row(tensor)) for tensor in said.outputs),
        parameters={name: Parameter(value) for name, value in said.properties.items()},
    )


def _row(tensor: TensorMetadata) -> tuple[str, str, tuple[int, ...]]:
    type_ = "TYPE_STRING" if tensor.datatype == "BYTES" else f"TYPE_{tensor.datatype}"
    return tensor.name, type_, tensor.shape[1:]
