"""What is said of options that are wrong, of this ensemble or of any."""

from collections.abc import Iterator
from typing import Any

import pytest

from server.codec.media import NPY
from server.fusion import STACKING, STRATEGIES
from tests import tiny
from tests.server.rest.client import Client
from tests.server.rest.served import ask, refusal, serve, write_faulty_stacked
from tests.server.rest.test_options import npy

ROWS = tiny.rows(2)
POOLS = ", ".join(name for name in STRATEGIES if name != STACKING)
OPTIONS = "strategy, weights, members, detail, cascade_threshold, deadline_ms, quorum, on_failure, abstain_below"
MILLISECONDS = "expected milliseconds, above 0 and at most 3600000"
WHOLE = "expected a whole number from 1 to 256"
SHARE = "expected a number from 0 to 1"
DETAIL = "expected some of members, uncertainty, contributions"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    root = tmp_path_factory.mktemp("models")
    write_faulty_stacked(root)
    tiny.write_ensemble(root)
    with serve(root, "everything") as client:
        yield client


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("timeout", "1", f"expected no parameters but {OPTIONS}; got the string 'timeout'"),
        ("on-failure", "fail", f"expected no parameters but {OPTIONS}; got the string 'on-failure'"),
        ("strategy", "", "strategy: expected a value; got none"),
        ("quorum", "", "quorum: expected a value; got none"),
        ("detail", "members,", f"detail: {DETAIL}; got the string ''"),
        ("detail", "Contributions", f"detail: {DETAIL}; got the string 'Contributions'"),
        ("detail", "contributions,contributions", "detail: expected each detail once; got one twice"),
        ("cascade_threshold", "1.1", f"cascade_threshold: {SHARE}; got the string '1.1'"),
        ("cascade_threshold", "-0.1", f"cascade_threshold: {SHARE}; got the string '-0.1'"),
        ("abstain_below", "50%", f"abstain_below: {SHARE}; got the string '50%'"),
        ("abstain_below", ".5", f"abstain_below: {SHARE}; got the string '.5'"),
        ("abstain_below", "nan", f"abstain_below: {SHARE}; got the string 'nan'"),
        ("deadline_ms", "0", f"deadline_ms: {MILLISECONDS}; got the string '0'"),
        ("deadline_ms", "-5", f"deadline_ms: {MILLISECONDS}; got the string '-5'"),
        ("deadline_ms", "3600001", f"deadline_ms: {MILLISECONDS}; got the string '3600001'"),
        ("deadline_ms", "inf", f"deadline_ms: {MILLISECONDS}; got the string 'inf'"),
        ("deadline_ms", "1s", f"deadline_ms: {MILLISECONDS}; got the string '1s'"),
        ("quorum", "0", f"quorum: {WHOLE}; got the string '0'"),
        ("quorum", "257", f"quorum: {WHOLE}; got the string '257'"),
        ("quorum", "1.0", f"quorum: {WHOLE}; got the string '1.0'"),
        ("quorum", "02", f"quorum: {WHOLE}; got the string '02'"),
        ("quorum", "²", f"quorum: {WHOLE}; got the string '²'"),
        ("on_failure", "ignore", "on_failure: expected fail or degrade; got the string 'ignore'"),
        ("on_failure", "Fail", "on_failure: expected fail or degrade; got the string 'Fail'"),
    ],
)
def test_text_that_is_no_option(client: Client, name: str, text: str, said: str) -> None:
    """Whether it stands in the query or in a form."""
    response = client.post("/predict", params={name: text}, json={"instances": ROWS.tolist()})
    assert refusal(response) == (400, "invalid_input", f"query: {said}")
    response = client.post("/predict", files={"f": ("rows.npy", npy(ROWS), NPY)}, data={name: text})
    assert refusal(response) == (400, "invalid_input", f"form: {said}")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("timeout", 1, f"body: expected no fields but instances, id, {OPTIONS}; got the string 'timeout'"),
        ("detail", ["contribution"], f"detail: {DETAIL}; got the string 'contribution'"),
        ("cascade_threshold", 1.5, f"cascade_threshold: {SHARE}; got 1.5"),
        ("cascade_threshold", "0.5", f"cascade_threshold: {SHARE}; got the string '0.5'"),
        ("abstain_below", -1, f"abstain_below: {SHARE}; got -1"),
        ("abstain_below", None, f"abstain_below: {SHARE}; got null"),
        ("abstain_below", True, f"abstain_below: {SHARE}; got true"),
        ("deadline_ms", 0, f"deadline_ms: {MILLISECONDS}; got 0"),
        ("deadline_ms", 10**400, f"deadline_ms: {MILLISECONDS}; got an integer of 1329 bits"),
        ("deadline_ms", "50", f"deadline_ms: {MILLISECONDS}; got the string '50'"),
        ("quorum", 0, f"quorum: {WHOLE}; got 0"),
        ("quorum", 2.0, f"quorum: {WHOLE}; got 2.0"),
        ("quorum", True, f"quorum: {WHOLE}; got true"),
        ("quorum", [2], f"quorum: {WHOLE}; got an array of 1"),
        ("on_failure", "raise", "on_failure: expected fail or degrade; got the string 'raise'"),
        ("on_failure", None, "on_failure: expected fail or degrade; got null"),
        ("on_failure", {}, "on_failure: expected fail or degrade; got an object of 0 fields"),
    ],
)
def test_a_field_that_is_no_option(client: Client, name: str, value: Any, said: str) -> None:
    assert refusal(ask(client, ROWS, **{name: value})) == (400, "invalid_input", said)


