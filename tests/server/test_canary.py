import subprocess
import sys
from pathlib import Path

import pytest

from server import canary
from tests.server.processes import endless_member, write_graph
from tests.tiny import write_ensemble, write_packed


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "models"


def write_two(root: Path) -> None:
    for version in (1, 2):
        write_ensemble(root, version=version)
    write_packed(root, n_members=1)


def spoil(root: Path, version: int = 1) -> None:
    (root / "tiny" / str(version) / "m2.onnx").write_bytes(b"")


def fault(root: Path, versions: str = "latest") -> str | None:
    return canary.wait_for_fault(canary.start_apart([root], versions, seconds=60), seconds=60)


def test_apart_a_good_repository_has_no_fault(root: Path) -> None:
    write_two(root)
    spoil(root, 1)
    assert fault(root) is None
    assert fault(root, "2,3") == "packed: expected one of the versions [2, 3], got [1]"


def test_apart_the_first_fault_is_told(root: Path) -> None:
    write_two(root)
    spoil(root, 1)
    spoil(root, 2)
    found = fault(root, "all")
    assert found is not None
    assert found.startswith("tiny/1: m2.onnx: expected ")


def child(code: str) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("import os; print('ok a/1 (…)', flush=True); os.abort()", "ended with exit code -6: it said nothing"),
        ("import sys; print('ok a/1 (…)'); sys.exit('out of memory')", "ended with exit code 1: out of memory"),
        ("", "ended with exit code 0: it said nothing"),
    ],
    ids=["crashed", "failed", "silent"],
)
def test_a_process_that_does_not_say_all_is_good_is_a_fault(code: str, told: str) -> None:
    assert canary.wait_for_fault(child(code), seconds=60) == f"verifying {told}"


def test_a_process_that_hangs_is_ended() -> None:
    process = child("import time; time.sleep(600)")
    told = canary.wait_for_fault(process, seconds=0.2)
    assert told == "it took more than 0.2 seconds to verify"
    assert process.returncode == -9


def test_of_some_versions_and_no_others(root: Path) -> None:
    write_two(root)
    spoil(root, 1)
    paths = [root / "packed/1", root / "tiny/2"]
    assert canary.wait_for_fault(canary.start_apart(paths, seconds=60), seconds=60) is None


def test_a_graph_without_end_is_ended(root: Path) -> None:
    folder = write_graph(root, endless_member())
    process = canary.start_apart([folder], seconds=60)
    assert canary.wait_for_fault(process, seconds=1) == "it took more than 1 seconds to verify"
    assert process.returncode == -9


CONFINED = "from server.confine import confine; confine(1 << 30, 1); "


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("while True: pass", "exit code -"),
        ("bytearray(2 << 30)", "exit code 1: MemoryError"),
        ("open('file', 'wb').write(bytes(2 << 20))", "exit code 1: OSError: [Errno 27] File too large"),
        (
            "import resource, sys; sys.exit(resource.getrlimit(resource.RLIMIT_CORE) != (0, 0))",
            "exit code 0: it said nothing",
        ),
        ("print('ok a' if open('/proc/self/oom_score_adj').read() == '1000\\n' else 'it is not')", None),
    ],
    ids=["time", "memory", "files", "cores", "first to go"],
)
def test_it_is_confined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, said: str | None) -> None:
    path = str(Path(canary.__file__).parents[1])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", path)
    told = canary.wait_for_fault(child(CONFINED + "\n" + code), seconds=60)
    assert told is None if said is None else (told or "").startswith(f"verifying ended with {said}")
