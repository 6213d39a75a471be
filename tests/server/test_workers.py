"""Real processes and real sockets: the server is started as people start it."""

import gc
import http.client
import json
import os
import re
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from server import worker, workers
from server.manifest import MANIFEST_FILE
from server.settings import Settings
from tests import faulty
from tests.server.processes import BODY, SECONDS, Server, children, endless_member, running, start, until, write_graph
from tests.tiny import coefficients, linear_member, write_ensemble

HEAD = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(BODY)
REQUESTS = 'committee_http_requests_total{method="POST",route="/predict",status="200"}'


IMPATIENT = "import sys; from server import cli, run; run.STUCK_SECONDS = 0.1; sys.exit(cli.run(sys.argv[1:]))"
"""A server that gives a call up as soon as it has not ended a tenth of a second after it was stopped."""


def failed_start(tmp_path: Path, *options: str, **environment: str) -> tuple[int, str]:
    server = start(tmp_path, *options, **environment)
    code = server.process.wait(SECONDS)
    return code, server.log.read_text()


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=SECONDS)


def read_all(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(65536), b""))


def shared_folder(server: Server) -> Path:
    """Where its processes share their metrics: a worker has files of it mapped."""
    [worker, *_] = children(server)
    found = re.search(r"/\S*/committee-[^/]+(?=/)", Path(f"/proc/{worker}/maps").read_text())
    assert found
    return Path(found[0])


