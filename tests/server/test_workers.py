"""Real processes and real sockets: the server is started as people start it."""

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from server import workers
from server.manifest import MANIFEST_FILE, VECTORS_FILE
from server.settings import Settings
from tests.tiny import answers, rows, vectors, write_ensemble, write_version
from tests.tiny import manifest as make_manifest

SECONDS = 30
"""How long to wait for what must happen; it takes well under one."""
BODY = json.dumps({"instances": [[1, 2, 3, 4]]}).encode()
HEAD = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(BODY)
REQUESTS = 'committee_http_requests_total{method="POST",route="/predict",status="200"}'


@dataclass
class Server:
    process: subprocess.Popen[bytes]
    log: Path
    port: int = 0

    def entries(self) -> list[dict[str, Any]]:
        """What it has logged; every line must be JSON."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def said(self, message: str) -> list[dict[str, Any]]:
        return [entry for entry in self.entries() if re.search(message, entry["message"])]

    def request(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def metrics(self) -> dict[str, float]:
        _, text = self.request("GET", "/metrics")
        lines = [line.rsplit(" ", 1) for line in text.decode().splitlines() if not line.startswith("#")]
        return {name: float(value) for name, value in lines}

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(SECONDS)


def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def start(tmp_path: Path, *options: str, **environment: str) -> Server:
    log = tmp_path / "log"
    defaults = {"COMMITTEE_MODELS": str(tmp_path / "models"), "COMMITTEE_DEFAULT": "tiny"}
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "server", *options],
            env={**os.environ, **defaults, **environment},
            stderr=stderr,
            start_new_session=True,
        )
    return Server(process, log)


@contextmanager
def running(tmp_path: Path, *options: str, **environment: str) -> Iterator[Server]:
    """A server on a free port, all of whose workers serve."""
    server = start(tmp_path, "--port", "0", *options, **environment)
    try:
        until(lambda: server.process.poll() is not None or server.said("^listening on "))
        [listening] = server.said("^listening on ")
        server.port = int(listening["message"].rpartition(":")[2])
        until(lambda: len(server.said("^ready to serve")) == listening["workers"])
        yield server
    finally:
        if server.process.poll() is None:
            server.stop()


def failed_start(tmp_path: Path, *options: str, **environment: str) -> tuple[int, str]:
    server = start(tmp_path, *options, **environment)
    code = server.process.wait(SECONDS)
    return code, server.log.read_text()


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=SECONDS)


def read_all(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(65536), b""))


def children(server: Server) -> set[int]:
    text = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text()
    return set(map(int, text.split()))


def shared_folder(server: Server) -> Path:
    """Where its processes share their metrics: a worker has files of it mapped."""
    [worker, *_] = children(server)
    found = re.search(r"/\S*/committee-[^/]+(?=/)", Path(f"/proc/{worker}/maps").read_text())
    assert found
    return Path(found[0])


class TestServe:
    def test_two_workers_that_drain(self, tmp_path: Path) -> None:
        """One server through its whole life, for starting one takes the longest."""
        write_ensemble(tmp_path / "models")
        with running(tmp_path, COMMITTEE_WORKERS="2") as server:
            assert server.request("GET", "/v2/health/ready") == (200, b'{"ready":true}')
            workers_before = children(server)
            assert len(workers_before) == 2

            # Each connection is taken by one worker or the other, and the metrics sum over both.
            for _ in range(20):
                assert server.request("POST", "/predict", BODY)[0] == 200
            assert server.metrics()[REQUESTS] == 20
            assert server.metrics()['committee_build_info{version="0.1.0"}'] == 1
            assert {entry["pid"] for entry in server.said("^ready to serve")} == workers_before

            # SIGHUP rolls: other processes, no request lost, and the metrics go on.
            server.process.send_signal(signal.SIGHUP)
            until(lambda: len(server.said("^ready to serve")) == 4 and not children(server) & workers_before)
            assert server.request("POST", "/predict", BODY)[0] == 200
            assert server.metrics()[REQUESTS] == 21

            # SIGTERM with a request in flight that lacks the last byte of its body.
            with connect(server.port) as connection:
                connection.sendall(HEAD + BODY[:-1])
                until(lambda: is_read(connection))
                server.process.send_signal(signal.SIGTERM)
                until(lambda: not is_listening(server.port))
                assert server.process.poll() is None
                connection.sendall(BODY[-1:])
                answer = read_all(connection)
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
            assert server.process.wait(SECONDS) == 0
        assert not [entry for entry in server.entries() if entry["level"] not in ("info", "debug")]

    def test_one_worker_by_options(self, tmp_path: Path) -> None:
        """Options win over the environment; a reload of a broken repository changes nothing."""
        folder = write_ensemble(tmp_path / "models")
        with running(tmp_path, "--workers", "1", "--log-level=debug", COMMITTEE_WORKERS="2") as server:
            assert len(children(server)) == 1
            shared = shared_folder(server)
            assert shared.is_dir()
            (folder / MANIFEST_FILE).write_text("x")
            server.process.send_signal(signal.SIGHUP)
            until(lambda: server.said("^not reloaded: "))
            assert server.request("POST", "/predict", BODY)[0] == 200
            assert server.stop() == 0
        [refused] = server.said("^not reloaded: ")
        assert str(folder / MANIFEST_FILE) in refused["message"]
        assert not shared.exists()

    def test_a_worker_that_dies_is_replaced(self, tmp_path: Path) -> None:
        write_ensemble(tmp_path / "models")
        with running(tmp_path, "--workers", "1") as server:
            [worker] = children(server)
            os.kill(worker, signal.SIGKILL)
            until(lambda: len(server.said("^ready to serve")) == 2)
            assert server.request("POST", "/predict", BODY)[0] == 200
            assert server.stop() == 0

    def test_workers_do_not_outlive_the_supervisor(self, tmp_path: Path) -> None:
        write_ensemble(tmp_path / "models")
        with running(tmp_path, "--workers", "1") as server:
            [worker] = children(server)
            shared = shared_folder(server)
            server.process.kill()
            server.process.wait(SECONDS)
            until(lambda: not Path(f"/proc/{worker}").exists())
        shutil.rmtree(shared)  # kill -9 leaves nobody to do it

    def test_ctrl_c(self, tmp_path: Path) -> None:
        write_ensemble(tmp_path / "models")
        with running(tmp_path, "--workers", "1") as server:
            os.killpg(server.process.pid, signal.SIGINT)  # as a terminal does: to all the processes
            assert server.process.wait(SECONDS) == 0
        assert not [entry for entry in server.entries() if entry["level"] in ("error", "critical")]

    def test_a_body_without_end_is_cut(self, tmp_path: Path) -> None:
        write_ensemble(tmp_path / "models")
        with running(tmp_path, "--workers", "1") as server, connect(server.port) as connection:
            connection.sendall(HEAD.replace(b"Content-Length: %d" % len(BODY), b"Transfer-Encoding: chunked"))
            with pytest.raises((ConnectionResetError, BrokenPipeError)):
                send_chunks(connection)
            assert server.metrics()[REQUESTS.replace("200", "413")] == 1


class TestRefusedStart:
    def test_a_broken_file(self, tmp_path: Path) -> None:
        """Found before anything listens."""
        folder = write_ensemble(tmp_path / "models")
        (folder / "m1.onnx").write_bytes(b"x")
        code, log = failed_start(tmp_path, "--port", "0")
        [line] = log.splitlines()
        entry = json.loads(line)
        assert code == 1
        assert (entry["level"], entry["logger"]) == ("critical", "server.workers")
        assert f"{folder}/m1.onnx: expected " in entry["message"]

    def test_no_such_default(self, tmp_path: Path) -> None:
        write_ensemble(tmp_path / "models")
        code, log = failed_start(tmp_path, "--default", "nope")
        [line] = log.splitlines()
        assert code == 1
        assert json.loads(line)["message"].endswith("expected the default ensemble 'nope'; there are: tiny")

    def test_a_graph_that_is_none(self, tmp_path: Path) -> None:
        """Only a worker sees it, and one of two tells."""
        files = {"m1.onnx": b"no graph", VECTORS_FILE: vectors(rows(2), answers(rows(2), 1))}
        folder = write_version(tmp_path / "models", make_manifest(1), files)
        code, log = failed_start(tmp_path, "--port", "0", "--workers", "2")
        entries = [json.loads(line) for line in log.splitlines()]
        assert code not in (0, None)
        [critical] = [entry for entry in entries if entry["level"] != "info"]
        assert critical["message"].startswith(f"{folder}/m1.onnx: ONNX Runtime cannot load it: ")
        assert "traceback" not in critical

    def test_a_port_in_use(self, tmp_path: Path) -> None:
        write_ensemble(tmp_path / "models")
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            code, log = failed_start(tmp_path, "--port", str(port))
        [line] = log.splitlines()
        assert code == 1
        assert json.loads(line)["message"] == f"cannot listen on 127.0.0.1:{port}: Address already in use"

    def test_a_wrong_setting(self, tmp_path: Path) -> None:
        code, log = failed_start(tmp_path, COMMITTEE_WORKERS="many")
        assert code == 2
        assert log.startswith("committee-server: COMMITTEE_WORKERS: ")
        assert log.count("\n") == 1


def test_what_is_imported_before_the_fork_knows_no_onnx_runtime() -> None:
    """Its threads, and the locks they may hold, do not survive a fork."""
    code = "import sys, server.app; sys.exit('onnxruntime' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


class TestFolder:
    def test_nowhere_to_write(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        def fail() -> str:
            raise OSError("read-only")

        monkeypatch.setattr(workers, "_shared_folder", fail)
        assert workers.serve(Settings()) == 1
        assert capsys.readouterr().err == "committee-server: no folder for temporary files: read-only\n"

    @pytest.mark.parametrize("memory", [True, False])
    def test_in_memory_where_that_can_be(self, memory: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "access", lambda *_: memory)
        folder = Path(workers._shared_folder())
        try:
            assert (folder.parent == Path("/dev/shm")) == memory
            assert folder.stat().st_mode & 0o777 == 0o700
        finally:
            folder.rmdir()


def test_listens_on_ipv6() -> None:
    with workers._listen(Settings(host="::1", port=0)) as listener:
        assert listener.getsockname()[0] == "::1"


def is_read(connection: socket.socket) -> bool:
    """Whether the server's process has taken all that was sent: nothing waits in its socket any more."""
    local = connection.getsockname()[1]
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, _, remote, state, queues, *_ = line.split()
        if int(remote.rpartition(":")[2], 16) == local and state == "01":
            return int(queues.rpartition(":")[2], 16) == 0
    return False


def send_chunks(connection: socket.socket) -> None:
    for _ in range(1000):
        connection.sendall(b"100000\r\n" + b" " * 0x100000 + b"\r\n")


def is_listening(port: int) -> bool:
    try:
        connect(port).close()
    except OSError:
        return False
    return True
