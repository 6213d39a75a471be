import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from server import accepting
from server.accepting import Acceptor
from server.crowd import Connections
from server.shares import Shares
from tests.server.test_shares import PEER, joined


class Held(asyncio.Protocol):
    """Counts itself as long as it is connected."""

    def __init__(self, held: "Connections[Held]") -> None:
        self.held = held

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.held.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.held.discard(self)


class Worker:
    """An acceptor, and the connections that it has accepted."""

    def __init__(self, path: Path) -> None:
        self.held: Connections[Held] = Connections(lambda: self.acceptor.tell())
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.shares = joined(path, 1)
        self.acceptor = Acceptor(
            self.listener,
            lambda: Held(self.held),
            context=None,
            shares=self.shares,
            count=lambda: len(self.held),
        )

    def connect(self) -> socket.socket:
        return socket.create_connection(self.listener.getsockname(), timeout=30)

    async def told(self, peer: Shares, n: int) -> None:
        """Until that is what others see; what has just been opened counts for a moment as what is being opened, too."""
        while peer.of_others() != [n]:
            await asyncio.sleep(0.001)
            self.acceptor.tell()

    async def until(self, n: int) -> None:
        while len(self.held) != n:
            await asyncio.sleep(0.001)


def run(path: Path, test: Callable[[Worker], Awaitable[None]]) -> None:
    async def go() -> None:
        worker = Worker(path)
        try:
            await asyncio.wait_for(test(worker), 30)
        finally:
            worker.acceptor.close()
            await worker.acceptor.wait_closed()
            for held in list(worker.held):
                held.transport.close()
            await asyncio.sleep(0)
            worker.listener.close()

    asyncio.run(go())


def test_a_worker_alone_takes_all_connections(tmp_path: Path) -> None:
    async def test(worker: Worker) -> None:
        clients = [worker.connect() for _ in range(20)]
        await worker.until(20)
        for client in clients:
            client.close()
        await worker.until(0)

    run(tmp_path / "connections", test)


def test_others_see_how_many_it_has(tmp_path: Path) -> None:
    path = tmp_path / "connections"

    async def test(worker: Worker) -> None:
        peer = joined(path, 2, PEER)
        clients = [worker.connect() for _ in range(3)]
        await worker.told(peer, 3)
        clients[0].close()
        await worker.until(2)
        assert peer.of_others() == [2]  # at once: as many may come back
        for client in clients:
            client.close()

    run(path, test)


def test_who_has_more_leaves_a_connection_to_the_others_and_takes_it_if_they_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "connections"
    monkeypatch.setattr(accepting, "DEFERRED_SECONDS", 0.05)

    async def test(worker: Worker) -> None:
        joined(path, 2, PEER, count=1)
        first = worker.connect()
        await worker.until(1)
        second = worker.connect()
        await worker.until(2)  # it has as many as the other
        began = asyncio.get_running_loop().time()
        third = worker.connect()
        await worker.until(3)
        assert asyncio.get_running_loop().time() - began >= 0.05
        for client in (first, second, third):
            client.close()

    run(path, test)


def test_of_many_that_wait_a_worker_takes_its_part_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "connections"
    monkeypatch.setattr(accepting, "DEFERRED_SECONDS", 60)

    async def test(worker: Worker) -> None:
        joined(path, 2, PEER, count=2)
        clients = [worker.connect() for _ in range(10)]
        assert accepting.waiting(worker.listener) == 10
        await worker.until(6)  # of twelve, with those of the other
        await asyncio.sleep(0.05)
        assert len(worker.held) == 6
        assert accepting.waiting(worker.listener) == 4
        for client in clients:
            client.close()

    run(path, test)


def test_where_the_system_does_not_tell_how_many_wait_all_are_taken_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(socket, "TCP_INFO")

    async def test(worker: Worker) -> None:
        clients = [worker.connect() for _ in range(5)]
        await worker.until(5)
        for client in clients:
            client.close()

    run(tmp_path / "connections", test)


def test_a_connection_that_another_has_taken_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "connections"
    monkeypatch.setattr(accepting, "DEFERRED_SECONDS", 0.05)

    async def test(worker: Worker) -> None:
        held = worker.connect()
        await worker.until(1)
        joined(path, 2, PEER, count=0)
        client = worker.connect()
        await asyncio.sleep(0.01)
        taken, _ = worker.listener.accept()  # as another worker would
        await asyncio.sleep(0.1)
        assert len(worker.held) == 1
        for connection in (taken, client, held):
            connection.close()

    run(path, test)


def test_where_nothing_can_be_accepted_it_tries_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(accepting, "EXHAUSTED_SECONDS", 0.01)

    class Exhausted:
        """A listener that fails once."""

        def __init__(self, listener: socket.socket) -> None:
            self.listener, self.failed = listener, False

        def accept(self) -> Any:
            if not self.failed:
                self.failed = True
                raise OSError(24, "Too many open files")
            return self.listener.accept()

        def fileno(self) -> int:
            return self.listener.fileno()

        def getsockopt(self, *args: int) -> bytes | int:
            return self.listener.getsockopt(*args)

    async def test(worker: Worker) -> None:
        worker.acceptor._listener = Exhausted(worker.listener)  # type: ignore[assignment]
        client = worker.connect()
        await worker.until(1)
        client.close()

    with caplog.at_level(logging.ERROR):
        run(tmp_path / "connections", test)
    assert "no connection can be accepted: [Errno 24] Too many open files" in caplog.text


def test_once_closed_it_accepts_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "connections"
    monkeypatch.setattr(accepting, "DEFERRED_SECONDS", 0.02)

    async def test(worker: Worker) -> None:
        held = worker.connect()
        await worker.until(1)
        joined(path, 2, PEER, count=0)
        client = worker.connect()
        await asyncio.sleep(0.005)
        worker.acceptor.close()
        await asyncio.sleep(0.05)
        assert len(worker.held) == 1
        held.close()
        client.close()

    run(path, test)


def test_the_end_does_not_wait_for_who_does_not_open_a_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by TLS, in which a client takes part."""
    monkeypatch.setattr(accepting, "OPENING_SECONDS", 0.02)

    async def test(worker: Worker) -> None:
        async def never(*_: object, **__: object) -> None:
            await asyncio.sleep(60)

        worker.acceptor._loop = Mock(wraps=worker.acceptor._loop, connect_accepted_socket=never)
        client = worker.connect()
        while not worker.acceptor._opening:
            await asyncio.sleep(0.001)
        worker.acceptor.close()
        await worker.acceptor.wait_closed()
        await asyncio.sleep(0.01)
        assert not worker.acceptor._opening
        client.close()

    run(tmp_path / "connections", test)
