"""Run the container image as it would run in production, and see that it serves and stops as it should.

Read-only root, no capabilities, no new privileges, limits on memory and processes; a free port of the loopback
interface. `deploy/image.sh check` builds the image and calls this.
"""

import argparse
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

BODY = (Path(__file__).parents[1] / "docs" / "examples" / "ankle-boot.json").read_bytes().strip()
LABEL = "ankle boot"
"""What the example shows, in small letters."""
HEADERS = {"Content-Type": "application/json", "Content-Length": str(len(BODY))}
HOST = "127.0.0.1"
PREFIX = "committee-check-"
TRAINING = ("tensorflow", "keras", "sklearn", "scipy", "xgboost", "onnx", "onnxmltools", "skl2onnx", "tf2onnx")
FIND = f"import importlib.util as u; print(*[m for m in {TRAINING} if u.find_spec(m)])"
WRITE = "for path in / /tmp /var/tmp /opt/venv /models; do touch $path/x 2>/dev/null && echo $path; done; true"


class Failure(Exception):
    """The image is not what it should be."""


class Container:
    """A container and the engine's command to speak to it."""

    def __init__(self, engine: str) -> None:
        self.engine = engine
        self.name = f"{PREFIX}{os.getpid()}"
        self.port = free_port()

    def start(self, image: str) -> None:
        # Loopback, since the network is the host's; two workers, however many cores there are, for the memory.
        env = {"COMMITTEE_HOST": HOST, "COMMITTEE_PORT": self.port, "COMMITTEE_GRPC_PORT": 0, "COMMITTEE_WORKERS": 2}
        # Podman would make /tmp and others writable, which Docker and Kubernetes do not.
        strict = ["--read-only-tmpfs=false", "--tmpfs=/dev/shm:size=64m"] if self.engine == "podman" else []
        self.run(
            *("run", "--detach", "--name", self.name, "--network", "host"),
            *("--read-only", *strict, "--cap-drop", "all", "--security-opt", "no-new-privileges"),
            *("--memory", "1g", "--pids-limit", "256"),
            *(f"--env={name}={value}" for name, value in env.items()),
            image,
        )

    def run(self, *arguments: str) -> str:
        """Run a command of the engine, and give what it prints. Raises Failure."""
        done = subprocess.run([self.engine, *arguments], capture_output=True, text=True, timeout=60, check=False)
        if done.returncode:
            raise Failure(f"{self.engine} {arguments[0]}: exit {done.returncode}: {done.stderr.strip()}")
        return done.stdout.strip()

    def attempt(self, *arguments: str) -> str:
        """Run a command of the engine that may fail, and give all that it prints."""
        done = subprocess.run([self.engine, *arguments], capture_output=True, text=True, timeout=60, check=False)
        return done.stdout + done.stderr

    def inside(self, *command: str) -> str:
        return self.run("exec", self.name, *command)

    def state(self, field: str) -> str:
        return self.run("inspect", "--format", "{{.State." + field + "}}", self.name)

    def logs(self) -> str:
        return self.attempt("logs", "--tail", "40", self.name)

    def remove(self) -> None:
        self.attempt("kill", self.name)  # else podman's rm waits for it to stop
        self.attempt("rm", "--force", self.name)

    def remove_left_behind(self) -> None:
        """Remove the containers of checks that were killed."""
        names = self.run("ps", "--all", "--filter", f"name=^{PREFIX}", "--format", "{{.Names}}").split()
        for name in names:
            if not Path("/proc", name.removeprefix(PREFIX)).exists():
                self.attempt("rm", "--force", name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", default="docker", help="docker, or podman")
    parser.add_argument("--image", default="committee:latest")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    container = Container(arguments.engine)
    container.remove_left_behind()
    try:
        check(container, arguments.image)
    except (Failure, OSError, subprocess.SubprocessError) as exc:
        say(f"its log:\n{container.logs()}")
        say(f"FAILED: {exc}")
        sys.exit(1)
    finally:
        container.remove()
    say("OK")


def check(container: Container, image: str) -> None:
    container.start(image)
    say(f"started {container.name}, port {container.port}")
    until(lambda: is_ready(container), "ready", seconds=60)
    say("ready")
    check_health(container)
    check_confinement(container)
    check_prediction(*predict(container.port))
    say(f"POST /predict: 200, {LABEL}")
    check_stop(container)


def check_health(container: Container) -> None:
    if container.engine == "podman":  # it leaves the schedule to systemd, which need not be there
        container.run("healthcheck", "run", container.name)
    until(lambda: container.state("Health.Status") == "healthy", "healthy", seconds=30)
    say("HEALTHCHECK: healthy")


def check_confinement(container: Container) -> None:
    if (uid := container.inside("id", "-u")) == "0":
        raise Failure("it runs as root")
    if writable := container.inside("sh", "-c", WRITE):
        raise Failure(f"expected a read-only root; can write in {writable}")
    if found := container.inside("python", "-c", FIND):
        raise Failure(f"expected no training library; found {found}")
    say(f"uid {uid}; nothing in the root is writable; no training library")


def check_stop(container: Container) -> None:
    """SIGTERM while all but the last byte of a request has come: it takes no more, answers that one, and exits 0."""
    connection = http.client.HTTPConnection(HOST, container.port, timeout=20)
    connection.putrequest("POST", "/predict")
    for name, value in HEADERS.items():
        connection.putheader(name, value)
    connection.endheaders(BODY[:-1])
    time.sleep(0.5)  # for it to be read
    with subprocess.Popen(
        [container.engine, "stop", "-t", "20", container.name], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ):
        until(lambda: refuses(container.port), "refusing new connections", seconds=10)
        connection.send(BODY[-1:])
        check_prediction(*answer(connection))
    if (code := container.state("ExitCode")) != "0":
        raise Failure(f"expected exit 0 after SIGTERM; got {code}")
    if not refuses(container.port):
        raise Failure(f"port {container.port} still answers")
    say("SIGTERM: refused new connections, answered the request in flight, exit 0")


def check_prediction(status: int, body: bytes) -> None:
    if status != 200:
        raise Failure(f"expected 200; got {status}: {body[:500]!r}")
    if (label := json.loads(body)["predictions"][0]["label"]).lower() != LABEL:
        raise Failure(f"expected the label {LABEL!r}; got {label!r}")


def predict(port: int) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(HOST, port, timeout=20)
    connection.request("POST", "/predict", BODY, HEADERS)
    return answer(connection)


def answer(connection: http.client.HTTPConnection) -> tuple[int, bytes]:
    try:
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException) as exc:
        raise Failure(f"expected an answer; got {exc!r}") from exc
    finally:
        connection.close()


def is_ready(container: Container) -> bool:
    if container.state("Running") != "true":
        raise Failure("it stopped by itself")
    try:
        connection = http.client.HTTPConnection(HOST, container.port, timeout=2)
        connection.request("GET", "/v2/health/ready")
        return connection.getresponse().status == 200
    except OSError:
        return False


def refuses(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), timeout=1).close()
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return False


def until(condition: Callable[[], bool], what: str, *, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise Failure(f"expected it to be {what} within {seconds} s")
        time.sleep(0.05)


def free_port() -> int:
    with socket.create_server((HOST, 0)) as listener:
        return int(listener.getsockname()[1])


def say(message: str) -> None:
    print(time.strftime("[%T]"), message, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
