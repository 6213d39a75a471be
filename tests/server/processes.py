"""Servers as people start them: real processes and real sockets."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from server.manifest import VECTORS_FILE
from tests.tiny import answers, coefficients, graph, rows, vectors, write_version
from tests.tiny import manifest as make_manifest

SECONDS = 30
"""How long to wait for what must happen; it takes well under one."""
BODY = json.dumps({"instances": [[1, 2, 3, 4]]}).encode()


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

    def request(
        self, method: str, path: str, body: bytes | None = None, *, port: int = 0, **headers: str
    ) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", port or self.port, timeout=SECONDS)
        try:
            type_ = {"Content-Type": "application/json"} if body else {}
            connection.request(method, path, body, type_ | headers)
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


SERVER = ("-m", "server")


def start(tmp_path: Path, *options: str, program: Sequence[str] = SERVER, **environment: str) -> Server:
    log = tmp_path / "log"
    defaults = {
        "COMMITTEE_MODELS": str(tmp_path / "models"),
        "COMMITTEE_DEFAULT": "tiny",
        "COMMITTEE_GRPC_PORT": "off",
    }
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, *program, *options],
            env={**os.environ, **defaults, **environment},
            stderr=stderr,
            start_new_session=True,
        )
    return Server(process, log)


@contextmanager
def running(tmp_path: Path, *options: str, program: Sequence[str] = SERVER, **environment: str) -> Iterator[Server]:
    """A server on a free port, all of whose workers serve."""
    server = start(tmp_path, *options, "--port", "0", program=program, **environment)
    try:
        until(lambda: server.process.poll() is not None or server.said("^listening on "))
        [listening] = server.said("^listening on ")
        server.port = int(listening["message"].rpartition(":")[2])
        until(lambda: len(server.said("^ready to serve")) == listening["workers"])
        yield server
    finally:
        if server.process.poll() is None:
            server.stop()


def children(server: Server) -> set[int]:
    text = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text()
    return set(map(int, text.split()))


def until_said(server: Server, message: str, times: int) -> None:
    until(lambda: len(server.said(message)) >= times)


def roll(server: Server) -> None:
    """Returns once a reload has replaced all workers."""
    before = children(server)
    server.process.send_signal(signal.SIGHUP)
    until(lambda: len(children(server)) == len(before) and not children(server) & before)


def write_graph(root: Path, data: bytes, *, version: int = 1) -> Path:
    """A version of one member, whatever its file holds, that is right as far as hashes tell."""
    files = {"m1.onnx": data, VECTORS_FILE: vectors(rows(2), answers(rows(2), 1))}
    return write_version(root, make_manifest(1, version=version), files)


def endless_member() -> bytes:
    """A graph `X (n, 4) -> probabilities (n, 3)` that takes hours to answer."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["going"]), helper.make_node("Sin", ["value"], ["next"])],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("value", TensorProto.FLOAT, ["n", 3]),
        ],
        [
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, ["n", 3]),
        ],
    )
    return graph(
        [
            helper.make_node("MatMul", ["X", "W"], ["logits"]),
            helper.make_node("Loop", ["turns", "yes", "logits"], ["probabilities"], body=body),
        ],
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", 3])],
        {"W": coefficients(1)[0], "turns": np.array(10**12), "yes": np.array(True)},
    )
