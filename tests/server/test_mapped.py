import os
from pathlib import Path

import pytest

from server.mapped import allocate


@pytest.mark.parametrize("reserving", [True, False], ids=["Linux", "macOS"])
def test_a_file_has_so_many_bytes_and_keeps_what_it_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reserving: bool
) -> None:
    if not reserving:
        monkeypatch.delattr(os, "posix_fallocate")
    path = tmp_path / "file"
    path.write_bytes(b"held")
    with path.open("r+b") as file:
        allocate(file.fileno(), 100)
    assert path.read_bytes() == b"held" + bytes(96)
