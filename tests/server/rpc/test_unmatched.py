import grpc
import pytest
import tritonclient.grpc as triton

from tests.server.processes import until
from tests.server.rpc.served import SECONDS, SERVICE, RpcServed

UNMATCHED = 'committee_grpc_requests_total{method="unmatched",status="UNIMPLEMENTED"}'


@pytest.mark.parametrize("kind", ["unary_unary", "stream_stream"])
@pytest.mark.parametrize("path", [f"/{SERVICE}/Nope", "/no.Service/ModelInfer"])
def test_a_method_that_there_is_not(server: RpcServed, channel: grpc.Channel, kind: str, path: str) -> None:
    """It is counted, and has a request id, as if there were one."""
    before = server.http.metrics().get(UNMATCHED, 0)
    said = b"" if kind == "unary_unary" else iter([b""])
    with pytest.raises(grpc.RpcError) as caught:
        list(getattr(channel, kind)(path)(said, timeout=SECONDS, metadata=(("x-request-id", "lost"),)))
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
    assert caught.value.details() == f"expected a method that this server has, as reflection tells; got '{path}'"
    assert ("x-request-id", "lost") in caught.value.trailing_metadata()
    until(lambda: server.http.metrics().get(UNMATCHED, 0) == before + 1)


def test_tritons_stream(client: triton.InferenceServerClient, server: RpcServed) -> None:
    """It is not served, and whoever begins one is told."""
    told: list[object] = []
    client.start_stream(lambda result, error: told.append(error))
    until(lambda: told)
    client.stop_stream()
    assert "ModelStreamInfer" in str(told[0])
