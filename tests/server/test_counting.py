from pathlib import Path

import numpy as np
import pytest

from server.counting import count_answered, count_prediction
from server.ensemble import Ensemble
from server.plan import Options, make_plan
from server.predicting import Answered, predict
from server.repository import load_version
from tests import tiny
from tests.server.test_telemetry import value


@pytest.fixture(scope="module")
def ensembles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ensemble]:
    """Of names that no other test counts under."""
    root: Path = tmp_path_factory.mktemp("models")
    written = [
        tiny.write_ensemble(root, name="tallied"),
        tiny.write_cascade(root, name="tallied_cascade", cascade=tiny.cascade(threshold=0.7)),
        tiny.write_regression(root, name="tallied_regression"),
    ]
    return {folder.parent.name: load_version(folder) for folder in written}


def sample(metric: str, **labels: str) -> float:
    said = ",".join(f'{name}="{label}"' for name, label in sorted({"version": "1", **labels}.items()))
    return value(f"committee_{metric}_total{{{said}}}")


def test_what_became_of_members_is_counted_for_every_request(ensembles: dict[str, Ensemble]) -> None:
    ensemble = ensembles["tallied"]
    answered = Answered((0, 2), np.zeros((2, 1, 3), dtype=np.float32), {1: "hanging"})
    assert count_answered(ensemble, answered) is answered
    count_answered(ensemble, answered, requests=4)
    for member, outcome in (("m1", "answered"), ("m2", "hanging"), ("m3", "answered")):
        assert sample("member_requests", ensemble="tallied", member=member, outcome=outcome) == 5
    assert sample("member_requests", ensemble="tallied", member="m2", outcome="answered") == 0


def test_a_prediction_counts_its_rows_once_and_its_requests(ensembles: dict[str, Ensemble]) -> None:
    ensemble, x = ensembles["tallied"], tiny.rows(7)
    prediction = predict(ensemble, x, make_plan(ensemble, Options(strategy="vote")))
    count_prediction(prediction, requests=3)
    labels = {"ensemble": "tallied", "strategy": "vote"}
    assert sample("predictions", **labels) == 3
    assert sample("rows", **labels) == 7
    best = tiny.answers(x, 3).argmax(axis=2)
    for member, labelled in zip(("m1", "m2", "m3"), best, strict=True):
        differs = int((labelled != prediction.fused.labels).sum())
        assert sample("member_disagreements", ensemble="tallied", member=member) == differs
    assert sample("degraded_predictions", ensemble="tallied") == 0
    assert sample("abstained_rows", ensemble="tallied") == 0


def test_what_is_missing_and_too_doubtful_is_counted(ensembles: dict[str, Ensemble]) -> None:
    ensemble, x = ensembles["tallied"], tiny.rows(7)
    prediction = predict(ensemble, x, make_plan(ensemble, Options(strategy="max", abstain_below=0.9)))
    prediction.missing = {"m9": "raised"}
    count_prediction(prediction)
    assert sample("degraded_predictions", ensemble="tallied") == 1
    doubtful = int((prediction.fused.probabilities.max(axis=1) < 0.9).sum())
    assert doubtful > 0
    assert sample("abstained_rows", ensemble="tallied") == doubtful


def test_of_a_cascade_rows_are_counted_by_stage_and_members_by_the_rows_they_answered(
    ensembles: dict[str, Ensemble],
) -> None:
    ensemble, x = ensembles["tallied_cascade"], tiny.rows(40)
    prediction = predict(ensemble, x, make_plan(ensemble, Options()))
    assert prediction.stages is not None
    second = prediction.stages == 2
    assert 0 < second.sum() < 40
    count_prediction(prediction)
    for stage, n in ((1, 40 - second.sum()), (2, second.sum())):
        assert sample("cascade_rows", ensemble="tallied_cascade", stage=str(stage)) == n
    best = tiny.answers(x, 3).argmax(axis=2)
    differs = best != prediction.fused.labels
    for member, rows in ((0, slice(None)), (1, second), (2, second)):
        counted = sample("member_disagreements", ensemble="tallied_cascade", member=f"m{member + 1}")
        assert counted == differs[member, rows].sum()


def test_numbers_do_not_disagree(ensembles: dict[str, Ensemble]) -> None:
    ensemble = ensembles["tallied_regression"]
    count_prediction(predict(ensemble, tiny.rows(5), make_plan(ensemble, Options())))
    assert sample("rows", ensemble="tallied_regression", strategy="mean") == 5
    assert sample("member_disagreements", ensemble="tallied_regression", member="m1") == 0
