"""Two workers change what they serve, together or not at all, while clients ask."""

import http.client
import json
import os
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from server.generations import Board
from server.keys import make_key
from server.manifest import MANIFEST_FILE
from tests import tiny
from tests.server.processes import BODY, SECONDS, Server, children, endless_member, running, until, write_graph

ROW = np.array([[1, 2, 3, 4]], dtype=np.float32)
OPS, LINE = make_key("ops", ["admin"])
SLOW_SECONDS = 2.5


def publish(root: Path, version: int) -> Path:
    """By one rename. Odd versions have three members and even ones two, which answer otherwise."""
    tiny.write_ensemble(root.parent / "beside", version=version, n_members=members_of(version))
    folder = root / "tiny" / str(version)
    return (root.parent / "beside" / "tiny" / str(version)).rename(folder)


def members_of(version: int) -> int:
    return 2 + version % 2


def whole(answer: dict[str, Any]) -> bool:
    """Whether an answer is that of the version which it names, in all its parts."""
    n_members = members_of(answer["version"])
    expected = tiny.answers(ROW, n_members).mean(axis=0)[0]
    return len(answer["members"]) == n_members and bool(
        np.allclose(answer["predictions"][0]["probabilities"], expected, atol=1e-6)
    )


@contextmanager
def controlled(tmp_path: Path, *options: str, control: str = "explicit") -> Iterator[Server]:
    tiny.write_ensemble(tmp_path / "models", n_members=members_of(1))
    (tmp_path / "keys").write_text(f"* predict\n{LINE}\n")
    given = ("--workers", "2", "--model-control", control, "--keys-file", str(tmp_path / "keys"))
    with running(tmp_path, *given, *options) as server:
        yield server


def administer(server: Server, what: str, port: int = 0, **parameters: str) -> tuple[int, Any]:
    body = json.dumps({"parameters": parameters}).encode() if parameters else None
    status, answer = server.request("POST", f"/v2/repository/{what}", body, port=port, **{"X-Api-Key": OPS})
    return status, json.loads(answer)


def versions_that_answer(server: Server, n: int = 24) -> set[int | None]:
    """Of connections enough to meet both workers; None where there is no answer."""
    answers = [server.request("POST", "/predict", BODY) for _ in range(n)]
    return {json.loads(body)["version"] if status == 200 else None for status, body in answers}


class Traffic:
    """Asks on a few connections that stay, until it is told to stop."""

    def __init__(self, server: Server, n_connections: int = 3) -> None:
        self.failed: list[object] = []
        self.mixed: list[object] = []
        self.by_version: Counter[int] = Counter()
        self._port = server.port
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(n_connections)]

    def __enter__(self) -> "Traffic":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=SECONDS)
        while not self._stopped.is_set():
            connection.request("POST", "/predict", BODY, {"Content-Type": "application/json"})
            response = connection.getresponse()
            answer = json.loads(response.read())
            if response.status != 200:
                self.failed.append(answer)
                continue
            self.by_version[answer["version"]] += 1
            if not whole(answer):
                self.mixed.append(answer)
            time.sleep(0.002)
        connection.close()


class TestExplicit:
    def test_twenty_good_and_twenty_bad_loads_under_traffic(self, tmp_path: Path) -> None:
        root = tmp_path / "models"
        with controlled(tmp_path) as server:
            before = children(server)
            with Traffic(server) as traffic:
                for version in range(2, 22):
                    folder = publish(root, version)
                    assert administer(server, "models/tiny/load") == (
                        200,
                        {"name": "tiny", "versions": [version], "generation": version},
                    )
                    # All workers have it, as soon as the answer is there.
                    assert versions_that_answer(server, 6) == {version}

                    bad = publish(root, version + 1)
                    (bad / "m1.onnx").write_bytes((folder / "m2.onnx").read_bytes())
                    status, refused = administer(server, "models/tiny/load")
                    assert status == 400
                    assert refused["error"].startswith(f"tiny/{version + 1}/m1.onnx: expected ")
                    shutil.rmtree(bad)
                until(lambda: traffic.by_version[21])
            assert traffic.failed == []
            assert traffic.mixed == []
            assert traffic.by_version.keys() >= {2, 21}
            assert children(server) == before
            metrics = server.metrics()
            assert metrics["committee_generation"] == 21
            assert metrics['committee_model_ready{ensemble="tiny",version="21"}'] == 1
            assert metrics['committee_model_ready{ensemble="tiny",version="20"}'] == 0
            changes = {outcome: metrics[f'committee_model_changes_total{{action="load",outcome="{outcome}"}}']
                       for outcome in ("done", "refused")}  # fmt: skip
            assert changes == {"done": 20, "refused": 20}
            assert server.stop() == 0
        assert not [entry for entry in server.entries() if entry["level"] not in ("info", "debug")]
        assert OPS not in (tmp_path / "log").read_text()

    def test_what_is_refused_and_who_comes_second(self, tmp_path: Path) -> None:
        root = tmp_path / "models"
        with controlled(tmp_path, "--trial-seconds", str(SLOW_SECONDS)) as server, ThreadPoolExecutor(8) as pool:
            write_graph(root, endless_member(), version=2)
            with Traffic(server) as traffic:
                slow = pool.submit(administer, server, "models/tiny/load")
                until(lambda: len(children(server)) == 2 and grandchildren(server))
                others = list(pool.map(lambda _: administer(server, "models/tiny/load"), range(6)))
                assert {(status, answer["code"]) for status, answer in others} == {(409, "conflict")}
                status, refused = slow.result()
                assert (status, refused["error"]) == (400, "tiny/2: it took more than 2.5 seconds to verify")
            assert not grandchildren(server)
            assert (traffic.failed, traffic.mixed, set(traffic.by_version)) == ([], [], {1})
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
        with controlled(tmp_path, "--poll-seconds", "0.1", control="poll") as server, Traffic(server) as traffic:
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
        assert (traffic.failed, traffic.mixed) == ([], [])
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
