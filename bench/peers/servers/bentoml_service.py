"""BentoML: a service of two workers; its adaptive batching is off, as with it fewer requests were answered."""

import bentoml
import numpy as np

from bench.peers.servers.members import Members


@bentoml.service(
    workers=2,
    traffic={"timeout": 30, "max_concurrency": 512},
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
)
class Ensemble:
    def __init__(self) -> None:
        self.members = Members()

    @bentoml.api  # type: ignore[untyped-decorator]
    def predict(self, instances: np.ndarray) -> np.ndarray:
        return self.members(instances)
