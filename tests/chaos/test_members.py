"""Members fail while others ask the same ensemble.

By themselves, and in every combination: `tests/server/test_engine.py` and `test_run.py`; answers that are out of range:
`test_ensemble.py`; a call that nothing ends: `test_workers.py`.
"""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tests import faulty, tiny
from tests.chaos.report import Line, times
from tests.server.processes import Server, running
from tests.server.traffic import Traffic, after

FAULTS = {"raises": faulty.RAISE, "hangs": faulty.HANG, "answers NaN": faulty.NAN}


def ask(server: Server, fault: float, options: str = "?deadline_ms=1000") -> tuple[int, list[str]]:
    """The status, and who is missing."""
    body = json.dumps({"instances": [[1, 2, 3, fault]]}).encode()
    status, answer = server.request("POST", f"/predict{options}", body)
    return status, json.loads(answer).get("missing", [])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("faulty")
    faulty.write(folder / "models")
    with running(folder, "--workers", "2", "--default", "faulty", "--breaker-cooldown", "0.2") as server:
        yield server


@pytest.mark.parametrize("how", FAULTS)
def test_a_member(server: Server, line: Line, how: str) -> None:
    """Those whose rows it fails over are answered without it, and the others by all, or without it while it rests."""
    with Traffic(server.port) as count, ThreadPoolExecutor(4) as pool:
        rounds = times(12, 500, how)
        answers = list(pool.map(lambda _: ask(server, FAULTS[how]), rounds))
    line.times, line.note = len(answers), f"{count.degraded} of the right ones without the member"
    line.add(count)
    assert {tuple(missing) for status, missing in answers if status == 200} <= {("m3",)}
    # One that hangs holds the others up: some are refused, and on a busy machine some have nobody's answer in time.
    borne = {200, 503, 504} if how == "hangs" else {200}
    assert {status for status, _ in answers} <= borne
    assert not count.refused or how == "hangs"
    assert (count.lost, count.wrong) == ([], [])


def test_a_member_wants_more_memory_than_there_is(tmp_path: Path, line: Line) -> None:
    """4 TB."""
    faulty.write_deaf(tmp_path / "models", size=10**6)
    with running(tmp_path, "--workers", "2", "--default", "deaf") as server:
        with Traffic(server.port) as count:
            answers = [ask(server, faulty.HANG, "?quorum=1") for _ in times(10, 100, "memory")]
        line.times = len(answers)
        line.add(count)
        assert {(status, *missing) for status, missing in answers} == {(200, "m3")}
        assert (count.lost, count.wrong, count.refused) == ([], [], {})
        assert server.stop() == 0


def test_a_member_is_slow(tmp_path: Path, line: Line) -> None:
    """Nobody is refused who may wait, nobody gets a wrong answer."""
    faulty.write_deaf(tmp_path / "models", size=1000)
    slow = tiny.rows(8, seed=3)
    slow[:, -1] = np.float32(faulty.HANG)
    with running(tmp_path, "--workers", "2", "--default", "deaf") as server:
        with Traffic(server.port, clients=2, rows=slow) as dear, Traffic(server.port) as cheap:
            for n in times(3, 100, "slow"):
                after(1, dear)
                line.times = n + 1
            after(16, cheap)
        for count in (dear, cheap):
            line.add(count)
            assert (count.lost, count.wrong, count.refused) == ([], [], {})
        assert server.stop() == 0
