"""What is checked before a start, or before a reload, of what is to be served: all that needs no graph to be loaded."""

from pathlib import Path

from server.generations import Board
from server.keys import Keys
from server.ports import check_tls
from server.repository import find_versions, read_version
from server.settings import Settings


def check_repository(settings: Settings) -> None:
    """Raises InvalidRepository."""
    for folder in find_versions(settings.models, settings.versions, default=settings.default):
        read_version(folder)


def check(settings: Settings, board: Board) -> tuple[list[Path], str]:
    """What is to be tried before a reload, and which versions of it.

    That is what a start would choose, or what all serve now if it is controlled. Raises InvalidRepository, InvalidKeys,
    OSError.
    """
    if settings.keys_file is not None:
        Keys(settings.keys_file)
    check_tls(settings)
    if settings.model_control != "none":
        return [settings.models / name / str(version) for name, version in sorted(board.state().versions())], "all"
    check_repository(settings)
    chosen = settings.versions
    return [settings.models], chosen if isinstance(chosen, str) else ",".join(map(str, sorted(chosen)))
