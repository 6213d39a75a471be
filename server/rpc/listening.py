"""gRPC's server in one worker: what it serves, its bounds, its start and its graceful stop."""

from collections.abc import Callable
from pathlib import Path

import grpc
from grpc.aio import Server
from grpc_health.v1.health import SERVICE_NAME as HEALTH
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server
from grpc_reflection.v1alpha import reflection

from server.control import Control
from server.engine import Engine
from server.rpc.access import CheckKey
from server.rpc.health import Health
from server.rpc.infer import Inferring
from server.rpc.repository import Controlled, NoControl
from server.rpc.service import SERVICE, Service, can_answer
from server.rpc.unmatched import Unmatched

MAX_CALLS = 1024
"""At once in a worker; beyond, gRPC answers RESOURCE_EXHAUSTED."""
MAX_STREAMS = 128
"""Calls at once over one connection; more wait at the client."""
GRACE_SECONDS = 30
"""How long calls in flight may take to end once the stop has begun."""
OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.so_reuseport", 1),  # all the workers listen at one port, and the kernel spreads connections
    ("grpc.max_concurrent_streams", MAX_STREAMS),
    ("grpc.keepalive_time_ms", 60_000),  # a client that is gone without a word is found out
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),  # what clients may ping
    ("grpc.keepalive_permit_without_calls", 1),
)


class RpcServer:
    """From `start` to `stop`."""

    def __init__(
        self,
        address: str,
        *,
        engine: Callable[[], Engine],
        by: Inferring,
        check_key: CheckKey,
        control: Control | None = None,
        tls: tuple[Path, Path] | None = None,
    ) -> None:
        """`address` is `host:port`; `engine` raises NotReady while it may not be asked.

        `control` is model control, if it may be asked for here; `tls` the files of a certificate and of its key.
        """
        self._address, self._tls, self._bounds = address, tls, by.bounds
        repository = NoControl(engine) if control is None else Controlled(engine, control)
        self._service = Service(engine, by, repository, check_key)
        self._health = Health(SERVICE.full_name, lambda: can_answer(engine))
        self._server: Server | None = None

    async def start(self) -> None:
        """Raises OSError if it cannot listen."""
        bounds = (
            ("grpc.max_receive_message_length", self._bounds.max_body_bytes),
            ("grpc.max_metadata_size", self._bounds.max_header_bytes),
        )
        server = grpc.aio.server(options=(*OPTIONS, *bounds), maximum_concurrent_rpcs=MAX_CALLS)
        server.add_generic_rpc_handlers((self._service.handler(),))
        add_HealthServicer_to_server(self._health, server)
        reflection.enable_server_reflection((SERVICE.full_name, HEALTH, reflection.SERVICE_NAME), server)
        server.add_generic_rpc_handlers((Unmatched(),))
        try:
            if self._tls is None:
                server.add_insecure_port(self._address)
            else:
                server.add_secure_port(self._address, _credentials(*self._tls))
        except RuntimeError as exc:
            raise OSError(f"cannot listen on {self._address}: {exc}") from exc
        await server.start()
        await self._health.start()
        self._server = server

    async def stop(self) -> None:
        """Take no more calls, and wait until those in flight are answered."""
        if self._server is not None:
            await self._health.close()
            await self._server.stop(GRACE_SECONDS)


def _credentials(certificate: Path, key: Path) -> grpc.ServerCredentials:
    return grpc.ssl_server_credentials([(key.read_bytes(), certificate.read_bytes())])
