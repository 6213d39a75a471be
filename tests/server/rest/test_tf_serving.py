"""TensorFlow Serving's REST form, over the same models."""

from collections.abc import Iterator
from typing import Any

import pytest
from numpy.testing import assert_allclose

from server.rest.tf_schemas import ModelStatus, SignatureMetadata, TfPredictResponse
from tests import faulty, tiny
from tests.server.rest.client import Client
from tests.server.rest.served import answer, refusal, serve

X = tiny.rows(2)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    root = tmp_path_factory.mktemp("models")
    tiny.write_ensemble(root, max_batch_size=8)
    tiny.write_ensemble(root, version=2, max_batch_size=8)
    tiny.write_regression(root, targets=tiny.TARGETS)
    tiny.write_table_ensemble(root)
    faulty.write(root)
    with serve(root, "tiny", versions="all", breaker_failures=1, breaker_cooldown=3600) as client:
        yield client


def ask(client: Client, path: str = "/v1/models/tiny:predict", **fields: Any) -> Any:
    body = answer(client.post(path, json=fields or {"instances": X.tolist()}))
    TfPredictResponse.model_validate(body)
    return body


class TestPredict:
    def test_rows(self, client: Client) -> None:
        said = ask(client)
        assert list(said) == ["predictions"]
        assert_allclose(said["predictions"], tiny.answers(X, 3).mean(axis=0), rtol=1e-5)

    def test_tensors(self, client: Client) -> None:
        rows = ask(client)["predictions"]
        assert ask(client, inputs=X.tolist()) == {"outputs": rows}
        assert ask(client, inputs={"X": X.tolist()}, signature_name="serving_default") == {"outputs": rows}

    def test_a_member_and_a_version(self, client: Client) -> None:
        said = ask(client, "/v1/models/tiny.m2/versions/1:predict")
        assert_allclose(said["predictions"], tiny.answers(X, 3)[1], rtol=1e-5)

    def test_a_regression_and_a_table(self, client: Client) -> None:
        said = ask(client, "/v1/models/regression:predict")
        assert_allclose(said["predictions"], tiny.values(X, 3, 2).mean(axis=0), rtol=1e-4)
        said = ask(client, "/v1/models/people:predict", instances=[{"age": [41], "job": "nurse"}])
        assert len(said["predictions"][0]) == 3

    def test_options_stand_in_the_query(self, client: Client) -> None:
        said = ask(client, "/v1/models/tiny:predict?strategy=weighted&weights=m1:1,m2:0,m3:0")
        assert_allclose(said["predictions"], tiny.answers(X, 3)[0], rtol=1e-5)

    @pytest.mark.parametrize(
        ("path", "fields", "status", "said"),
        [
            ("/v1/models/nope:predict", {}, 404, "no model 'nope'; there are: "),
            ("/v1/models/tiny.m9:predict", {}, 404, "no model 'tiny.m9'; members of 'tiny': "),
            ("/v1/models/tiny/versions/9:predict", {}, 404, ""),
            ("/v1/models/tiny/versions/x:predict", {}, 400, "version: expected a number from 1 to 999999999; got 'x'"),
            ("/v1/models/tiny/labels/stable:predict", {}, 404, "versions have no labels here; "),
            ("/v1/models/tiny:predict", {"x": 1}, 400, "body: expected no fields but "),
            ("/v1/models/tiny:predict", {"instances": [[1, 2]]}, 400, "instances[0]: expected 4 numbers; got 2"),
            ("/v1/models/tiny:predict", {"instances": [[0] * 4] * 9}, 413, "instances: expected at most 8 rows; got 9"),
            ("/v1/models/tiny:predict?strategy=x", {}, 400, ""),
            ("/v1/models/tiny:predict?detail=members", {}, 400, "detail: expected none; "),
            ("/v1/models/tiny.m1:predict?strategy=vote", {}, 400, "strategy: expected none: 'tiny.m1' is one member; "),
        ],
    )
    def test_refused(self, client: Client, path: str, fields: dict[str, Any], status: int, said: str) -> None:
        response = client.post(path, json=fields or {"instances": X.tolist()})
        came = refusal(response)
        assert came[0] == status
        assert came[2].startswith(said)

    @pytest.mark.parametrize("verb", ["classify", "regress"])
    def test_there_are_no_other_verbs(self, client: Client, verb: str) -> None:
        assert client.post(f"/v1/models/tiny:{verb}", json={"examples": []}).status_code in (404, 405)


class TestDescriptions:
    def test_status(self, client: Client) -> None:
        said = ModelStatus.model_validate(answer(client.get("/v1/models/tiny")))
        assert [version.version for version in said.model_version_status] == ["2", "1"]
        said = ModelStatus.model_validate(answer(client.get("/v1/models/tiny/versions/1")))
        assert [version.version for version in said.model_version_status] == ["1"]
        assert (said.name, said.ready) == ("tiny", True)

    def test_metadata(self, client: Client) -> None:
        said = SignatureMetadata.model_validate(answer(client.get("/v1/models/people/metadata")))
        assert (said.model_spec.name, said.model_spec.version) == ("people", "1")
        signature = said.metadata["signature_def"]["signature_def"]["serving_default"]
        assert {name: tensor["dtype"] for name, tensor in signature["inputs"].items()} == {
            "age": "DT_FLOAT", "job": "DT_STRING"
        }  # fmt: skip
        [output] = signature["outputs"].values()
        assert [dim["size"] for dim in output["tensor_shape"]["dim"]] == ["-1", "3"]
        same = client.get("/v1/models/people/versions/1/metadata")
        assert same.json() == said.model_dump()

    @pytest.mark.parametrize("rest", ["", "/metadata", "/versions/1", "/versions/1/metadata"])
    def test_of_none(self, client: Client, rest: str) -> None:
        assert refusal(client.get(f"/v1/models/nope{rest}"))[:2] == (404, "not_found")

    def test_a_member_that_is_left_alone(self, client: Client) -> None:
        faulty.blame_members(client.app.state.engine)
        client.post("/v1/models/faulty:predict", json={"instances": [[0, 0, 0, faulty.RAISE]]})
        assert refusal(client.get("/v1/models/faulty.m3"))[:2] == (503, "not_ready")
        assert client.get("/v1/models/faulty").status_code == 200
