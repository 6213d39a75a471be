from collections.abc import Iterator

import grpc
import pytest
import tritonclient.grpc as triton

from tests import faulty, tiny
from tests.server.rpc.served import RpcServed, serving


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RpcServed]:
    """A process that serves an ensemble of each kind, with one worker."""
    folder = tmp_path_factory.mktemp("rpc")
    for write in (tiny.write_ensemble, tiny.write_regression, tiny.write_table_ensemble, tiny.write_picture_ensemble):
        write(folder / "models")
    tiny.write_ensemble(folder / "models", version=2)
    for name in ("faulty", "cancelled"):
        faulty.write(folder / "models", name=name)
    with serving(folder, "--versions", "all", "--workers", "1", "--breaker-failures", "0") as served:
        yield served


@pytest.fixture(scope="module")
def client(server: RpcServed) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.address) as made:
        yield made


@pytest.fixture(scope="module")
def channel(server: RpcServed) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.address, options=[("grpc.max_send_message_length", -1)]) as made:
        yield made