def seconds_of_processor(pid: int) -> float:
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


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
            until(lambda: server.metrics().get(REQUESTS) == 20)  # each writes its own within a tenth of a second
            assert server.metrics()['committee_build_info{version="0.1.0"}'] == 1
            until(lambda: server.metrics()["committee_ready"] == 1)
            assert {entry["pid"] for entry in server.said("^ready to serve")} == workers_before

            # SIGHUP rolls: other processes, no request lost, and the metrics go on.
            server.process.send_signal(signal.SIGHUP)
            until(lambda: len(server.said("^ready to serve")) == 4 and not children(server) & workers_before)
            assert server.request("POST", "/predict", BODY)[0] == 200
            until(lambda: server.metrics().get(REQUESTS) == 21)

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

    def test_few_connections_are_spread_over_the_workers(self, tmp_path: Path) -> None:
        write_ensemble(tmp_path / "models")
        with running(tmp_path, "--workers", "2") as server, ExitStack() as held:
            for _ in range(16):
                client = held.enter_context(connect(server.port))
                client.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n")
                assert client.recv(1 << 16).startswith(b"HTTP/1.1 200 ")
            until(lambda: sum(count for _, count in shares(server)) == 16)
            counts = [count for pid, count in shares(server) if pid]
            assert min(counts) >= 2  # over a shared listener one of them may have none

    def test_connections_come_to_a_worker_that_has_taken_anothers_place(self, tmp_path: Path) -> None:
        """Of clients that keep theirs as long as they may, and open another at once when one is gone."""
        write_ensemble(tmp_path / "models")

        def counts() -> list[int]:
            return [count for pid, count in shares(server) if pid]

        with running(tmp_path, "--workers", "2") as server, ExitStack() as held:
            clients = [http.client.HTTPConnection("127.0.0.1", server.port, timeout=SECONDS) for _ in range(16)]
            for client in clients:
                held.callback(client.close)

            def ask() -> None:
                for client in clients:  # which connects again where it was told that the answer is the last
                    client.request("POST", "/predict", BODY, {"Content-Type": "application/json"})
                    assert client.getresponse().read().startswith(b'{"model":"tiny"')

            ask()
            killed = min(children(server))
            os.kill(killed, signal.SIGKILL)
            until(lambda: killed not in children(server))
            for client in clients:
                client.close()
            ask()  # most of them before there is another worker
            until(lambda: len(server.said("^ready to serve")) == 3)

            def are_spread() -> bool:
                ask()
                return len(counts()) == 2 and min(counts()) >= 6

            until(are_spread)

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
            with connect(server.port) as connection:
                connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
                assert b'"error":"Host: expected one; got none"' in read_all(connection)
            assert server.stop() == 0
        [refused] = server.said("^not reloaded: ")
        assert str(folder / MANIFEST_FILE) in refused["message"]
        assert not shared.exists()

    def test_a_reload_of_graphs_that_cannot_be_served(self, tmp_path: Path) -> None:
        """Files and hashes agree, so only loading tells: the old workers answer on, and one line says why."""
        write_ensemble(tmp_path / "models")
        with running(tmp_path, "serve", "--workers", "1") as server:
            workers_before = children(server)
            before = server.request("POST", "/predict", BODY)
            folder = write_graph(tmp_path / "models", b"no graph", version=2)
            server.process.send_signal(signal.SIGHUP)
            until(lambda: server.said("^not reloaded: "))
            assert server.request("POST", "/predict", BODY) == before
            assert children(server) == workers_before

            # Once it is mended, the next reload serves it.
            shutil.rmtree(folder)
            write_graph(tmp_path / "models", linear_member(coefficients(1)[0]), version=2)
            server.process.send_signal(signal.SIGHUP)
            until(lambda: len(server.said("^ready to serve")) == 2 and not children(server) & workers_before)
            assert json.loads(server.request("POST", "/predict", BODY)[1])["version"] == 2
            assert server.stop() == 0
        [refused] = [entry for entry in server.entries() if entry["level"] not in ("info", "debug")]
        assert refused["level"] == "error"
        assert refused["message"].startswith("not reloaded: tiny/2: m1.onnx: expected an ONNX file; got bytes")

    def test_a_stop_while_a_reload_is_tried(self, tmp_path: Path) -> None:
        write_ensemble(tmp_path / "models")
        with running(tmp_path, "--workers", "1") as server:
            [worker] = children(server)
            write_graph(tmp_path / "models", endless_member(), version=2)
            server.process.send_signal(signal.SIGHUP)
            until(lambda: len(children(server)) == 2)
            [trial] = children(server) - {worker}
            until(lambda: seconds_of_processor(trial) > 1)  # in the midst of loading, or further
            assert server.request("POST", "/predict", BODY)[0] == 200
            assert server.stop() == 0
            assert not Path(f"/proc/{trial}").exists()
        assert server.said("^not reloaded: verifying ended with exit code -9")

    def test_a_worker_that_cannot_be_replaced(self, tmp_path: Path) -> None:
        """What is served has been changed on disk: the other worker goes on."""
        folder = write_ensemble(tmp_path / "models")
        with running(tmp_path, "--workers", "2") as server:
            (folder / "m1.onnx").write_bytes(b"x")
            dying, other = sorted(children(server))
            os.kill(dying, signal.SIGKILL)
            until(lambda: server.said("^a worker could not be replaced"))
            assert other in children(server)
            assert server.request("POST", "/predict", BODY)[0] == 200
            started = time.monotonic()
            assert server.stop() == 0
            assert time.monotonic() - started < worker.RETRY_SECONDS / 2
        [told] = server.said("^a worker could not be replaced, the next tries in 10 seconds: ")
        assert f"{folder}/m1.onnx: expected " in told["message"]

    def test_a_worker_that_dies_is_replaced(self, tmp_path: Path) -> None:
        write_ensemble(tmp_path / "models")
        with running(tmp_path, "--workers", "1") as server:
            [worker] = children(server)
            os.kill(worker, signal.SIGKILL)
            until(lambda: len(server.said("^ready to serve")) == 2)
            assert server.request("POST", "/predict", BODY)[0] == 200
            assert server.stop() == 0

    def test_a_worker_that_has_lost_a_thread_is_replaced(self, tmp_path: Path) -> None:
        """To a call that does not end when it is stopped: the other members answer, and another worker takes over."""
        faulty.write_deaf(tmp_path / "models", size=5000)
        deaf = json.dumps({"instances": [[1, 2, 3, faulty.HANG]]}).encode()
        program = ("-c", IMPATIENT)
        with running(tmp_path, "--workers", "1", "--default", "deaf", program=program) as server:
            status, body = server.request("POST", "/predict?deadline_ms=800&quorum=1", deaf)
            answer = json.loads(body)
            assert (status, answer["missing"]) == (200, ["m3"])
            until(lambda: len(server.said("^ready to serve")) == 2)
            assert server.said("a thread is lost, so this worker ends")
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
            until(lambda: server.metrics().get(REQUESTS.replace("200", "413")) == 1)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes its certificate by openssl")
