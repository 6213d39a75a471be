"""What can be said of the image, its locks and its examples without a container engine."""

import json
import re
import shutil
import socket
import subprocess
import sys
import threading
import tomllib
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = sorted((ROOT / "deploy" / "locks").glob("*.txt"))
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")
TRAINING = {"keras", "onnx", "onnxmltools", "scikit-learn", "scipy", "skl2onnx", "tensorflow", "tf2onnx", "xgboost"}


def instructions(text: str) -> list[tuple[str, str]]:
    """A Dockerfile's instructions, `(keyword, arguments)`, continued lines joined."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ").splitlines()
    return [(keyword.upper(), rest.strip()) for keyword, _, rest in (line.partition(" ") for line in joined)]


DOCKERFILE = instructions((ROOT / "Dockerfile").read_text())


def arguments(keyword: str) -> list[str]:
    return [rest for name, rest in DOCKERFILE if name == keyword]


def final_stage() -> list[tuple[str, str]]:
    start = max(i for i, (keyword, _) in enumerate(DOCKERFILE) if keyword == "FROM")
    return DOCKERFILE[start:]


def project() -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return table


def requirements(lock: Path) -> list[str]:
    """A lock's logical lines, without comments."""
    lines = [line for line in lock.read_text().splitlines() if not line.lstrip().startswith("#")]
    return [line for line in "\n".join(lines).replace("\\\n", " ").splitlines() if line.strip()]


def name_of(requirement: str) -> str:
    """`Typing_Extensions>=4 ; …` as `typing-extensions`."""
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found, requirement
    return re.sub(r"[-_.]+", "-", found[0]).lower()


def names(lock: str) -> set[str]:
    return {name_of(line) for line in requirements(ROOT / "deploy" / "locks" / lock)}


def test_the_base_is_a_pinned_python_that_the_project_supports() -> None:
    base, *others = arguments("FROM")
    found = re.fullmatch(r"python:(3)\.(\d+)(\.\d+)?-slim(@sha256:[0-9a-f]{64})? AS base", base)
    assert found, base
    least = re.fullmatch(r">=(\d+)\.(\d+)", project()["requires-python"])
    assert least
    assert (int(found[1]), int(found[2])) >= (int(least[1]), int(least[2]))
    assert all(other.split()[0] == "base" for other in others)


def test_the_image_runs_as_a_numbered_user_that_is_not_root() -> None:
    users = [rest for keyword, rest in final_stage() if keyword == "USER"]
    assert users == ["10001:10001"]


def test_the_image_has_the_version_of_the_project() -> None:
    assert f'org.opencontainers.image.version="{project()["version"]}"' in " ".join(arguments("LABEL"))


def test_the_image_reports_to_nobody() -> None:
    assert "ORT_DISABLE_TELEMETRY=1" in " ".join(arguments("ENV")).split()


def test_signals_reach_the_server_and_not_a_shell() -> None:
    (entrypoint,) = arguments("ENTRYPOINT")
    assert json.loads(entrypoint) == ["committee-server"]
    assert "committee-server" in project()["scripts"]
    assert arguments("STOPSIGNAL") == ["SIGTERM"]


class Health(BaseHTTPRequestHandler):
    """Ready as long as `status` says so."""

    status: ClassVar[int]

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/v2/health/ready" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def run_health_check(port: int) -> int:
    (check,) = arguments("HEALTHCHECK")
    python, *rest = json.loads(check.partition("CMD ")[2])
    assert python == "python"
    environment = {"COMMITTEE_PORT": str(port), "http_proxy": "http://127.0.0.1:1"}
    return subprocess.run([sys.executable, *rest], env=environment, capture_output=True, check=False).returncode


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1)])
def test_the_health_check_asks_whether_the_server_is_ready(status: int, code: int) -> None:
    with HTTPServer(("127.0.0.1", 0), type("Answering", (Health,), {"status": status})) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        assert run_health_check(server.server_port) == code
        thread.join()


def test_the_health_check_fails_when_nobody_listens() -> None:
    with socket.socket() as unused:  # bound and not listening: it refuses, and nobody else gets the port
        unused.bind(("127.0.0.1", 0))
        assert run_health_check(unused.getsockname()[1]) == 1


def test_nothing_is_fetched_but_by_the_locks() -> None:
    assert not arguments("ADD")
    installs = [part for rest in arguments("RUN") for part in rest.split("&&") if " install " in part]
    assert installs
    assert all("--require-hashes" in part or "--no-deps --no-index" in part for part in installs)


def test_the_context_is_a_list_of_what_is_copied() -> None:
    first, *patterns = [
        line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")
    ]
    assert first == "*"
    let_in = {pattern.removeprefix("!") for pattern in patterns if pattern.startswith("!")}
    copied = {path for rest in arguments("COPY") if not rest.startswith("--from") for path in rest.split()[:-1]}
    assert let_in == copied
    assert not any(path.startswith((".", "tests", "bench", "docs")) for path in let_in)


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_every_locked_requirement_has_a_version_and_hashes_and_no_address(lock: Path) -> None:
    assert requirements(lock)
    for line in requirements(lock):
        assert re.match(r"[a-z0-9._-]+==[^ ]+ ", line), line
        assert HASH.search(line), line
    assert not re.search(r"://|--index|--find-links|--trusted-host", lock.read_text())


def test_the_locks_hold_what_the_project_asks_for() -> None:
    extras = project()["optional-dependencies"]
    asked = {name_of(requirement) for requirement in project()["dependencies"]}
    assert asked <= names("serve.txt")
    for extra in extras.values():
        asked |= {name_of(requirement) for requirement in extra} - {"committee"}
    assert asked <= names("dev.txt")


def test_the_two_environments_agree_on_what_serves() -> None:
    def versions(lock: str) -> set[str]:
        return {line.split(" ")[0] for line in requirements(ROOT / "deploy" / "locks" / lock)}

    assert versions("serve.txt") <= versions("dev.txt")


def test_the_build_is_locked() -> None:
    table = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]
    assert {name_of(requirement) for requirement in table["requires"]} <= names("build.txt")


def test_no_training_library_is_locked_for_serving() -> None:
    assert not {name for name in names("serve.txt") for library in TRAINING if name.startswith(f"{library}-")}
    assert not names("serve.txt") & TRAINING


def test_the_scripts_parse() -> None:
    bash = shutil.which("bash")
    assert bash
    for script in (ROOT / "deploy").glob("*.sh"):
        subprocess.run([bash, "-n", script], check=True)
        assert script.stat().st_mode & 0o111, f"{script} is not executable"


def test_the_script_without_a_command_says_how_it_is_used() -> None:
    done = subprocess.run([ROOT / "deploy" / "image.sh"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "usage: deploy/image.sh build|check\n"


@pytest.mark.parametrize(("example", "n_rows"), [("ankle-boot", 1), ("three-rows", 3)])
def test_the_examples_are_rows_of_pixels(example: str, n_rows: int) -> None:
    body = json.loads((ROOT / "docs" / "examples" / f"{example}.json").read_text())
    assert list(body) == ["instances"]
    assert len(body["instances"]) == n_rows
    for row in body["instances"]:
        assert len(row) == 28 * 28
        assert all(isinstance(pixel, int) and 0 <= pixel <= 255 for pixel in row)
