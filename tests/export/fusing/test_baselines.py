import numpy as np
import orjson
import pytest
from numpy.typing import NDArray

from export.evaluate import evaluate
from export.fusing.baselines import BY_ACCURACY, HARD, SOFT, STACKING, compare_with_baselines, score_baselines
from server.fusion import Fused, fuse

N_CLASSES = 4
Answers = NDArray[np.float32]


def _world(n: int, sharpness: list[float], seed: int = 0) -> tuple[Answers, NDArray[np.int64]]:
    """Members that see the truth through noise of their own, the sharper the better: `(n_members, n, 4)`, `(n,)`."""
    generator = np.random.default_rng(seed)
    y = generator.integers(0, N_CLASSES, n)
    truth = np.eye(N_CLASSES)[y]
    logits = np.stack([sharp * truth + generator.normal(0, 1, truth.shape) for sharp in sharpness])
    exponentials = np.exp(logits)
    return (exponentials / exponentials.sum(axis=2, keepdims=True)).astype(np.float32), y


@pytest.fixture(name="world", scope="module")
def _parts() -> tuple[Answers, NDArray[np.int64], Answers, NDArray[np.int64]]:
    answers, y = _world(900, [2.0, 1.5, 0.2])
    return answers[:, :400], y[:400], answers[:, 400:], y[400:]


def test_soft_voting_is_our_average_and_hard_voting_our_vote_but_for_ties(
    world: tuple[Answers, NDArray[np.int64], Answers, NDArray[np.int64]],
) -> None:
    answers, y, unseen, _ = world
    found = score_baselines(answers, y, unseen)
    np.testing.assert_allclose(found[SOFT].probabilities, fuse("average", unseen).probabilities, atol=1e-6)
    np.testing.assert_array_equal(found[SOFT].labels, fuse("average", unseen).labels)
    votes = fuse("vote", unseen)
    np.testing.assert_allclose(found[HARD].probabilities, votes.probabilities, atol=1e-6)
    decided = votes.probabilities.max(axis=1) > 0.5
    assert decided.any()
    assert not decided.all()
    np.testing.assert_array_equal(found[HARD].labels[decided], votes.labels[decided])


def test_members_weigh_by_their_accuracy_on_the_rows_that_it_learns_from(
    world: tuple[Answers, NDArray[np.int64], Answers, NDArray[np.int64]],
) -> None:
    answers, y, unseen, _ = world
    accuracies = (answers.argmax(axis=2) == y).mean(axis=1)
    ours = fuse("weighted", unseen, weights=accuracies)
    found = score_baselines(answers, y, unseen)[BY_ACCURACY]
    np.testing.assert_allclose(found.probabilities, ours.probabilities, atol=1e-6)


def test_stacking_learns_whom_to_trust(
    world: tuple[Answers, NDArray[np.int64], Answers, NDArray[np.int64]],
) -> None:
    answers, y, unseen, y_unseen = world
    scored = evaluate(score_baselines(answers, y, unseen), y_unseen)
    assert scored.difference(STACKING, SOFT, "log_loss").high < 0


def test_it_undoes_a_member_that_has_its_classes_in_another_order() -> None:
    answers, y = _world(800, [3.0])
    found = score_baselines(answers[:, :400, ::-1], y[:400], answers[:, 400:, ::-1])
    assert (found[SOFT].labels == y[400:]).mean() < 0.2
    assert (found[STACKING].labels == y[400:]).mean() > 0.8


def test_a_class_that_is_not_among_the_rows_to_learn_from_keeps_its_column() -> None:
    answers, y = _world(400, [2.0, 1.0])
    known = y != 1
    found = score_baselines(answers[:, known], y[known], answers)
    assert all(answer.probabilities.shape == (400, N_CLASSES) for answer in found.values())
    for answer in found.values():
        np.testing.assert_allclose(answer.probabilities.sum(axis=1), 1, atol=1e-6)
    assert (found[STACKING].probabilities[:, 1] == 0).all()
    assert set(found[STACKING].labels) == {0, 2, 3}
    np.testing.assert_array_equal(found[SOFT].labels, fuse("average", answers).labels)


def test_rows_of_one_class_teach_no_stacking() -> None:
    answers, y = _world(100, [2.0, 1.0])
    one = y == 0
    assert set(score_baselines(answers[:, one], y[one], answers)) == {SOFT, HARD, BY_ACCURACY}


def test_members_that_are_never_right_have_no_weights_by_accuracy() -> None:
    answers, y = _world(100, [2.0])
    wrong = answers.argmax(axis=2)[0] != y
    assert set(score_baselines(answers[:, wrong], y[wrong], answers)) == {SOFT, HARD, STACKING}


def test_two_classes_are_fused_too() -> None:
    generator = np.random.default_rng(0)
    first = generator.random((2, 200, 1)).astype(np.float32)
    answers = np.concatenate([first, 1 - first], axis=2)
    y = (first.mean(axis=0)[:, 0] < 0.5).astype(np.int64)
    found = score_baselines(answers, y, answers)
    assert (found[SOFT].labels == y).all()
    assert (found[STACKING].labels == y).mean() > 0.95


def test_the_comparison_is_of_our_answer_less_each_of_theirs_on_the_same_rows(
    world: tuple[Answers, NDArray[np.int64], Answers, NDArray[np.int64]],
) -> None:
    answers, y, unseen, y_unseen = world
    ours = fuse("average", unseen)
    found = compare_with_baselines(ours, answers, y, unseen, y_unseen, seed=3)
    assert orjson.loads(orjson.dumps(found)) == found
    assert list(found) == [SOFT, HARD, BY_ACCURACY, STACKING]
    for metric in ("accuracy", "log_loss"):
        assert found[SOFT]["difference"][metric] == {"value": 0, "low": 0, "high": 0}
    stacking = found[STACKING]
    loss = evaluate({"ours": ours}, y_unseen).scores("ours")["log_loss"].value
    difference = stacking["difference"]["log_loss"]
    assert difference["value"] == pytest.approx(loss - stacking["test"]["log_loss"]["value"], abs=2e-6)
    assert 0 < difference["low"] < difference["value"] < difference["high"]
    assert set(stacking["test"]) == {"accuracy", "log_loss", "brier", "ece"}


def test_the_figures_of_the_same_seed_are_the_same() -> None:
    answers, y = _world(200, [2.0, 1.0])
    ours = Fused(answers[0], answers[0].argmax(axis=1))
    first, second = (compare_with_baselines(ours, answers, y, answers, y, seed=1) for _ in range(2))
    assert first == second
