"""What training, or a stranger's file, becomes before it is a member of an ensemble."""

from dataclasses import dataclass

from onnx import ModelProto

from export.parity import ParityReport


@dataclass(frozen=True, slots=True)
class Candidate:
    """A converted member that has passed the parity gate."""

    name: str
    framework: str
    model: ModelProto
    parity: ParityReport
