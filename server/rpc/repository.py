"""What a transport asks of whoever controls which models are served, and what there is without."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from server.engine import Engine
from server.errors import Unsupported


@dataclass(frozen=True, slots=True)
class IndexEntry:
    name: str
    version: str
    state: Literal["READY", "LOADING", "UNAVAILABLE"]
    reason: str = ""


class RepositoryControl(Protocol):
    """Each raises CommitteeError. Parameters are bool, int, str or bytes."""

    async def index(self) -> Sequence[IndexEntry]: ...

    async def load(self, name: str, parameters: Mapping[str, Any]) -> None: ...

    async def unload(self, name: str, parameters: Mapping[str, Any]) -> None: ...


class NoControl:
    """What is served does not change."""

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
