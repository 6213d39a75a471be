"""Load on one server by wrk, and the figures that it prints."""

import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

SCRIPT = Path(__file__).with_name("rotate.lua")
TIMEOUT_SECONDS = 10
_RESULT = re.compile(r"^RESULT (\{.*\})$", re.MULTILINE)


class LoadFailed(Exception):
    pass


@dataclass(frozen=True, slots=True)
class Load:
    requests: int
    seconds: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float
    errors: int
    """Requests without an answer, or with one that is not of the statuses 200 to 399."""

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds


def find_wrk() -> str:
    """Raises LoadFailed."""
    found = shutil.which("wrk")
    if found is None:
        raise LoadFailed("wrk makes the load and is not there: apt-get install wrk (Debian, Ubuntu)")
    return found


def load(port: int, requests: Path, connections: int, seconds: int) -> Load:
    """Send the requests of the file in turn over so many connections, from one thread. Raises LoadFailed."""
    command = [
        find_wrk(), "--threads", "1", "--connections", str(connections), "--duration", f"{seconds}s",
        "--timeout", f"{TIMEOUT_SECONDS}s", "--script", str(SCRIPT), f"http://127.0.0.1:{port}",
    ]  # fmt: skip
    environment = {**os.environ, "REQUESTS": str(requests)}
    limit = seconds + 2 * TIMEOUT_SECONDS
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired as exc:
        raise LoadFailed(f"wrk: not done after {limit} s") from exc
    if done.returncode:
        raise LoadFailed(f"wrk: {(done.stderr or done.stdout).strip()[-300:]}")
    return parse(done.stdout)


def parse(output: str) -> Load:
    """What the script printed. Raises LoadFailed."""
    match = _RESULT.search(output)
    if match is None:
        raise LoadFailed(f"wrk: expected a line RESULT, got {output.strip()[-300:]!r}")
    said = json.loads(match[1])
    if not said["requests"]:
        raise LoadFailed(f"wrk: no request was answered: {said['errors']}")
    return Load(
        said["requests"],
        said["duration_us"] / 1e6,
        said["p50_us"] / 1e3,
        said["p90_us"] / 1e3,
        said["p99_us"] / 1e3,
        said["max_us"] / 1e3,
        sum(said["errors"].values()),
    )
