"""What is served changes, well or ill, while clients ask.

A load that hangs, a worker that dies while others load, polling: `tests/server/test_control.py`. A start that is
refused, for a broken manifest, graph or hash, or a port in use: `tests/server/test_workers.py`.
"""

import random
import shutil
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from server.manifest import MANIFEST_FILE
from tests import tiny
from tests.chaos.report import Line, only_long, times
from tests.server.changes import OPS, administer, controlled, members_of, publish, versions_that_answer
from tests.server.processes import Server, children, roll, running, until, until_said
from tests.server.traffic import Count, Traffic


def asked(server: Server) -> Traffic:
    return Traffic(server.port, clients=8, n_members=members_of)


def serves(server: Server, version: int) -> None:
    """Returns once all workers do."""
    until(lambda: versions_that_answer(server) == {version})


def nothing_failed(count: Count) -> None:
    assert (count.lost, count.wrong, count.refused, count.unconnected) == ([], [], {}, 0)


def test_as_many_bad_loads_as_good_ones(tmp_path: Path, line: Line) -> None:
    """No request fails, none is answered by two versions; all workers have a version once its load is answered."""
    root, n = tmp_path / "models", 0
    line.note = "seconds of a good load"
    with controlled(tmp_path) as server:
        before = children(server)
        with asked(server) as count:
            for n in times(3, 100, "loads"):
                version = n + 2
                folder = publish(root, version)
                began = time.monotonic()
                assert administer(server, "models/tiny/load") == (
                    200,
                    {"name": "tiny", "versions": [version], "generation": version},
                )
                line.seconds.append(time.monotonic() - began)
                assert versions_that_answer(server, 6) == {version}

                bad = publish(root, version + 1)
                (bad / "m1.onnx").write_bytes((folder / "m2.onnx").read_bytes())
                status, refused = administer(server, "models/tiny/load")
                assert status == 400
                assert refused["error"].startswith(f"tiny/{version + 1}/m1.onnx: expected ")
                shutil.rmtree(bad)
                line.times += 1
            last = n + 2
            until(lambda: count.by_version[last])
        line.add(count)
        nothing_failed(count)
        assert count.by_version.keys() >= {2, last}
        assert children(server) == before
        metrics = server.metrics()
        assert metrics["committee_generation"] == last
        assert metrics[f'committee_model_ready{{ensemble="tiny",version="{last}"}}'] == 1
        assert metrics[f'committee_model_ready{{ensemble="tiny",version="{last - 1}"}}'] == 0
        for outcome in ("done", "refused"):
            assert metrics[f'committee_model_changes_total{{action="load",outcome="{outcome}"}}'] == line.times
        assert server.stop() == 0
    assert not [entry for entry in server.entries() if entry["level"] not in ("info", "debug")]
    assert OPS not in (tmp_path / "log").read_text()


@only_long
def test_32_loads_at_once(tmp_path: Path, line: Line) -> None:
    """One makes the change, the others are told that it is under way, or find it made."""
    with controlled(tmp_path) as server, ThreadPoolExecutor(32) as pool:
        with asked(server) as count:
            for n in times(1, 10, "32 loads"):
                publish(tmp_path / "models", n + 2)
                answers = list(pool.map(lambda _: administer(server, "models/tiny/load"), range(32)))
                statuses = [status for status, _ in answers]
                assert set(statuses) <= {200, 409}
                assert 200 in statuses
                assert versions_that_answer(server) == {n + 2}
                line.times += 1
        line.add(count)
        nothing_failed(count)
        assert server.stop() == 0


def test_as_many_bad_reloads_as_good_ones(tmp_path: Path, line: Line) -> None:
    """By SIGHUP: workers are rolled, or nothing changes and the log says why."""
    root = tmp_path / "models"
    tiny.write_ensemble(root, n_members=members_of(1))
    line.note = "seconds until a good reload has replaced all workers"
    with running(tmp_path, "--workers", "2") as server:
        with asked(server) as count:
            for n in times(1, 20, "SIGHUP"):
                publish(root, n + 2)
                began = time.monotonic()
                roll(server)
                line.seconds.append(time.monotonic() - began)
                assert versions_that_answer(server, 6) == {n + 2}

                bad, refused = publish(root, n + 3), len(server.said("^not reloaded: "))
                (bad / MANIFEST_FILE).write_text("x")
                before = children(server)
                server.process.send_signal(signal.SIGHUP)
                until_said(server, "^not reloaded: ", refused + 1)
                assert children(server) == before
                shutil.rmtree(bad)
                line.times += 1
        line.add(count)
        nothing_failed(count)
        assert server.stop() == 0


def test_files_change_and_go_while_a_reload_is_under_way(tmp_path: Path, line: Line) -> None:
    """Whenever that is, in the trial or when workers load: those that serve go on until others do."""
    root, chance = tmp_path / "models", random.Random(5)
    tiny.write_ensemble(root, n_members=members_of(1))
    with running(tmp_path, "--workers", "2") as server:
        with asked(server) as count:
            for n in times(1, 20, "files change"):
                folder = publish(root, n + 2)
                spoil = (
                    lambda folder=folder: (folder / "m1.onnx").write_bytes(b"x"),
                    lambda folder=folder: shutil.rmtree(folder),
                )[n % 2]
                timer = threading.Timer(chance.uniform(0, 2), spoil)
                server.process.send_signal(signal.SIGHUP)
                timer.start()
                timer.join()
                assert versions_that_answer(server, 6) <= {n + 1, n + 2}

                shutil.rmtree(folder, ignore_errors=True)
                publish(root, n + 2)
                server.process.send_signal(signal.SIGHUP)
                serves(server, n + 2)
                line.times += 1
        line.add(count)
        nothing_failed(count)
        assert server.stop() == 0
