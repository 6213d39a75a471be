"""What the fast lane gains: `python -m bench.lanes`, written to bench/results/lanes.json. Needs wrk, on Linux.

Requests a second, of one row as JSON to /predict of models/fashion/1, by three roads: the fast lane, FastAPI's route,
and a plain ASGI function that does the same by the same code. Each has a process of its own with uvloop and httptools,
and all stand while one is asked. They take turns, for the machine may have other things to do: compared are the medians
of one run, and what the processor was busy for a request, which other things disturb less.
"""

import json
import multiprocessing
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import uvicorn
from rich.console import Console
from rich.progress import track
from rich.table import Table
from starlette.types import Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from server import telemetry
from server.app import create_app
from server.errors import CommitteeError
from server.protocol import FastLane
from server.rest import exchange
from server.rest.errors import reply_to, reply_to_unforeseen
from server.rest.reply import Reply, values_of
from server.settings import Settings

RESULTS = Path("bench/results/lanes.json")
BODY = Path("docs/examples/ankle-boot.json")
FAST, ROUTE, PLAIN = "fast lane", "FastAPI route", "plain ASGI"
CONNECTIONS = (1, 8, 64)
ROUNDS, SECONDS = 7, 2
GAIN = 1.3
"""By what the fast lane should be faster than a plain ASGI function."""
SCRIPT = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
local file = io.open("{body}", "rb")
wrk.body = file:read("*a")
function done(summary, latency, requests)
    local of = summary.errors
    io.write(string.format("failed %d\\n", of.connect + of.read + of.write + of.status + of.timeout))
end
"""


def main() -> int:
    console = Console()
    found: dict[str, dict[str, dict[str, float]]] = {}
    with _served() as servers:
        for connections in CONNECTIONS:
            runs: dict[str, list[tuple[float, float]]] = {road: [] for road in servers}
            for _ in track(range(ROUNDS), description=f"{connections} connections", transient=True):
                for road, (port, pid) in servers.items():
                    runs[road].append(_load(port, pid, connections))
            found[str(connections)] = {
                road: {
                    "per_second": round(statistics.median(rate for rate, _ in of)),
                    "busy_us": round(statistics.median(busy for _, busy in of), 1),
                }
                for road, of in runs.items()
            }
    for roads in found.values():
        for road in (ROUTE, PLAIN):
            gain = roads[FAST]["per_second"] / roads[road]["per_second"]
            less = roads[road]["busy_us"] / roads[FAST]["busy_us"]
            roads[f"over {road}"] = {"per_second": round(gain, 2), "busy_us": round(less, 2)}
    RESULTS.write_text(json.dumps(found, indent=2) + "\n")
    console.print(_table(found))
    least = min(roads[f"over {PLAIN}"]["per_second"] for roads in found.values())
    verdict = "as it should be" if least >= GAIN else f"less than the {GAIN} that were hoped for"
    console.print(f"The fast lane is at least {least:.2f} times as fast as a plain ASGI function: {verdict}.")
    return 0


# ---- The roads ------------------------------------------------------------------------------------------------------


class Route(FastLane):
    """The same bounds, and no fast lane."""

    FAST = False


class Plain:
    """An ASGI application of one function; whatever it is not about, as the lifespan, is the other application's."""

    def __init__(self, app: Any) -> None:
        self.app, self.state = app, app.state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != "/predict":
            await self.app(scope, receive, send)
            return
        clock, headers = time.perf_counter(), scope["headers"]
        id_ = telemetry.choose_request_id(next(iter(values_of(headers, b"x-request-id")), None))
        telemetry.request_id.set(id_)
        reply = await self._reply(scope, receive)
        given = [*reply.headers, (b"x-request-id", id_.encode())]
        await send({"type": "http.response.start", "status": reply.status, "headers": given})
        await send({"type": "http.response.body", "body": reply.body})
        seconds = time.perf_counter() - clock
        telemetry.count_request(route="/predict", method="POST", status=reply.status, seconds=seconds)

    async def _reply(self, scope: Scope, receive: Receive) -> Reply:
        began = self.state.engine._now()
        try:
            admitted = exchange.admit(self.state, scope["headers"])
            chunks = []
            message: Message = {"more_body": True}
            while message.get("more_body"):
                message = await receive()
                chunks.append(message.get("body", b""))
            asked = exchange.Asked(scope["headers"], scope["query_string"])
            return await exchange.predict(asked, b"".join(chunks), admitted, began=began)
        except CommitteeError as exc:
            return reply_to(exc, scope["headers"], "/predict")
        except Exception as exc:
            return reply_to_unforeseen(exc)


def _serve(road: str, models: str, listener: socket.socket) -> None:
    app: Any = create_app(Settings(models=Path(models), default="fashion"))
    http = {FAST: FastLane, ROUTE: Route, PLAIN: HttpToolsProtocol}[road]
    config = uvicorn.Config(
        Plain(app) if road == PLAIN else app,
        http=http,
        loop="uvloop",
        ws="none",
        lifespan="on",
        access_log=False,
        server_header=False,
        log_level="error",
    )
    uvicorn.Server(config).run(sockets=[listener])


@contextmanager
def _served() -> Iterator[dict[str, tuple[int, int]]]:
    """By road: its port, and its process."""
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as models:
        (Path(models) / "fashion").mkdir()
        (Path(models) / "fashion" / "1").symlink_to(Path("models/fashion/1").resolve())
        servers, processes = {}, []
        for road in (FAST, ROUTE, PLAIN):
            listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
            process = spawn.Process(target=_serve, args=(road, models, listener), daemon=True)
            process.start()
            processes.append(process)
            servers[road] = (listener.getsockname()[1], process.pid or 0)
            listener.close()
        try:
            for port, pid in servers.values():
                urlopen(f"http://127.0.0.1:{port}/v2/health/live", timeout=60).close()  # answers once it serves
                _load(port, pid, 1, seconds=1)
            yield servers
        finally:
            for process in processes:
                process.terminate()
                process.join()


# ---- The load -------------------------------------------------------------------------------------------------------


def _load(port: int, pid: int, connections: int, *, seconds: int = SECONDS) -> tuple[float, float]:
    """Requests a second, and microseconds of the server's processor time for each."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(SCRIPT.replace("{body}", str(BODY.resolve())))
        script.flush()
        url = f"http://127.0.0.1:{port}/predict"
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout=60s", "-s", script.name, url]
        before = _busy(pid)
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        busy = _busy(pid) - before
    n, rate, failed = (re.search(p, said) for p in (r"(\d+) requests in", r"Requests/sec: +([\d.]+)", r"failed (\d+)"))
    if n is None or rate is None or failed is None or failed[1] != "0":
        raise RuntimeError(f"not all requests were answered with 200:\n{said}")
    return float(rate[1]), 1e6 * busy / int(n[1])


def _busy(pid: int) -> float:
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def _table(found: dict[str, dict[str, dict[str, float]]]) -> Table:
    table = Table("connections", "road", "requests/s", "busy, µs a request", title="One row of JSON, models/fashion/1")
    for connections, roads in found.items():
        for road, figures in roads.items():
            unit = "x" if road.startswith("over") else ""
            table.add_row(connections, road, *(f"{figures[name]:g}{unit}" for name in ("per_second", "busy_us")))
    return table


if __name__ == "__main__":
    sys.exit(main())
