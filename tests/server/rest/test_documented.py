"""What the routes answer is what they are documented to answer: of every strategy, detail and kind of ensemble."""

from collections.abc import Iterator
from itertools import combinations

import pytest

from server.codec.options import DETAILS
from server.fusion import CASCADE, REGRESSION, STACKING, STRATEGIES
from server.rest.descriptions import EnsembleDescription, EnsembleList
from server.rest.health import Ready
from server.rest.schemas import ErrorBody, PredictResponse, RowEstimate, RowPrediction
from tests import faulty, tiny
from tests.server.rest.client import Client
from tests.server.rest.served import ask, serve, write_faulty_stacked

OFFERED = [*STRATEGIES, CASCADE]
DETAILED = [",".join(some) for n in range(len(DETAILS) + 1) for some in combinations(DETAILS, n)]
BOTH = [(strategy, detail) for strategy in OFFERED for detail in DETAILED
        if not (strategy == STACKING and "contributions" in detail)]  # fmt: skip


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    root = tmp_path_factory.mktemp("models")
    write_faulty_stacked(root)
    tiny.write_ensemble(root)
    tiny.write_regression(root, targets=tiny.TARGETS)
    with serve(root, "everything") as client:
        yield client


def offered(client: Client, name: str) -> list[str]:
    return list(client.get(f"/v1/ensembles/{name}").json()["strategies"])


def documented(client: Client, query: str, *, of: str = "everything", fault: float | None = None) -> PredictResponse:
    """The answer to three rows, as the documented model reads it."""
    response = ask(client, faulty.rows(3, fault), query, of=of, id="i")
    answer = PredictResponse.model_validate_json(response.content, strict=True)
    assert (answer.model, answer.version, answer.id, len(answer.predictions)) == (of, 1, "i", 3)
    assert sum(answer.members.values()) == pytest.approx(1, abs=1e-6)
    return answer


def query(strategy: str, detail: str) -> str:
    return f"strategy={strategy}" + (f"&detail={detail}" if detail else "")


def check_details(row: RowPrediction | RowEstimate, detail: str) -> None:
    asked = detail.split(",")
    assert (row.members is not None) == ("members" in asked)
    assert (row.uncertainty is not None) == ("uncertainty" in asked)
    assert (row.contributions is not None) == ("contributions" in asked)


def test_the_strategies_here_are_all_that_are_offered(client: Client) -> None:
    assert offered(client, "everything") == OFFERED
    assert offered(client, "tiny") == [name for name in STRATEGIES if name != STACKING]
    assert offered(client, "regression") == list(REGRESSION)


@pytest.mark.parametrize(("strategy", "detail"), BOTH)
def test_of_a_classification(client: Client, strategy: str, detail: str) -> None:
    answer = documented(client, query(strategy, detail))
    assert (answer.strategy, answer.classes) == (strategy, tiny.CLASSES)
    assert (answer.degraded, answer.missing) == (False, [])
    assert not {"targets", "reasons"} & answer.model_fields_set
    for row in answer.predictions:
        assert isinstance(row, RowPrediction)
        check_details(row, detail)
        assert (row.stage is not None) == (strategy == CASCADE)
        assert sum(row.probabilities) == pytest.approx(1, abs=1e-6)
        assert row.label == tiny.CLASSES[row.probabilities.index(row.confidence)]


@pytest.mark.parametrize("detail", DETAILED)
def test_of_an_ensemble_without_a_final_estimator_and_stages(client: Client, detail: str) -> None:
    for strategy in offered(client, "tiny"):
        answer = documented(client, query(strategy, detail), of="tiny")
        assert answer.strategy == strategy
        for row in answer.predictions:
            check_details(row, detail)


@pytest.mark.parametrize("detail", DETAILED)
@pytest.mark.parametrize("strategy", REGRESSION)
def test_of_a_regression(client: Client, strategy: str, detail: str) -> None:
    answer = documented(client, query(strategy, detail), of="regression")
    assert (answer.strategy, answer.targets) == (strategy, tiny.TARGETS)
    assert not {"classes", "reasons"} & answer.model_fields_set
    for row in answer.predictions:
        assert isinstance(row, RowEstimate)
        check_details(row, detail)
        assert len(row.values) == 2


@pytest.mark.parametrize(("strategy", "detail"), BOTH)
def test_of_an_answer_that_a_member_is_missing_from(client: Client, strategy: str, detail: str) -> None:
    answer = documented(client, query(strategy, detail), fault=faulty.NAN)
    assert (answer.degraded, answer.missing, answer.reasons) == (True, ["m3"], {"m3": "invalid"})
    assert set(answer.members) == {"m1", "m2"}
    for row in answer.predictions:
        check_details(row, detail)


def test_of_an_answer_that_is_left_open(client: Client) -> None:
    for strategy in OFFERED:
        answer = documented(client, f"strategy={strategy}&abstain_below=1")
        labels = [row.label for row in answer.predictions if isinstance(row, RowPrediction)]
        sure = [row.confidence >= 1 for row in answer.predictions if isinstance(row, RowPrediction)]
        assert [label is not None for label in labels] == sure


def test_what_is_said_of_ensembles_and_of_errors(client: Client) -> None:
    EnsembleList.model_validate_json(client.get("/v1/ensembles").content, strict=True)
    for name in ("everything", "tiny", "regression"):
        EnsembleDescription.model_validate_json(client.get(f"/v1/ensembles/{name}").content, strict=True)
    Ready.model_validate_json(client.get("/v2/health/ready").content, strict=True)
    failed = ask(client, faulty.rows(1, faulty.NAN), "on_failure=fail")
    for response in (client.get("/nope"), client.get("/v1/ensembles/nope"), client.post("/predict"), failed):
        ErrorBody.model_validate_json(response.content, strict=True)
