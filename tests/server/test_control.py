"""Two workers change what they serve, together or not at all, while clients ask."""

import http.client
import os
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from server.generations import Board
from server.manifest import MANIFEST_FILE
from tests.server.changes import administer, controlled, members_of, publish, versions_that_answer
from tests.server.processes import Server, children, endless_member, until, write_graph
from tests.server.traffic import Traffic

SLOW_SECONDS = 2.5


def asked(server: Server) -> Traffic:
    """By a few clients, who know what each version answers."""
    return Traffic(server.port, clients=3, n_members=members_of)


class TestExplicit:
    def test_what_is_refused_and_who_comes_second(self, tmp_path: Path) -> None:
        root = tmp_path / "models"
        with controlled(tmp_path, "--trial-seconds", str(SLOW_SECONDS)) as server, ThreadPoolExecutor(8) as pool:
            write_graph(root, endless_member(), version=2)
            with asked(server) as traffic:
                slow = pool.submit(administer, server, "models/tiny/load")
                until(lambda: len(children(server)) == 2 and grandchildren(server))
                others = list(pool.map(lambda _: administer(server, "models/tiny/load"), range(6)))
                assert {(status, answer["code"]) for status, answer in others} == {(409, "conflict")}
                status, refused = slow.result()
                assert (status, refused["error"]) == (400, "tiny/2: it took more than 2.5 seconds to verify")
            assert not grandchildren(server)
            assert (traffic.wrong, traffic.lost, set(traffic.by_version)) == ([], [], {1})
            shutil.rmtree(root / "tiny/2")

            write_graph(root, b"no graph", version=2)
            status, refused = administer(server, "models/tiny/load")
            assert status == 400
            assert refused["error"].startswith("tiny/2: m1.onnx: expected an ONNX file; got bytes that are none")
            status, listed = administer(server, "index")
            assert [(entry["version"], entry["state"]) for entry in listed] == [("1", "READY"), ("2", "UNAVAILABLE")]
            assert listed[1]["reason"] == refused["error"]

            assert administer(server, "models/tiny/unload")[0] == 200
            assert versions_that_answer(server) == {None}
            assert server.request("GET", "/v2/health/ready")[0] == 503
            assert administer(server, "models/tiny/load", versions="1")[0] == 200
            assert versions_that_answer(server) == {1}
            assert server.stop() == 0

    def test_a_worker_that_is_new_serves_what_the_others_serve(self, tmp_path: Path) -> None:
        root = tmp_path / "models"
        with controlled(tmp_path) as server:
            publish(root, 2)
            assert administer(server, "models/tiny/load")[0] == 200
            publish(root, 3)  # which nobody has asked for
            [victim, other] = sorted(children(server))
            os.kill(victim, signal.SIGKILL)
            until(lambda: len(server.said("^ready to serve")) == 3)
            assert versions_that_answer(server) == {2}

            server.process.send_signal(signal.SIGHUP)
            until(lambda: len(server.said("^ready to serve")) == 5 and not children(server) & {victim, other})
            assert versions_that_answer(server) == {2}
            (root / "tiny/2" / MANIFEST_FILE).write_text("x")
            server.process.send_signal(signal.SIGHUP)
            until(lambda: server.said("^not reloaded: tiny/2: "))
            assert versions_that_answer(server) == {2}
            assert administer(server, "models/tiny/unload")[0] == 200
            server.process.send_signal(signal.SIGHUP)
            until(lambda: len(server.said("^ready to serve")) == 7)
            assert server.stop() == 0

    def test_a_worker_is_killed_while_others_load(self, tmp_path: Path) -> None:
        """The one that makes the change, or one that follows: what is served is the old or the new, the same in all."""
        root = tmp_path / "models"
        version = 1
        with controlled(tmp_path) as server, ThreadPoolExecutor(1) as pool:
            for delay in (0.05, 0.4, 0.7):
                version += 1
                publish(root, version)
                born = len(server.said("^ready to serve"))
                loading = pool.submit(administer, server, "models/tiny/load")
                time.sleep(delay)  # in the midst of something or other
                os.kill(min(children(server)), signal.SIGKILL)
                try:
                    status = loading.result()[0]
                except (OSError, http.client.HTTPException):
                    status = None  # it was the one that was asked
                assert status in (200, None)
                until(lambda born=born: len(server.said("^ready to serve")) > born)  # type: ignore[misc]
                until(lambda: len(children(server)) == 2)
                [served] = versions_that_answer(server)
                assert served in ({version} if status else {version - 1, version})
                status, answer = administer(server, "models/tiny/load")
                assert (status, answer["versions"]) == (200, [version])
                assert versions_that_answer(server) == {version}
            assert server.stop() == 0

    def test_a_port_of_its_own(self, tmp_path: Path) -> None:
        with controlled(tmp_path, "--admin-port", "0") as server:
            [listening] = server.said("^listening on ")
            assert administer(server, "index")[0] == 404
            status, listed = administer(server, "index", listening["admin_port"])
            assert (status, [entry["name"] for entry in listed]) == (200, ["tiny"])
            status, _ = server.request("POST", "/v2/repository/index", port=listening["admin_port"])
            assert status == 401
            assert server.stop() == 0


class TestPolling:
    def test_a_version_that_is_renamed_into_its_place(self, tmp_path: Path) -> None:
        root = tmp_path / "models"
        with controlled(tmp_path, "--poll-seconds", "0.1", control="poll") as server, asked(server) as traffic:
            publish(root, 2)
            until(lambda: traffic.by_version[2])
            until(lambda: versions_that_answer(server) == {2})
            write_graph(tmp_path / "apart", b"no graph", version=3)
            (tmp_path / "apart/tiny/3").rename(root / "tiny/3")
            until(lambda: server.said("^a version is refused: tiny/3: m1.onnx"))
            publish(root, 4)
            until(lambda: traffic.by_version[4])
            status, refused = administer(server, "models/tiny/load")
            assert (status, refused["error"]) == (
                400,
                "model control is poll: the repository itself says what is served",
            )
            shutil.rmtree(root / "tiny/4")
            until(lambda: versions_that_answer(server) == {2})
        assert (traffic.wrong, traffic.lost, traffic.refused) == ([], [], {})
        tellers = [line["pid"] for line in server.said("^a version is refused")]
        assert len(tellers) == len(set(tellers))  # whoever polls tells it once
        assert server.process.returncode == 0


def test_nothing_is_left_of_a_worker_that_is_gone(tmp_path: Path) -> None:
    with controlled(tmp_path) as server:
        folder = shared_folder(server)
        board = Board(folder)
        assert set(board.words()) == children(server)
        os.kill(min(children(server)), signal.SIGKILL)
        until(lambda: len(server.said("^ready to serve")) == 3)
        until(lambda: set(board.words()) == children(server))
        assert len(list(folder.glob("worker-*.json"))) == 2
        assert server.stop() == 0
    assert not folder.exists()


def shared_folder(server: Server) -> Path:
    """Where its processes share what they know of each other."""
    [pid, *_] = children(server)
    maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return next(Path(line.split()[-1]).parent for line in maps if line.endswith("/connections"))


def grandchildren(server: Server) -> list[str]:
    """Processes of the workers: those that try a version."""
    return [
        pid for worker in children(server) for pid in Path(f"/proc/{worker}/task/{worker}/children").read_text().split()
    ]
