"""A model of Triton's Python backend. The parameters of its configuration say which part of the work it does.

It averages all members, or asks the `member` that is named, or averages the `parts` that others have answered.
"""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb

from bench.peers.servers.members import Member, Members


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        said = {key: value["string_value"] for key, value in json.loads(args["model_config"])["parameters"].items()}
        os.environ["MEMBERS"] = said["members"]
        self.parts = int(said.get("parts", "0"))
        self.ask = Member(Path(said["member"])) if "member" in said else None if self.parts else Members()

    def execute(self, requests: list[Any]) -> list[Any]:
        if self.ask is None:
            return [self._mean(request) for request in requests]
        batch = [pb.get_input_tensor_by_name(request, "image").as_numpy() for request in requests]
        answers = self.ask(batch[0] if len(batch) == 1 else np.concatenate(batch))
        ends = np.cumsum([len(rows) for rows in batch])[:-1]
        return [_response(answer) for answer in np.split(answers, ends)]

    def _mean(self, request: Any) -> Any:
        parts = [pb.get_input_tensor_by_name(request, f"part_{k}").as_numpy() for k in range(self.parts)]
        return _response(np.mean(parts, axis=0, dtype=np.float32))


def _response(answer: Any) -> Any:
    return pb.InferenceResponse([pb.Tensor("probabilities", np.ascontiguousarray(answer, dtype=np.float32))])
