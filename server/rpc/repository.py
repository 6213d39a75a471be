"""What this transport asks of whoever controls which models are served, and what there is without."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from server.changing import Changer, Entry
from server.codec.messages import named
from server.control import Control, read_versions
from server.engine import Engine
from server.errors import InvalidInput, Unsupported
from server.keys import Scope


class RepositoryControl(Protocol):
    """Each raises CommitteeError. Parameters are bool, int, str or bytes."""

    scope: Scope
    """What a key has to be good for."""

    async def index(self) -> Sequence[Entry]: ...

    async def load(self, name: str, parameters: Mapping[str, Any]) -> None: ...

    async def unload(self, name: str, parameters: Mapping[str, Any]) -> None: ...


class NoControl:
    """What is served does not change, not by this way."""

    scope: Scope = "predict"

    def __init__(self, engine: Callable[[], Engine]) -> None:
        self._engine = engine

    async def index(self) -> Sequence[Entry]:
        repository = self._engine().repository
        return [
            Entry(name, version, "READY")
            for name in repository.names()
            for version in sorted(repository.versions(name))
        ]

    async def load(self, name: str, parameters: Mapping[str, Any]) -> None:
        raise Unsupported("model control is off")

    async def unload(self, name: str, parameters: Mapping[str, Any]) -> None:
        raise Unsupported("model control is off")


class Controlled:
    """By the model control of this worker, for all workers."""

    scope: Scope = "admin"

    def __init__(self, engine: Callable[[], Engine], control: Control) -> None:
        self._engine, self._control = engine, control

    async def index(self) -> Sequence[Entry]:
        self._engine()
        return await self._control.changer.index()

    async def load(self, name: str, parameters: Mapping[str, Any]) -> None:
        changer = self._check(parameters, {"versions": str})
        said = parameters.get("versions")
        await changer.load(name, None if said is None else read_versions(said, "parameters: versions"))

    async def unload(self, name: str, parameters: Mapping[str, Any]) -> None:
        # Triton's clients say that; nothing depends on an ensemble.
        await self._check(parameters, {"unload_dependents": bool}).unload(name)

    def _check(self, parameters: Mapping[str, Any], known: Mapping[str, type]) -> Changer:
        """Raises InvalidInput for parameters that there are not, or where nothing is changed by asking; NotReady."""
        self._engine()
        for name, value in parameters.items():
            if name not in known or not isinstance(value, known[name]):
                [expected] = known
                raise InvalidInput(
                    f"parameters: expected none but {expected}, of {known[expected].__name__}; got {named(name)}"
                )
        return self._control.to_ask()