class TestTls:
    def test_both_versions_of_it_that_are_safe(self, tmp_path: Path) -> None:
        write_ensemble(tmp_path / "models")
        certificate, key = write_certificate(tmp_path)
        with running(tmp_path, "--workers", "1", "--tls-cert", certificate, "--tls-key", key) as server:
            for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
                context = ssl.create_default_context(cafile=certificate)
                context.minimum_version = context.maximum_version = version
                connection = http.client.HTTPSConnection("localhost", server.port, timeout=SECONDS, context=context)
                connection.request("POST", "/predict", BODY, {"Content-Type": "application/json"})
                assert connection.getresponse().status == 200
                connection.close()
            with connect(server.port) as plain:
                plain.sendall(HEAD + BODY)
                assert b"HTTP/1.1 200" not in read_all(plain)
            assert server.stop() == 0
        assert not [entry for entry in server.entries() if entry["level"] not in ("info", "debug")]

    def test_a_key_of_another_certificate(self, tmp_path: Path) -> None:
        write_ensemble(tmp_path / "models")
        (tmp_path / "other").mkdir()
        certificate, _ = write_certificate(tmp_path)
        _, key = write_certificate(tmp_path / "other")
        code, log = failed_start(tmp_path, "--port", "0", "--tls-cert", certificate, "--tls-key", key)
        [line] = log.splitlines()
        assert code == 1
        assert json.loads(line)["message"].startswith(f"cannot serve TLS by {certificate} and {key}: ")


class TestRefusedStart:
    def test_a_broken_file_of_keys(self, tmp_path: Path) -> None:
        write_ensemble(tmp_path / "models")
        (tmp_path / "keys").write_text("x")
        code, log = failed_start(tmp_path, "--port", "0", COMMITTEE_KEYS_FILE=str(tmp_path / "keys"))
        [line] = log.splitlines()
        assert code == 1
        assert json.loads(line)["message"] == (
            f"{tmp_path}/keys: line 1: expected `name scopes sha256:hash`; got 1 fields"
        )

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
        message = json.loads(line)["message"]
        assert message.endswith("expected the default ensemble 'nope'; there are: tiny (--default says which is meant)")

    def test_a_graph_that_is_none(self, tmp_path: Path) -> None:
        """It is tried before there are workers."""
        folder = write_graph(tmp_path / "models", b"no graph")
        code, log = failed_start(tmp_path, "--port", "0", "--workers", "2")
        entries = [json.loads(line) for line in log.splitlines()]
        assert code not in (0, None)
        [critical] = [entry for entry in entries if entry["level"] != "info"]
        assert critical["message"].startswith(f"{folder}/m1.onnx: expected an ONNX file; got bytes that are none: ")
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
            shutil.rmtree(folder)


def write_certificate(folder: Path) -> tuple[str, str]:
    """Of localhost, signed by itself; with its key."""
    certificate, key = str(folder / "cert.pem"), str(folder / "key.pem")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost"
    subprocess.run(
        [*command.split(), "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate],
        check=True,
        capture_output=True,
    )
    return certificate, key


def shares(server: Server) -> list[tuple[int, int]]:
    """Process id and number of connections of each worker, as the workers tell each other in a file that they map."""
    worker = next(entry["pid"] for entry in server.said("^ready to serve") if entry["pid"] in children(server))
    maps = Path(f"/proc/{worker}/maps").read_text().splitlines()
    [path] = {line.split()[-1] for line in maps if line.endswith("/connections")}
    return [(pid, count) for pid, count, _ in struct.iter_unpack("=iid", Path(path).read_bytes())]


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


def test_what_is_loaded_is_left_alone_by_the_collector_of_garbage() -> None:
    threshold = gc.get_threshold()
    before = gc.get_freeze_count()
    try:
        worker._leave_to_stand()
        assert gc.get_freeze_count() > before
        assert gc.get_threshold()[0] == worker.GARBAGE > threshold[0]
        assert gc.isenabled()
    finally:
        gc.unfreeze()
        gc.set_threshold(*threshold)


LARGE = """
from pathlib import Path
from server import worker

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 >> 20

worker._give_back_what_is_large()
begin = resident()
bytearray(20 << 20)  # from now on glibc would take smaller ones of a heap of its own
large, small = [], []
for _ in range(10):
    large.append(bytearray(b"x" * (8 << 20)))
    small.append(bytearray(b"y" * 5000))  # … and these would keep it from shrinking
most = resident()
large.clear()
print(most - begin, resident() - begin)
"""


def test_memory_of_what_was_large_is_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", LARGE], capture_output=True, text=True, check=True)
    most, left = map(int, done.stdout.split())
    assert most >= 80
    assert left <= 4
