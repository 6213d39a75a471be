import numpy as np

from export.predictor import BATCH, Predictor
from tests.export.small import TREE, digits, train


def test_it_answers_in_batches_as_the_model_does() -> None:
    dataset = digits()
    member = train(TREE, dataset)
    rows = dataset.train.x[: 2 * BATCH + 3]
    predictor = Predictor(member.to_onnx(), "tree")
    assert [len(feeds["image"]) for feeds in predictor.feeds(rows)] == [BATCH, BATCH, 3]
    answers = predictor(rows)
    assert answers.dtype == np.float32
    np.testing.assert_allclose(answers, member.predict_proba(rows), atol=1e-6)
