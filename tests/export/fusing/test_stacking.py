import warnings

import numpy as np
import orjson
import pytest
from numpy.typing import NDArray
from sklearn.ensemble import StackingClassifier

from export.errors import ParityError
from export.evaluate import evaluate
from export.fusing import stacking
from export.fusing.baselines import _Stored
from export.fusing.stacking import STACKED, STRENGTHS, fit_stacking, obstacle, side_by_side
from server.fusion import by_highest, fuse
from server.manifest import ANSWERS_INPUT
from server.session import Session

Answers = NDArray[np.float32]
Labels = NDArray[np.int64]


def _world(n: int, sharpness: list[float], *, n_classes: int = 4, seed: int = 0) -> tuple[Answers, Labels]:
    """Members that see the truth through noise of their own: `(n_members, n, n_classes)`, `(n,)`."""
    generator = np.random.default_rng(seed)
    y = generator.integers(0, n_classes, n)
    truth = np.eye(n_classes)[y]
    logits = np.stack([sharp * truth + generator.normal(0, 1, truth.shape) for sharp in sharpness])
    exponentials = np.exp(logits)
    return (exponentials / exponentials.sum(axis=2, keepdims=True)).astype(np.float32), y


def _log_loss(probabilities: Answers, y: Labels) -> float:
    return evaluate({"it": by_highest(probabilities)}, y).scores("it")["log_loss"].value


def _apply(found: stacking.Stacking, answers: Answers) -> Answers:
    (stacked,) = Session(found.model.SerializeToString(), where="it").run([STACKED], {ANSWERS_INPUT: answers})
    return stacked


@pytest.mark.parametrize("n_classes", [2, 3, 5])
def test_the_graph_answers_what_scikit_learn_does_and_distributions_at_that(n_classes: int) -> None:
    answers, y = _world(600, [2.0, 1.0], n_classes=n_classes)
    found = fit_stacking(answers[:, :300], y[:300])
    fitted = stacking.final_estimator(found.strength).fit(side_by_side(answers[:, :300]), y[:300])
    stacked = _apply(found, answers)
    np.testing.assert_allclose(stacked, fitted.predict_proba(side_by_side(answers)), atol=1e-5)
    np.testing.assert_allclose(stacked.sum(axis=1), 1, atol=1e-6)
    assert stacked.dtype == np.float32
    assert _apply(found, answers[:, :0]).shape == (0, n_classes)


def test_it_is_scikit_learns_stacking_over_members_that_are_trained_already() -> None:
    answers, y = _world(500, [2.0, 1.5, 0.2])
    found = fit_stacking(answers[:, :300], y[:300])
    x = side_by_side(answers)
    members = [(f"m{k}", _Stored(k, 4).fit(x, y)) for k in range(3)]
    theirs = StackingClassifier(members, stacking.final_estimator(found.strength), cv="prefit").fit(x[:300], y[:300])
    np.testing.assert_allclose(_apply(found, answers[:, 300:]), theirs.predict_proba(x[300:]), atol=1e-5)


def test_it_learns_whom_to_trust_and_undoes_an_order_of_classes() -> None:
    answers, y = _world(1200, [2.5, 0.1])
    answers[0] = answers[0][:, ::-1]
    found = fit_stacking(answers[:, :600], y[:600])
    unseen, truth = answers[:, 600:], y[600:]
    scored = evaluate({"ours": by_highest(_apply(found, unseen)), "average": fuse("average", unseen)}, truth)
    assert scored.difference("ours", "average", "log_loss").high < 0
    assert scored.scores("ours")["accuracy"].value > 0.8


@pytest.mark.parametrize("seed", range(3))
def test_what_it_predicts_out_of_its_folds_owes_nothing_to_those_rows(seed: int) -> None:
    """It fits the rows that it learned from better; and labels drawn by lot it cannot foretell."""
    answers, y = _world(2000, [1.5, 1.0], seed=seed)
    found = fit_stacking(answers, y)
    assert found.out_of_fold.shape == (2000, 4)
    assert _log_loss(found.out_of_fold, y) == pytest.approx(found.losses[found.strength], rel=1e-4)
    assert _log_loss(_apply(found, answers), y) < _log_loss(found.out_of_fold, y) - 0.005
    lots = np.random.default_rng(100 + seed).integers(0, 4, 2000)
    assert _log_loss(fit_stacking(answers, lots).out_of_fold, lots) > np.log(4) - 0.01


def test_members_that_know_little_are_held_back_more() -> None:
    """The strength is the one of least loss out of the folds."""
    little, much = (fit_stacking(*_world(60, sharpness)) for sharpness in ([0.5, 0.3], [2.0, 1.0]))
    for found in (little, much):
        assert set(found.losses) == set(STRENGTHS)
        assert found.losses[found.strength] == min(found.losses.values())
    assert little.strength < much.strength


@pytest.mark.parametrize("sharpness", [[30.0], [0.0, 0.0], [30.0, 30.0]])
def test_it_converges_without_a_warning_though_members_answer_zeros_and_ones(sharpness: list[float]) -> None:
    answers, y = _world(300, sharpness, n_classes=3)
    answers[0] = np.eye(3, dtype=np.float32)[answers[0].argmax(axis=1)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = fit_stacking(answers, y)
    assert np.isfinite(_apply(found, answers)).all()


def test_a_member_that_always_says_the_same_does_no_harm() -> None:
    answers, y = _world(300, [2.0, 1.0])
    answers[1] = 0.25
    assert (_apply(fit_stacking(answers, y), answers).argmax(axis=1) == y).mean() > 0.7


def test_a_class_without_two_rows_is_told_and_two_rows_are_enough() -> None:
    assert obstacle(np.array([0, 0, 1, 1]), 1, 2) is None
    assert obstacle(np.array([0, 0, 2, 2, 2]), 1, 3) == (
        "no stacking: its final estimator wants two rows of each class beside the members' own, class 1 has 0"
    )
    assert "class 2 has 1" in str(obstacle(np.array([0, 0, 1, 1, 2]), 1, 3))
    answers, y = _world(60, [1.0], n_classes=2)
    rare = np.flatnonzero(y == 0)[2:]
    kept = np.setdiff1d(np.arange(60), rare)
    assert fit_stacking(answers[:, kept], y[kept]).out_of_fold.shape == (len(kept), 2)


def test_so_many_classes_that_it_would_take_hours_are_told() -> None:
    y = np.repeat(np.arange(100), 2)
    assert obstacle(y, 2, 100) is None
    assert obstacle(y, 3, 100) == "no stacking: its final estimator would have 30,000 coefficients, more than 20,000"


def test_it_tells_how_it_was_chosen_ready_for_json() -> None:
    found = fit_stacking(*_world(100, [1.0]))
    told = orjson.loads(orjson.dumps(found.to_json()))
    assert told["rows"] == 100
    assert told["C"] == found.strength
    assert len(told["log_loss"]) == len(STRENGTHS)


def test_a_graph_that_answers_something_else_is_refused() -> None:
    answers, y = _world(200, [1.0, 2.0])
    found = fit_stacking(answers, y)
    other = stacking.final_estimator(10.0).fit(side_by_side(answers[::-1]), y)
    with pytest.raises(ParityError, match=r"final estimator: its graph answers up to .* off"):
        stacking.check_parity(found.model, other, answers)
