"""The sockets that the workers share, opened before there are any, so that a port in use stops the start."""

import ctypes
import socket
import ssl
import struct
import sys
from contextlib import suppress

from server.settings import Settings

SHUT_SECONDS = 0.1
"""How long clients that have begun to connect may take to end that, once the door is shut."""
_SO_ATTACH_FILTER = 26
_NO_SYN = b"".join(
    struct.pack("=HBBI", *line)
    for line in (
        (0x30, 0, 0, 13),  # the flags of a segment
        (0x54, 0, 0, 0x12),  # of them SYN and ACK
        (0x15, 0, 1, 0x02),  # SYN alone?
        (0x06, 0, 0, 0),  # is dropped;
        (0x06, 0, 0, 0xFFFFFFFF),  # all else is taken
    )
)
"""A program for the kernel's packet filter: nobody begins a connection."""


def check_tls(settings: Settings) -> None:
    """Raises OSError, with a message for people."""
    if settings.tls_cert is None:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(settings.tls_cert, settings.tls_key, lambda: "")
    except OSError as exc:  # ssl.SSLError is one
        said = exc.strerror or str(exc)
        raise OSError(f"cannot serve TLS by {settings.tls_cert} and {settings.tls_key}: {said}") from exc


def listen(settings: Settings) -> list[socket.socket]:
    """At the port, and at the admin's if it has one. Raises OSError, with a message for people."""
    ports = [settings.port] if settings.admin_port is None else [settings.port, settings.admin_port]
    return [_listen_at(settings.host, port) for port in ports]


def _listen_at(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as exc:
        reason = str(exc.strerror).partition(" (while")[0]
        raise OSError(f"cannot listen on {host}:{port}: {reason}") from exc


def reserve(settings: Settings) -> socket.socket | None:
    """The port of gRPC, which the workers share, held for them; None: there is none.

    Nothing waits at this socket: each worker listens at one of its own. Raises OSError, with a message for people.
    """
    if settings.grpc_port is None:
        return None
    try:
        probe = _listen_at(settings.host, settings.grpc_port)  # alone, for whoever shares its port could share ours
    except OSError as exc:
        raise OSError(f"{exc} (for gRPC: --grpc-port names another, or off)") from exc
    with probe:
        address = probe.getsockname()
    reserved = socket.socket(probe.family)
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    reserved.bind(address)
    return reserved


def shut(listener: socket.socket) -> None:
    """Let nobody begin a connection any more; those that have begun are made, and wait to be accepted.

    A listener that is closed resets those that wait. Where there is no such filter (it is Linux's), nothing happens.
    """
    if sys.platform != "linux":
        return
    program = ctypes.create_string_buffer(_NO_SYN)
    with suppress(OSError):
        listener.setsockopt(
            socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", len(_NO_SYN) // 8, ctypes.addressof(program))
        )
