"""Clients that go, crowd, do not read or do not wait, while others ask as they should.

Bounds on what each may send and how long it may take, one by one: `tests/server/test_hostile.py`, `test_bounds.py`,
`test_slow_reader.py`; who is refused, and when: `test_admission.py`, `test_turns.py`.
"""

import asyncio
import json
import socket
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np
import pytest

from server.bounds import Bounds
from tests import faulty, tiny
from tests.chaos.report import Line, times
from tests.server.processes import BODY, Server, children, running, until
from tests.server.served_http import RESET, Reader, get, post
from tests.server.traffic import Count, Traffic, after

CUT = (b"", b"POST /pre", post(body=BODY)[:-1], post(body=BODY), get("/metrics"), post(body=BODY) * 20)
"""What clients have sent when they go."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny.write_ensemble(tmp_path / "models")
    return tmp_path


def sockets(server: Server) -> int:
    """That its workers hold."""
    links = [entry for pid in children(server) for entry in Path(f"/proc/{pid}/fd").iterdir()]
    return sum(read_link(entry).startswith("socket:") for entry in links)


def read_link(path: Path) -> str:
    """Empty if it is gone."""
    try:
        return str(path.readlink())
    except FileNotFoundError:
        return ""


def go(port: int, number: int) -> None:
    with suppress(ConnectionError), socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        connection.sendall(CUT[number % len(CUT)])


def test_clients_disconnect_in_the_midst_of_a_request(folder: Path, line: Line) -> None:
    """Others are answered, or told that so many are too many; nothing is left of those who go."""
    with running(folder, "--workers", "2") as server:
        before = sockets(server)
        with Traffic(server.port) as count, ThreadPoolExecutor(4) as pool:
            for _ in pool.map(lambda number: go(server.port, number), times(600, 10_000, "disconnects")):
                line.times += 1
            after(16, count)
        until(lambda: sockets(server) == before)
        with Traffic(server.port, clients=1) as calm:
            after(32, calm)
        for found in (count, calm):
            line.add(found)
            assert (found.lost, found.wrong, found.unconnected) == ([], [], 0)
        assert count.refused.keys() <= {"overloaded"}
        assert calm.refused == {}
        assert server.stop() == 0
    assert not [entry for entry in server.entries() if entry["level"] != "info"]


def test_200_scrapers(folder: Path, line: Line) -> None:
    async def scrape(port: int) -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(get("/metrics", close=True))
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        assert b'committee_build_info{version="0.1.0"} 1.0\n' in answer
        return int(answer[9:12])

    async def scrape_all(port: int) -> set[int]:
        return set(await asyncio.gather(*(scrape(port) for _ in range(200))))

    with running(folder, "--workers", "2") as server:
        with Traffic(server.port) as count:
            for _ in times(1, 20, "scrapers"):
                assert asyncio.run(scrape_all(server.port)) == {200}
                line.times += 1
        line.add(count)
        line.note = f"{count.longest:.2f} s took the longest answer beside them"
        assert (count.lost, count.wrong, count.refused, count.unconnected) == ([], [], {}, 0)
        assert server.stop() == 0


def rage(storm: Count) -> None:
    """Returns once many have been refused, and some answered."""
    until(lambda: storm.refused.total() > 200 and storm.right > 20)


def test_more_ask_than_can_be_served_and_ask_again_at_once(tmp_path: Path, line: Line) -> None:
    """The queue overflows: each is told so or answered, and once the storm is over all is as before."""
    faulty.write_deaf(tmp_path / "models", size=500)
    rows = tiny.rows(8, seed=3)
    rows[:, -1] = np.float32(faulty.HANG)  # dear ones
    options = ("--workers", "2", "--default", "deaf", "--max-queue-size", "8", "--max-wait", "0.2")
    with running(tmp_path, *options) as server:
        for _ in times(1, 10, "storms"):
            with Traffic(server.port, clients=64, pause=0, rows=rows) as storm:
                rage(storm)
            with Traffic(server.port, clients=1, rows=rows) as calm:
                after(3, calm)
            for count in (storm, calm):
                line.add(count)
                assert (count.lost, count.wrong) == ([], [])
            assert storm.refused.keys() == {"overloaded"}
            assert calm.refused == {}
            line.times += 1
        line.note = "all refused with 503 and Retry-After"
        status, body = server.request("POST", "/predict", BODY)
        assert (status, json.loads(body)["degraded"]) == (200, False)
        assert server.stop() == 0


def test_clients_do_not_read_big_answers(folder: Path, line: Line) -> None:
    """Others are answered meanwhile; those who read after all get theirs whole."""
    n_rows = Bounds().max_rows
    body = json.dumps({"instances": [[1, 2, 3, 4]] * n_rows, "detail": ["members", "contributions"]}).encode()
    with running(folder, "--workers", "2") as server:
        for _ in times(1, 10, "slow readers"):
            with Traffic(server.port) as count, ExitStack() as held:
                slow = [held.enter_context(socket.socket()) for _ in range(8)]
                for connection in slow:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                    connection.settimeout(30)
                    connection.connect(("127.0.0.1", server.port))
                    connection.sendall(post(body=body))
                after(64, count)
                answers = [Reader(connection).answer() for connection in slow[:4]]
            line.add(count)
            line.times += len(slow)
            # Their bodies and answers may be more than the worker holds at once: those are told so.
            assert Counter(answer.status for answer in answers).keys() <= {200, 503}
            whole = [answer for answer in answers if answer.status == 200]
            assert all(len(answer.json()["predictions"]) == n_rows for answer in whole)
            assert (count.lost, count.wrong, count.unconnected) == ([], [], 0)
        until(lambda: server.request("POST", "/predict", BODY)[0] == 200)
        assert server.stop() == 0
