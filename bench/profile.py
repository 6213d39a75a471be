"""What a worker does under load: `make profile`, a flame graph in bench/.work/profile.svg. Needs wrk, on Linux.

py-spy looks at the worker from outside, 250 times a second. Most systems let a process look at its descendants
only: so it is py-spy's own process that has started the server, before it became py-spy.
"""

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.peers.load import LoadFailed, find_wrk, load
from bench.peers.process import free_ports

WORK = Path("bench/.work")
BODY = Path("docs/examples/ankle-boot.json")
RATE = 250
"""Looks a second."""
START_SECONDS = 60
SVG, INFERNO = "{http://www.w3.org/2000/svg}", "{http://github.com/jonhoo/inferno}"
TITLE = re.compile(r"(.*?)(?: \(([^()]*?)(?::\d+)?\))? \([\d,]+ samples?, [\d.]+%\)")
"""Of a frame: a function, its file and line if it has any, and samples."""


class ProfileFailed(Exception):
    pass


def main() -> int:
    options = _parse()
    try:
        if options.start:
            _become_py_spy(options)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        measured = _measure(options)
    except (LoadFailed, ProfileFailed) as exc:
        print(f"profile: {exc}", file=sys.stderr)  # noqa: T201
        return 1
    print(f"{measured.rate:,.0f} requests a second, half of them within {measured.p50_ms:.2f} ms")  # noqa: T201
    print(f"{options.out}; by own time:")  # noqa: T201
    own = own_times(options.out.read_text())
    for name, samples in own.most_common(options.top):
        print(f"{samples / own.total():6.1%}  {name}")  # noqa: T201
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.profile", description="A flame graph of a worker under load."
    )
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--path", default="/predict", help="of the requests, with its query (default: %(default)s)")
    parser.add_argument("--body", type=Path, default=BODY, help="JSON (default: %(default)s)")
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--default", default="fashion", help="ensemble that /predict asks")
    parser.add_argument("--native", action="store_true", help="C's frames too; slower")
    parser.add_argument("--top", type=int, default=20, help="functions that are listed (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=WORK / "profile.svg")
    parser.add_argument("--start", type=int, help=argparse.SUPPRESS)  # a port: be the process that becomes py-spy
    return parser.parse_args()


def _measure(options: argparse.Namespace) -> Any:
    """The load on the server while it was looked at. Raises ProfileFailed, LoadFailed."""
    find_wrk()
    _find_py_spy()
    if not options.body.is_file():
        raise ProfileFailed(f"--body: expected a file, got {options.body}")
    requests = options.out.parent / "profile-requests.txt"
    requests.write_text("\t".join([options.path, str(options.body.resolve()), "content-type", "application/json"]))
    [port] = free_ports(1)
    with _traced(port) as tracing:
        found = load(port, requests, options.connections, options.seconds)
        if tracing.wait(timeout=START_SECONDS):
            raise ProfileFailed(f"py-spy ended with {tracing.returncode}: {_last_line(tracing)}")
    if found.errors:
        raise ProfileFailed(f"{found.errors} of {found.requests} requests were not answered well")
    return found


@contextlib.contextmanager
def _traced(port: int) -> Iterator["subprocess.Popen[str]"]:
    """A server on this port, and the process that looks at it; ended with the block. Raises ProfileFailed."""
    command = [sys.executable, "-m", "bench.profile", *sys.argv[1:], "--start", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    try:
        if not line:
            process.wait()
            raise ProfileFailed(_last_line(process).removeprefix("profile: "))
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
        if line:
            with contextlib.suppress(ProcessLookupError):
                os.kill(json.loads(line)["server"], signal.SIGTERM)


def _last_line(process: "subprocess.Popen[str]") -> str:
    assert process.stderr is not None
    lines = [line.strip() for line in process.stderr.read().splitlines() if line.strip()]
    return next((line for line in lines if line.startswith("Error")), lines[-1] if lines else "it says nothing")


def _become_py_spy(options: argparse.Namespace) -> None:
    """Start the server, tell its number, and look at its worker. Raises ProfileFailed; else it does not return."""
    command = ["--workers", "1", "--grpc-port", "off", "--port", str(options.start), "--models", str(options.models)]
    with (WORK / "profile.log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "server", *command, "--default", options.default], stdout=log, stderr=log
        )
    worker = _await_worker(server, options.start)
    print(json.dumps({"server": server.pid}), flush=True)  # noqa: T201
    looking = ["record", "--pid", str(worker), "--duration", str(options.seconds), "--rate", str(RATE)]
    if options.native:
        looking.append("--native")
    py_spy = _find_py_spy()
    os.execv(py_spy, [py_spy, *looking, "--output", str(options.out)])


def _await_worker(server: "subprocess.Popen[bytes]", port: int) -> int:
    """The process that answers."""
    end = time.monotonic() + START_SECONDS
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children")
    while time.monotonic() < end and server.poll() is None:
        with contextlib.suppress(OSError, urllib.error.URLError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/ready", timeout=5).close()
            return int(children.read_text().split()[0])
        time.sleep(0.05)
    server.kill()
    raise ProfileFailed(f"the server is not ready; {WORK / 'profile.log'} says why")


def _find_py_spy() -> str:
    found = shutil.which("py-spy", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if found is None:
        raise ProfileFailed("py-spy looks at the worker and is not there: pip install py-spy, or make profile")
    return found


def own_times(svg: str) -> Counter[str]:
    """Samples by function, without those of what it calls: of a flame graph as py-spy draws it."""
    frames = []
    for group in ET.fromstring(svg).iter(f"{SVG}g"):
        title, rect = group.find(f"{SVG}title"), group.find(f"{SVG}rect")
        if title is not None and rect is not None and (match := TITLE.fullmatch(title.text or "")):
            name = f"{match[1]} ({match[2]})" if match[2] else match[1]
            frames.append(
                (int(rect.attrib[f"{INFERNO}x"]), float(rect.attrib["y"]), int(rect.attrib[f"{INFERNO}w"]), name)
            )
    own: Counter[str] = Counter()
    callers: list[tuple[float, str]] = []
    for _, depth, samples, name in sorted(frames):  # from left to right, each before those below it, whom it calls
        while callers and callers[-1][0] >= depth:
            callers.pop()
        if callers:
            own[callers[-1][1]] -= samples
        own[name] += samples
        callers.append((depth, name))
    return own


if __name__ == "__main__":
    sys.exit(main())
