"""`Engine.infer`: the one way in, whatever the transport."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from server import telemetry
from server.ensemble import Ensemble
from server.errors import InvalidRepository, NotReady
from server.plan import Options, make_plan
from server.predicting import predict
from server.prediction import Prediction
from server.repository import Repository
from server.rows import Rows


class Engine:
    """Answers requests from the ensembles of a repository; `default` names the one that a request need not name.

    Raises InvalidRepository if there is no such default.
    """

    def __init__(self, repository: Repository, *, default: str) -> None:
        if default not in repository.names():
            there = ", ".join(repository.names())
            raise InvalidRepository(f"the default ensemble {default!r} is not in the repository; there are: {there}")
        self.repository = repository
        self.default = default
        # The graphs run off the event loop, one batch at a time: each already has the cores that it may use.
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="committee-infer")

    def ensemble(self, name: str | None = None, version: int | None = None) -> Ensemble:
        """The ensemble of this name, else the default one. Raises NotFound."""
        return self.repository.get(self.default if name is None else name, version)

    async def infer(self, ensemble: Ensemble, rows: Rows, options: Options) -> Prediction:
        """Run the members on the rows, as `server.rows` has them, and fuse.

        Raises InvalidInput, MemberFailed, NotReady.
        """
        plan = make_plan(ensemble, options)
        loop = asyncio.get_running_loop()
        try:
            running = loop.run_in_executor(self._executor, predict, ensemble, rows, plan)
        except RuntimeError as exc:  # the executor takes no more
            raise NotReady("the server is stopping") from exc
        prediction = await running
        telemetry.count_prediction(
            ensemble=ensemble.manifest.name,
            version=ensemble.manifest.version,
            strategy=plan.strategy,
            rows=len(rows),
            disagreements=_disagreements(prediction),
        )
        return prediction

    def close(self) -> None:
        """Take no more, and wait until what was taken is answered."""
        self._executor.shutdown()


def _disagreements(prediction: Prediction) -> dict[str, int]:
    """By member, on how many of the rows that it answered its best class is not the answer's label."""
    answered = ~np.isnan(prediction.member_probabilities[:, :, 0])
    differs = answered & (prediction.member_probabilities.argmax(axis=2) != prediction.fused.labels)
    names = prediction.ensemble.names
    return {names[i]: int(n) for i, n in zip(prediction.members, differs.sum(axis=1), strict=True)}
