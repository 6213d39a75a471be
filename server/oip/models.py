"""Models of the Open Inference Protocol: ensembles, and their members, each a model of its own: `fashion.cnn`."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from server.engine import Engine
from server.ensemble import Ensemble
from server.errors import InvalidInput, NotFound
from server.oip import outputs
from server.oip.outputs import Output
from server.oip.tensors import Datatype
from server.plan import Options
from server.repository import VERSION_PATTERN

PLATFORM = "committee"
"""Of an ensemble; a member's is what runs its graph."""
MEMBER_PLATFORM = "onnxruntime_onnx"
SEPARATOR = "."
"""Between an ensemble and its member: it is in neither's name."""
EXTENSIONS = (
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "parameters",
    "schedule_policy",
    "statistics",
)

_FIRST_RULES = {"classification": "average", "regression": "mean"}
"""The strategies that leave a single member's answer as it is."""


@dataclass(frozen=True, slots=True)
class Model:
    """An ensemble's version, or one member of it."""

    ensemble: Ensemble
    member: str | None = None

    @property
    def name(self) -> str:
        name = self.ensemble.manifest.name
        return name if self.member is None else f"{name}{SEPARATOR}{self.member}"

    @property
    def version(self) -> str:
        return str(self.ensemble.manifest.version)

    @property
    def outputs(self) -> Mapping[str, Output]:
        """By name, what it answers; its answer first."""
        kinds = outputs.ENSEMBLE if self.member is None else outputs.MEMBER
        return kinds[self.ensemble.manifest.task]

    @property
    def only(self) -> Options | None:
        """The options by which a member answers alone, as itself; None for an ensemble."""
        if self.member is None:
            return None
        return Options(strategy=_FIRST_RULES[self.ensemble.manifest.task], members=(self.member,))


def find_model(engine: Engine, name: str, version: int | None = None) -> Model:
    """The model of this name, by default of its highest version that is served. Raises NotFound."""
    ensemble_name, dot, member = name.partition(SEPARATOR)
    if ensemble_name not in engine.repository.names():
        raise NotFound(f"no model {name[:64]!r}; there are: {', '.join(engine.repository.names())}")
    ensemble = engine.ensemble(ensemble_name, version)
    if not dot:
        return Model(ensemble)
    if member not in ensemble.names:
        raise NotFound(f"no model {name[:129]!r}; members of {ensemble_name!r}: {', '.join(ensemble.names)}")
    return Model(ensemble, member)


def versions_of(engine: Engine, model: Model) -> list[Model]:
    """Those of this model that are served, lowest first."""
    name = model.ensemble.manifest.name
    ensembles = [engine.ensemble(name, version) for version in engine.repository.versions(name)]
    return [Model(other, model.member) for other in ensembles if model.member in (None, *other.names)]


def parse_version(text: str) -> int | None:
    """As clients write it; empty: None, the highest. Raises InvalidInput."""
    if not text:
        return None
    if not re.fullmatch(VERSION_PATTERN, text):
        raise InvalidInput(f"version: expected a number from 1 to 999999999; got {text[:64]!r}")
    return int(text)


def is_ready(engine: Engine, model: Model) -> bool:
    """Whether it can answer: its ensemble has a quorum of members left, or it is a member that is left."""
    if model.member is None:
        return engine.can_answer(model.ensemble)
    return model.member not in engine.unreliable().get(f"{model.ensemble.manifest.name}/{model.version}", ())


@dataclass(frozen=True, slots=True)
class TensorMetadata:
    name: str
    datatype: Datatype
    shape: tuple[int, ...]
    """-1 stands for what varies: the rows, and the members that take part."""


@dataclass(frozen=True, slots=True)
class ModelMetadata:
    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorMetadata, ...]
    outputs: tuple[TensorMetadata, ...]
    properties: Mapping[str, str]
    """What the columns of the outputs stand for, and what may be asked for: each a list in JSON."""


def describe(engine: Engine, model: Model) -> ModelMetadata:
    manifest = model.ensemble.manifest
    return ModelMetadata(
        name=model.name,
        versions=tuple(other.version for other in versions_of(engine, model)),
        platform=PLATFORM if model.member is None else MEMBER_PLATFORM,
        inputs=tuple(
            TensorMetadata(spec.name, spec.datatype, (outputs.VARIABLE, *spec.shape)) for spec in manifest.inputs
        ),
        outputs=tuple(
            TensorMetadata(name, output.datatype, output.shape(manifest)) for name, output in model.outputs.items()
        ),
        properties={name: json.dumps(values, ensure_ascii=False) for name, values in _properties(model).items()},
    )


def _properties(model: Model) -> dict[str, Any]:
    manifest = model.ensemble.manifest
    columns = {"classes": manifest.classes} if manifest.classes else {"targets": manifest.targets}
    if model.member is not None:
        return columns
    measures = {outputs.UNCERTAINTY: outputs.MEASURES} if manifest.classes else {}
    return {**columns, **measures, "members": model.ensemble.names, "strategies": model.ensemble.strategies}
