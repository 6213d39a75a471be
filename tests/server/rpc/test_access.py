"""Keys, model control, TLS and limits: what the settings say of HTTP counts here too."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from server.keys import make_key
from tests import tiny
from tests.server.processes import until
from tests.server.rpc.served import RpcServed, infer, serving
from tests.server.test_workers import write_certificate

ROWS = tiny.rows(2)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return {name: make_key(name, [name]) for name in ("predict", "admin")}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, keys: dict[str, Any]) -> Iterator[RpcServed]:
    """Two workers, under control."""
    folder = tmp_path_factory.mktemp("guarded")
    tiny.write_ensemble(folder / "models")
    (folder / "keys").write_text("\n".join(line for _, line in keys.values()))
    said = ("--keys-file", str(folder / "keys"), "--model-control", "explicit", "--max-rows", "3")
    with serving(folder, "--workers", "2", *said) as served:
        tiny.write_ensemble(folder / "models", name="other")
        yield served


@pytest.fixture(scope="module")
def client(server: RpcServed) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.address) as made:
        yield made


@pytest.fixture
def predict(keys: dict[str, Any]) -> dict[str, str]:
    return {"x-api-key": keys["predict"][0]}


@pytest.fixture
def admin(keys: dict[str, Any]) -> dict[str, str]:
    return {"authorization": f"Bearer {keys['admin'][0]}"}


def test_whether_it_lives_may_be_asked_without_a_key(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()


def test_a_prediction_wants_a_key(client: triton.InferenceServerClient, predict: Any, admin: Any) -> None:
    assert infer(client, ROWS, headers=predict).as_numpy("probabilities").shape == (2, 3)
    for headers, status in ((None, "UNAUTHENTICATED"), ({"x-api-key": "wrong"}, "UNAUTHENTICATED")):
        with pytest.raises(InferenceServerException) as caught:
            infer(client, ROWS, headers=headers)
        assert caught.value.status() == f"StatusCode.{status}"
    with pytest.raises(InferenceServerException) as caught:
        infer(client, ROWS, headers=admin)
    assert caught.value.status() == "StatusCode.PERMISSION_DENIED"
    with pytest.raises(InferenceServerException, match="expected a key"):
        client.get_model_metadata("tiny")


def test_rows_beyond_the_setting(client: triton.InferenceServerClient, predict: Any) -> None:
    with pytest.raises(InferenceServerException, match="expected at most 3 rows; got 4"):
        infer(client, tiny.rows(4), headers=predict)


def test_a_load_and_an_unload(
    client: triton.InferenceServerClient, server: RpcServed, predict: Any, admin: Any
) -> None:
    def states() -> set[tuple[str, str, str]]:
        return {(e.name, e.version, e.state) for e in client.get_model_repository_index(headers=admin).models}

    assert ("tiny", "1", "READY") in states()
    assert not client.is_model_ready("other", headers=predict)
    client.load_model("other", headers=admin)
    assert ("other", "1", "READY") in states()
    assert infer(client, ROWS, of="other", headers=predict).get_response().model_name == "other"
    client.unload_model("other", headers=admin)
    assert ("other", "1", "READY") not in states()
    with pytest.raises(InferenceServerException) as caught:
        client.load_model("nobody", headers=admin)
    assert caught.value.status() == "StatusCode.NOT_FOUND"
    with pytest.raises(InferenceServerException, match="parameters: expected none but versions, of str; got 'config'"):
        client.load_model("other", config="{}", headers=admin)
    with pytest.raises(InferenceServerException, match="PERMISSION_DENIED"):
        client.unload_model("tiny", headers=predict)
    assert {entry["key"] for entry in server.http.said("^a call about the repository")} == {"admin"}


def test_versions_of_a_load(server: RpcServed, admin: dict[str, str]) -> None:
    from tritonclient.grpc import service_pb2

    request = service_pb2.RepositoryModelLoadRequest(model_name="tiny")
    with grpc.insecure_channel(server.address) as channel:
        load = channel.unary_unary("/inference.GRPCInferenceService/RepositoryModelLoad")
        request.parameters["versions"].string_param = "first"
        with pytest.raises(grpc.RpcError) as caught:
            load(request.SerializeToString(), metadata=list(admin.items()))
        assert caught.value.details().startswith("parameters: versions: expected latest, all, or numbers")
        request.parameters["versions"].string_param = "1"
        assert load(request.SerializeToString(), metadata=list(admin.items())) == b""


def test_nothing_changes_by_asking_where_the_repository_is_polled(tmp_path: Path, keys: dict[str, Any]) -> None:
    tiny.write_ensemble(tmp_path / "models")
    (tmp_path / "keys").write_text(keys["admin"][1])
    said = ("--keys-file", str(tmp_path / "keys"), "--model-control", "poll", "--workers", "1")
    with (
        serving(tmp_path, *said) as server,
        triton.InferenceServerClient(server.address) as client,
        pytest.raises(InferenceServerException, match="model control is poll"),
    ):
        client.load_model("tiny", headers={"x-api-key": keys["admin"][0]})


def test_tls(tmp_path: Path) -> None:
    tiny.write_ensemble(tmp_path / "models")
    certificate, key = write_certificate(tmp_path)
    with serving(tmp_path, "--workers", "1", "--tls-cert", certificate, "--tls-key", key) as server:
        options: list[tuple[str, Any]] = [("grpc.ssl_target_name_override", "localhost")]
        with triton.InferenceServerClient(
            server.address, ssl=True, root_certificates=certificate, channel_args=options
        ) as client:
            until(client.is_server_live)
            assert infer(client, ROWS).as_numpy("probabilities").shape == (2, 3)
        with triton.InferenceServerClient(server.address) as plain, pytest.raises(InferenceServerException):
            plain.is_server_live()
