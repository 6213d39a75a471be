import socket
import sys

import pytest

from server import ports
from server.settings import Settings


def test_listens_on_ipv6() -> None:
    [listener] = ports.listen(Settings(host="::1", port=0))
    with listener:
        assert listener.getsockname()[0] == "::1"


def test_a_port_in_use_is_said() -> None:
    [listener] = ports.listen(Settings(port=0))
    with listener:
        port = listener.getsockname()[1]
        with pytest.raises(OSError, match=rf"^cannot listen on 127\.0\.0\.1:{port}: Address already in use$"):
            ports.listen(Settings(port=port))


def test_the_port_of_grpc_is_held_for_the_workers() -> None:
    assert ports.reserve(Settings(grpc_port=None)) is None
    held = ports.reserve(Settings(grpc_port=0))
    assert held is not None
    with held, pytest.raises(OSError, match=r"\(for gRPC: --grpc-port names another, or off\)$"):
        ports.reserve(Settings(grpc_port=held.getsockname()[1]))


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone has such filters")
def test_once_it_is_shut_who_has_connected_is_there_and_nobody_else_comes() -> None:
    [listener] = ports.listen(Settings(port=0))
    with listener, socket.create_connection(listener.getsockname()) as first:
        ports.shut(listener)
        accepted, _ = listener.accept()
        with accepted:
            first.sendall(b"x")
            assert accepted.recv(1) == b"x"
            accepted.sendall(b"y")
            assert first.recv(1) == b"y"
        with pytest.raises(TimeoutError):
            socket.create_connection(listener.getsockname(), timeout=0.2)
