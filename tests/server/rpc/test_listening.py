"""The standard services, the port, and the stop."""

import re
import signal
import socket
import threading
from pathlib import Path
from typing import Any

import grpc
import pytest
import tritonclient.grpc as triton
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2 import HealthCheckResponse
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from tests import faulty, tiny
from tests.server.processes import children, running, until
from tests.server.rpc.served import SECONDS, SERVICE, RpcServed, serving, tensor
from tests.server.test_workers import failed_start, seconds_of_processor


def check(channel: grpc.Channel, service: str = "") -> Any:
    method = channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=HealthCheckResponse.FromString,
    )
    return method(health_pb2.HealthCheckRequest(service=service), timeout=SECONDS).status


def watch(channel: grpc.Channel) -> Any:
    method = channel.unary_stream(
        "/grpc.health.v1.Health/Watch",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=HealthCheckResponse.FromString,
    )
    return method(health_pb2.HealthCheckRequest(), timeout=SECONDS)


def test_health(channel: grpc.Channel) -> None:
    assert check(channel) == check(channel, SERVICE) == HealthCheckResponse.SERVING
    with pytest.raises(grpc.RpcError) as caught:
        check(channel, "nobody")
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


def test_reflection(channel: grpc.Channel) -> None:
    described = ProtoReflectionDescriptorDatabase(channel)
    assert SERVICE in described.get_services()
    file = described.FindFileContainingSymbol(SERVICE)
    assert "ModelInfer" in [method.name for method in file.service[0].method]


def test_too_few_members_are_left(tmp_path: Path) -> None:
    """Two of three circuits have opened: it is not ready, and those who watch are told; also when it is again."""
    faulty.write(tmp_path / "models", quorum=3)
    options = ("--default", "faulty", "--workers", "1", "--breaker-failures", "1", "--breaker-cooldown", "3")
    with serving(tmp_path, *options) as server, grpc.insecure_channel(server.address) as channel:
        statuses = watch(channel)
        assert next(statuses).status == HealthCheckResponse.SERVING
        with triton.InferenceServerClient(server.address) as client:
            with pytest.raises(triton.InferenceServerException):
                client.infer("faulty", [tensor("X", faulty.rows(1, faulty.HANG))])
            assert next(statuses).status == HealthCheckResponse.NOT_SERVING
            assert next(statuses).status == HealthCheckResponse.SERVING
        server.http.process.send_signal(signal.SIGTERM)
        assert next(statuses).status == HealthCheckResponse.NOT_SERVING
        statuses.cancel()
        assert server.http.process.wait(SECONDS) == 0


def test_a_stop_waits_for_calls_in_flight(tmp_path: Path) -> None:
    faulty.write(tmp_path / "models")
    with serving(tmp_path, "--default", "faulty", "--workers", "2") as server:
        told: list[Any] = []
        ended = threading.Event()

        def tell(result: Any, error: Any) -> None:
            told.extend([result, error])
            ended.set()

        def burnt() -> float:
            return sum(map(seconds_of_processor, children(server.http)))

        with triton.InferenceServerClient(server.address) as client:
            before = burnt()
            client.async_infer(
                "faulty", [tensor("X", faulty.rows(1, faulty.HANG))], tell, parameters={"deadline_ms": 2000}
            )
            until(lambda: burnt() > before + 0.05)
            server.http.process.send_signal(signal.SIGTERM)
            assert ended.wait(SECONDS)
        result, error = told
        assert error is None
        assert result.get_response().parameters["missing"].string_param.startswith("m3:")
        assert server.http.process.wait(SECONDS) == 0
        assert not [entry for entry in server.http.entries() if entry["level"] in ("error", "critical")]


def test_all_workers_share_the_port(tmp_path: Path) -> None:
    tiny.write_ensemble(tmp_path / "models")
    with serving(tmp_path, "--workers", "2") as server:
        seen: set[int] = set()

        def ask() -> bool:
            """Each channel is a connection, which the kernel gives to one of the workers."""
            before = {pid: sockets_of(pid) for pid in children(server.http)}
            options = [("grpc.use_local_subchannel_pool", 1)]
            with grpc.insecure_channel(server.address, options=options) as channel:
                assert check(channel) == HealthCheckResponse.SERVING
                seen.update(pid for pid, count in before.items() if sockets_of(pid) > count)
            return len(seen) == 2

        until(ask)


def sockets_of(pid: int) -> int:
    """How many sockets a process has open."""
    return sum(1 for link in Path(f"/proc/{pid}/fd").iterdir() if "socket" in str(link.readlink()))


class TestThePort:
    def test_in_use(self, tmp_path: Path) -> None:
        """Also by one that would share it."""
        tiny.write_ensemble(tmp_path / "models")
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            other.bind(("127.0.0.1", 0))
            other.listen()
            port = other.getsockname()[1]
            code, log = failed_start(tmp_path, "--port", "0", "--grpc-port", str(port))
        assert code == 1
        assert log.count("\n") == 1
        assert f"cannot listen on 127.0.0.1:{port}: Address already in use (for gRPC: --grpc-port names" in log

    def test_off(self, tmp_path: Path) -> None:
        """Nothing of gRPC is loaded then."""
        tiny.write_ensemble(tmp_path / "models")
        with running(tmp_path, "--grpc-port", "off", "--workers", "1") as server:
            assert not server.said("gRPC")
            [worker] = children(server)
            assert not re.search("grpc", Path(f"/proc/{worker}/maps").read_text())

    def test_the_supervisor_loads_nothing_of_it(self, server: RpcServed) -> None:
        """What it would leave to its forks does not survive."""
        [worker] = children(server.http)
        assert "grpc" in Path(f"/proc/{worker}/maps").read_text()
        assert "grpc" not in Path(f"/proc/{server.http.process.pid}/maps").read_text()

    def test_by_ipv6(self, tmp_path: Path) -> None:
        tiny.write_ensemble(tmp_path / "models")
        with serving(tmp_path, "--host", "::1", "--workers", "1") as served:
            assert re.fullmatch(r"\[::1\]:\d+", served.address)
            with grpc.insecure_channel(served.address) as channel:
                assert check(channel) == HealthCheckResponse.SERVING
