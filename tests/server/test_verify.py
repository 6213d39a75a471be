import argparse
import tempfile
from pathlib import Path

import pytest

from server import verify
from server.manifest import MANIFEST_FILE
from server.repository import Versions
from tests import tiny
from tests.server.folders import unprivileged, write_by_hand


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "models"


def verdicts(path: Path, versions: Versions = "all") -> list[str]:
    lines = [str(verdict) for verdict in verify.check(path, versions)]
    assert all(line.isprintable() for line in lines)
    return lines


def write_two(root: Path) -> None:
    for version in (1, 2):
        tiny.write_ensemble(root, version=version)
    tiny.write_packed(root, n_members=1)


def spoil(root: Path, version: int = 1) -> None:
    (root / "tiny" / str(version) / "m2.onnx").write_bytes(b"")


def test_every_version_has_a_line(root: Path) -> None:
    write_two(root)
    packed, first, second = verdicts(root)
    size = sum(path.stat().st_size for path in (root / "tiny/1").iterdir() if path.name != MANIFEST_FILE)
    assert first == f"ok tiny/1 (3 members, {size / 1000:.1f} kB)"
    assert second.startswith("ok tiny/2 (3 members, ")
    assert packed.startswith("ok packed/1 (1 member, ")


def test_a_hand_made_version_is_said_to_be_one(root: Path) -> None:
    write_by_hand(root)
    [line] = verdicts(root)
    assert line.startswith("ok tiny/1 (2 members, ")
    assert line.endswith("; made by hand: no hashes, no test vectors)")


def test_a_fault_does_not_end_it(root: Path) -> None:
    write_two(root)
    spoil(root)
    lines = verdicts(root)
    assert [line.split()[:2] for line in lines] == [["ok", "packed/1"], ["FAULT", "tiny/1:"], ["ok", "tiny/2"]]
    assert lines[1].startswith("FAULT tiny/1: m2.onnx: expected ")


@pytest.mark.parametrize(("versions", "checked"), [("latest", [2]), ("all", [1, 2]), (frozenset({1}), [1])], ids=str)
def test_the_versions_that_are_chosen_are_checked(root: Path, versions: Versions, checked: list[int]) -> None:
    write_versions = [tiny.write_ensemble(root, version=version) for version in (1, 2)]
    assert [line.split()[1] for line in verdicts(root, versions)] == [f"tiny/{number}" for number in checked]
    assert [line.split()[1] for line in verdicts(root / "tiny", versions)] == [f"tiny/{n}" for n in checked]
    assert verdicts(write_versions[0], versions)[0].startswith("ok tiny/1 ")


def test_any_of_the_folders_will_do(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiny.write_ensemble(root)
    monkeypatch.chdir(folder)
    for path in (root, root / "tiny", folder, Path(), Path(".."), Path("../..")):
        [line] = verdicts(path)
        assert line.startswith("ok tiny/1 ")


def test_a_version_of_a_root_is_no_version_of_an_ensemble(root: Path) -> None:
    """Names of ensembles may be numbers."""
    tiny.write_ensemble(root, name="1")
    [line] = verdicts(root)
    assert line.startswith("ok 1/1 ")


def test_what_is_being_published_is_not_looked_at(root: Path) -> None:
    tiny.write_ensemble(root)
    tiny.write_ensemble(root / ".publishing-x")
    (root / "tiny" / ".2").mkdir()
    assert len(verdicts(root)) == 1


def test_faults_of_folders_are_told_beside_those_of_versions(root: Path) -> None:
    write_two(root)
    spoil(root, 2)
    (root / "tiny" / "new").mkdir()
    (root / "a.b").mkdir()
    (root / "empty").mkdir()
    lines = [line.partition(": ")[0] for line in verdicts(root)]
    assert lines[:2] == ["FAULT a.b", "FAULT empty"]
    assert lines[2].startswith("ok packed/1 ")
    assert lines[3] == "FAULT tiny"
    assert lines[4].startswith("ok tiny/1 ")
    assert lines[5] == "FAULT tiny/2"


def test_a_path_that_is_no_repository_is_a_fault(root: Path) -> None:
    expected = "FAULT models: expected "
    assert verdicts(root)[0].startswith(f"{expected}a folder, the model repository")
    root.mkdir()
    assert verdicts(root)[0].startswith(f"{expected}at least one ensemble")


def test_folders_that_may_not_be_read_are_faults() -> None:
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        tiny.write_ensemble(Path(name))
        for closed, path in (("tiny", "."), ("tiny", "tiny"), ("tiny", "tiny/1"), ("tiny/1", "tiny/1")):
            folder = Path(name) / closed
            folder.chmod(0)
            with unprivileged():
                [line] = verdicts(Path(name) / path)
            folder.chmod(0o755)
            assert line.startswith("FAULT ")
            assert line.endswith(": Permission denied")


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        (0, "0.0 kB"),
        (26_149, "26.1 kB"),
        (99_999, "100.0 kB"),
        (100_000, "0.1 MB"),
        (3 * 10**9, "3000.0 MB"),
    ],
)
def test_sizes_are_shown_in_units(size: int, shown: str) -> None:
    assert verify._in_units(size) == shown


# The command --------------------------------------------------------------------------------------------------------


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    verify.add_arguments(parser)
    return verify.run(parser.parse_args(arguments))


def test_the_exit_code_is_zero_if_all_is_good(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_two(root)
    assert run(str(root)) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["ok", "ok", "ok"]


def test_the_exit_code_is_one_if_anything_is_not(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_two(root)
    spoil(root)
    assert run(str(root)) == 1
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["ok", "FAULT", "ok"]
    assert run(str(root), "--versions", "latest") == 0