@pytest.mark.parametrize(
    ("of", "query", "said"),
    [
        ("everything", "members=m1,-m2",
         "members: expected names of those that are to run, or each after a -, of those that are not"),
        ("everything", "members=-m4", "members: expected some of m1, m2, m3; got 'm4'"),
        ("everything", "members=--m1", "members: expected some of m1, m2, m3; got '-m1'"),
        ("everything", "members=-", "members: expected some of m1, m2, m3; got ''"),
        ("everything", "members=-m1,-m1", "members: expected each member once; got one twice"),
        ("everything", "members=-m1,-m2,-m3",
         "members: expected at least one of m1, m2, m3 to be left; got all of them after a -"),
        ("everything", "cascade_threshold=0.9",
         "cascade_threshold: expected none with strategy 'average'; it is for 'cascade'"),
        ("everything", "strategy=stacking&members=-m2",
         "members: expected all with strategy 'stacking', whose final estimator reads every one; got some"),
        ("everything", "strategy=stacking&detail=contributions",
         "detail: expected no contributions with strategy 'stacking': its final estimator can leave none out"),
        ("everything", "strategy=stacking&weights=m1:1,m2:1,m3:1",
         "weights: strategy 'stacking' takes none; those that do: weighted, vote, log_linear"),
        ("everything", "strategy=cascade&weights=m1:1,m2:1,m3:1",
         "weights: strategy 'cascade' takes none; those that do: weighted, vote, log_linear"),
        ("everything", "strategy=mean",
         f"strategy: expected one of {POOLS}, stacking, cascade; got 'mean', "
         "which is none of a classification"),
        ("tiny", "strategy=stacking",
         f"strategy: expected one of {POOLS}; got 'stacking', for which this "
         "ensemble has no final_estimator"),
        ("tiny", "strategy=cascade",
         f"strategy: expected one of {POOLS}; got 'cascade', for which this "
         "ensemble has no stages"),
        ("tiny", "strategy=nope",
         f"strategy: expected one of {POOLS}; got 'nope'"),
    ],
)  # fmt: skip
def test_what_this_ensemble_does_not_have(client: Client, of: str, query: str, said: str) -> None:
    assert refusal(ask(client, ROWS, query, of=of)) == (400, "invalid_input", said)


@pytest.mark.parametrize("accept", ["application/x-npy", "application/octet-stream"])
@pytest.mark.parametrize("query", ["detail=members", "detail=uncertainty,contributions", "abstain_below=0.5",
                                   "abstain_below=0"])  # fmt: skip
def test_arrays_hold_no_details_and_no_labels(client: Client, query: str, accept: str) -> None:
    body = {"instances": ROWS.tolist()}
    name, _, value = query.partition("=")
    expected = f"{name}: expected none with Accept: {accept}, which holds the probabilities; got some"
    said = refusal(client.post(f"/predict?{query}", json=body, headers={"Accept": accept}))
    assert said == (400, "invalid_input", expected)
    body[name] = value.split(",") if name == "detail" else float(value)
    said = refusal(client.post("/predict", json=body, headers={"Accept": accept}))
    assert said == (400, "invalid_input", expected)
