"""What holds of boosted trees, whichever library grows them."""

import json

import numpy as np
import pytest

from export.datasets import Dataset
from export.members.network import log_loss
from export.parity import check_parity
from export.trained import TrainedMember


def assert_the_best_rounds_alone(member: TrainedMember, dataset: Dataset, *, patience: int, most: int) -> None:
    """Of a member that stopped `patience` rounds after its best: it and its graph end with that one's trees."""
    curve = member.record["curves"]["validation_log_loss"]
    rounds = member.record["rounds"]
    assert rounds == int(np.argmin(curve)) + 1
    assert len(curve) == rounds + patience < most
    answers = member.predict_proba(dataset.validation.x)
    assert log_loss(answers, dataset.validation.y) == pytest.approx(min(curve), abs=1e-5)
    graph = member.to_onnx()
    (trees,) = [node for node in graph.graph.node if node.op_type.startswith("TreeEnsemble")]
    ids = next(attribute.ints for attribute in trees.attribute if attribute.name == "nodes_treeids")
    assert len(set(ids)) == 10 * rounds
    assert check_parity(member, graph, dataset).largest_difference < 1e-5
    json.dumps(member.record, allow_nan=False)
