"""What this transport asks of whoever controls which models are served, and what there is without."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast

from server.codec.messages import named
from server.control import Control
from server.engine import Engine
from server.errors import InvalidInput, Unsupported
from server.keys import Scope
from server.repository import Versions, parse_versions


@dataclass(frozen=True, slots=True)
class IndexEntry:
    name: str
    version: str
    state: Literal["READY", "LOADING", "UNAVAILABLE"]
    reason: str = ""


class RepositoryControl(Protocol):
    """Each raises CommitteeError. Parameters are bool, int, str or bytes."""

    scope: Scope
    """What a key has to be good for."""

    async def index(self) -> Sequence[IndexEntry]: ...

    async def load(self, name: str, parameters: Mapping[str, Any]) -> None: ...

    async def unload(self, name: str, parameters: Mapping[str, Any]) -> None: ...


class NoControl:
    """What is served does not change, not by this way."""

    scope: Scope = "predict"

    def __init__(self, engine: Callable[[], Engine]) -> None:
        self._engine = engine

    async def index(self) -> Sequence[IndexEntry]:
        repository = self._engine().repository
        return [
            IndexEntry(name, str(version), "READY")
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

    async def index(self) -> Sequence[IndexEntry]:
        self._engine()
        return [
            IndexEntry(
                entry.name, "" if entry.version is None else str(entry.version), entry.state, reason=entry.reason
            )
            for entry in await self._control.changer.index()
        ]

    async def load(self, name: str, parameters: Mapping[str, Any]) -> None:
        self._check(parameters, {"versions": str})
        versions = None
        if (said := parameters.get("versions")) is not None:
            try:
                versions = cast(Versions, parse_versions(said))
            except ValueError as exc:
                raise InvalidInput(f"parameters: versions: {exc}; got {said[:64]!r}") from exc
        await self._control.changer.load(name, versions)

    async def unload(self, name: str, parameters: Mapping[str, Any]) -> None:
        self._check(parameters, {"unload_dependents": bool})  # Triton's clients say it; nothing depends on an ensemble
        await self._control.changer.unload(name)

    def _check(self, parameters: Mapping[str, Any], known: Mapping[str, type]) -> None:
        """Raises InvalidInput for parameters that there are not, or where nothing is changed by asking; NotReady."""
        self._engine()
        for name, value in parameters.items():
            if name not in known or not isinstance(value, known[name]):
                [expected] = known
                raise InvalidInput(
                    f"parameters: expected none but {expected}, of {known[expected].__name__}; got {named(name)}"
                )
        if self._control.polls:
            raise InvalidInput("model control is poll: the repository itself says what is served")
