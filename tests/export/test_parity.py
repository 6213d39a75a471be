import re
from dataclasses import replace

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import AttributeProto, ModelProto, helper, numpy_helper
from sklearn.tree import DecisionTreeClassifier

from export.adapt import member_of
from export.awkward import constant_rows, pattern_rows, row_sets, threshold_rows
from export.datasets import Dataset, Split
from export.errors import ParityError
from export.formats.sklearn_models import sklearn_source
from export.members import Splits, TrainedMember
from export.parity import ParityReport, accuracy_lost, check_parity
from export.trained import Lossy
from server.manifest import InputSpec
from tests.export.small import CNN, TREE, XGB, digits, train
from tests.tiny import CLASSES, coefficients, linear_member

Rows = NDArray[np.float32]


@pytest.fixture(scope="module", name="cnn")
def _cnn() -> TrainedMember:
    return train(CNN, digits())


@pytest.fixture(scope="module", name="tree")
def _tree() -> TrainedMember:
    return train(TREE, digits())


@pytest.fixture(scope="module", name="xgb")
def _xgb() -> TrainedMember:
    return train(XGB, digits())


def _ensemble_attribute(model: ModelProto, name: str) -> AttributeProto:
    (node,) = (node for node in model.graph.node if node.op_type == "TreeEnsembleClassifier")
    attributes: dict[str, AttributeProto] = {attribute.name: attribute for attribute in node.attribute}
    return attributes[name]


def _blind(dataset: Dataset) -> Dataset:
    """With one validation row, so that it is the awkward rows that catch what is wrong."""
    return replace(dataset, validation=Split(dataset.validation.x[:1], dataset.validation.y[:1]))


def _refused(member: TrainedMember, model: ModelProto | bytes, dataset: Dataset) -> str:
    with pytest.raises(ParityError) as caught:
        check_parity(member, model, dataset)
    return str(caught.value)


# ---- Right graphs pass ----------------------------------------------------------------------------------------------


def test_right_graphs_pass(cnn: TrainedMember, tree: TrainedMember, xgb: TrainedMember) -> None:
    for member in (cnn, tree, xgb):
        report = check_parity(member, member.to_onnx(), digits())
        assert report.member == member.name
        assert report.rows["validation"] == 250
        assert report.rows["offset +1e+06"] == 250
        assert report.rows.get("thresholds", 0) == 3 * len(member.splits or ())
        assert report.largest_difference < 1e-5
        assert report.ties == 0


# ---- Wrong graphs do not --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [np.inf, -np.inf])
@pytest.mark.parametrize("kind", ["tree", "xgb"])
def test_any_threshold_that_is_one_step_off_is_caught(kind: str, step: float, request: pytest.FixtureRequest) -> None:
    member: TrainedMember = request.getfixturevalue(kind)
    dataset = _blind(digits())
    right = member.to_onnx()
    modes = _ensemble_attribute(right, "nodes_modes").strings
    splits = [index for index, mode in enumerate(modes) if mode != b"LEAF"]
    for split in splits[:: max(1, len(splits) // 8)]:
        wrong = onnx.ModelProto()
        wrong.CopyFrom(right)
        values = _ensemble_attribute(wrong, "nodes_values").floats
        values[split] = float(np.nextafter(np.float32(values[split]), np.float32(step)))
        message = _refused(member, wrong, dataset)
        assert re.match(rf"member '{kind}': row \d+ of 'thresholds', class '\d': the model answers", message)


def test_swapped_columns_are_caught(tree: TrainedMember) -> None:
    model = tree.to_onnx()
    model.graph.node[-1].output[1] = "straight"
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, 0, *range(2, 10)]), "order"))
    model.graph.node.append(helper.make_node("Gather", ["straight", "order"], ["probabilities"], axis=1))
    message = _refused(tree, model, digits())
    assert re.match(r"member 'tree': row \d+ of 'validation', class '[01]'", message)


def test_a_missing_scaling_is_caught(cnn: TrainedMember) -> None:
    model = cnn.to_onnx()
    scale = next(value for value in model.graph.initializer if not value.dims)
    np.testing.assert_allclose(numpy_helper.to_array(scale), 1 / 16)
    scale.CopyFrom(numpy_helper.from_array(np.array(1, dtype=np.float32), scale.name))
    assert "row 0 of 'validation'" in _refused(cnn, model, digits())


def _close_values() -> tuple[Dataset, DecisionTreeClassifier]:
    """Rows of neighbouring float32 values about 1e4: the float64 threshold between two of them is no float32, and
    every other one rounds to the upper value, which then falls on the wrong side."""
    values = np.full(65, 1e4, dtype=np.float32)
    for index in range(1, 65):
        values[index] = np.nextafter(values[index - 1], np.float32(np.inf))
    x, y = values[:, None], np.arange(65, dtype=np.int64) % 3
    split = Split(x, y)
    spec = InputSpec(name="X", shape=[1], low=0.0, high=2e4)
    return Dataset("close", CLASSES, [spec], split, split, split, split), DecisionTreeClassifier().fit(x, y)


def test_a_threshold_rounded_to_the_nearest_float32_is_caught() -> None:
    dataset, model = _close_values()
    tree = model.tree_
    member = member_of(replace(sklearn_source(model), classes=None), "close", dataset)
    graph = member.to_onnx()
    assert check_parity(member, graph, dataset).largest_difference < 1e-6
    values = _ensemble_attribute(graph, "nodes_values").floats
    inner = tree.children_left >= 0
    assert len(values) == len(inner)
    values[:] = np.where(inner, tree.threshold, 0).astype(np.float32).tolist()
    assert re.match(r"member 'close': row \d+ of 'thresholds'", _refused(member, graph, _blind(dataset)))


def test_a_graph_that_does_not_load_is_refused(tree: TrainedMember) -> None:
    model = tree.to_onnx()
    model.graph.node[0].output[0] = "gone"
    assert "member 'tree': tree.onnx: ONNX Runtime cannot load it" in _refused(tree, model, digits())


def test_a_graph_that_takes_one_row_only_is_refused(tree: TrainedMember) -> None:
    model = tree.to_onnx()
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.array([1, 64]), model.graph.initializer[0].name))
    assert "member 'tree': tree.onnx: " in _refused(tree, model, digits())


# ---- Tolerances, by hand --------------------------------------------------------------------------------------------


def _tiny(low: float | None = -2.0, high: float | None = 2.0) -> Dataset:
    x = np.random.default_rng(0).normal(0, 0.5, (300, 4)).astype(np.float32)
    split = Split(x, np.zeros(300, dtype=np.int64))
    return Dataset("tiny", CLASSES, [InputSpec(name="X", shape=[4], low=low, high=high)], split, split, split, split)


def _constant(*probabilities: float) -> TrainedMember:
    return TrainedMember(
        name="constant",
        framework="hand",
        predict_proba=lambda x: np.tile(probabilities, (len(x), 1)),
        to_onnx=ModelProto,
    )


def _linear(weights: NDArray[np.float32]) -> TrainedMember:
    """`softmax(x @ weights)` in float64."""

    def logits(x: Rows) -> NDArray[np.float64]:
        return x.astype(np.float64) @ weights.astype(np.float64)

    def softmax(x: Rows) -> NDArray[np.float64]:
        exponentials = np.exp(logits(x) - logits(x).max(axis=1, keepdims=True))
        return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))

    return TrainedMember("linear", "hand", softmax, ModelProto, logits=logits)


UNIFORM = linear_member(np.zeros((4, 3), dtype=np.float32))
"""Answers a third, a third, a third: its best class is the first."""


def test_another_best_class_is_a_tie_when_the_models_own_two_lie_closer_than_1e_5() -> None:
    report = check_parity(_constant(1 / 3 - 3e-6, 1 / 3 + 3e-6, 1 / 3), UNIFORM, _tiny())
    assert report.ties == sum(report.rows.values())
    assert report.largest_difference == pytest.approx(3e-6, rel=0.05)


def test_another_best_class_is_wrong_when_they_do_not() -> None:
    """Each probability is within 1e-5, the best class is not the same by 1.2e-5."""
    message = _refused(_constant(1 / 3 - 6e-6, 1 / 3 + 6e-6, 1 / 3), UNIFORM, _tiny())
    assert message == (
        "member 'constant': row 0 of 'validation', class 'red': the model answers 0.3333273 and 'green', "
        "its ONNX graph 0.3333333 and 'red'"
    )


def test_a_probability_off_by_more_than_1e_5_is_wrong() -> None:
    message = _refused(_constant(1 / 3 + 2e-5, 1 / 3 - 1e-5, 1 / 3 - 1e-5), UNIFORM, _tiny())
    assert "class 'red': the model answers 0.3333533 and 'red', its ONNX graph 0.3333333 and 'red'" in message


def test_far_out_a_network_is_right_up_to_the_rounding_of_its_logits() -> None:
    """Classes red and green weigh the same values in another order, so at a million float32 cannot tell them apart."""
    weights = coefficients(1)[0]
    weights[:, 1] = weights[::-1, 0]
    report = check_parity(_linear(weights), linear_member(weights), _tiny())
    assert report.largest_difference < 1e-5
    assert report.largest_difference_outside > 1e-3


def test_without_logits_the_strict_tolerance_holds_far_out_too() -> None:
    weights = coefficients(1)[0]
    weights[:, 1] = weights[::-1, 0]
    strict = replace(_linear(weights), logits=None)
    assert "of 'offset " in _refused(strict, linear_member(weights), _tiny())


def test_a_graph_that_is_right_only_within_the_domain_is_caught() -> None:
    weights = coefficients(1)[0]
    model = onnx.load_from_string(linear_member(weights))
    model.graph.initializer.extend(
        [numpy_helper.from_array(np.array(bound, dtype=np.float32), name) for bound, name in ((-9, "l"), (9, "h"))]
    )
    model.graph.node.insert(0, helper.make_node("Clip", ["X", "l", "h"], ["clipped"]))
    model.graph.node[1].input[0] = "clipped"
    assert "of 'offset " in _refused(_linear(weights), model, _tiny())


def test_an_answer_that_is_no_number_is_wrong() -> None:
    nan = np.full((4, 3), np.nan, dtype=np.float32)
    assert "its ONNX graph nan" in _refused(_constant(0.5, 0.25, 0.25), linear_member(nan), _tiny())


def test_another_number_of_classes_is_wrong() -> None:
    wide = linear_member(np.zeros((4, 5), dtype=np.float32))
    assert "expected shape (300, 3), got (300, 5)" in _refused(_constant(0.5, 0.25, 0.25), wide, _tiny())


# ---- Rows -----------------------------------------------------------------------------------------------------------


def test_threshold_rows_lie_at_and_next_to_each_threshold() -> None:
    splits = Splits(np.array([2, 0]), np.array([0.5, 0.1]), np.array([7, 9]))
    member = replace(_constant(0.5, 0.25, 0.25), splits=splits)
    dataset = _tiny()
    (rows,) = threshold_rows(member, dataset)
    half, tenth = np.float32(0.5), np.float32(0.1)
    assert rows[:3, 2].tolist() == [np.nextafter(half, np.float32(0)), half, np.nextafter(half, np.float32(1))]
    assert rows[3:, 0].tolist() == [np.nextafter(tenth, np.float32(0)), tenth, np.nextafter(tenth, np.float32(1))]
    np.testing.assert_array_equal(rows[:3, [0, 1, 3]], np.tile(dataset.train.x[7, [0, 1, 3]], (3, 1)))
    assert rows[0, 2] < 0.5 < rows[2, 2]
    assert rows[3, 0] <= 0.1 < rows[5, 0]


def test_constants_and_patterns() -> None:
    constants = constant_rows([2, 2, 1], -1.0, 3.0)
    assert constants.shape == (5, 2, 2, 1)
    assert constants[:4, 0, 0, 0].tolist() == [0, -1, 3, 1]
    patterns = pattern_rows([2, 2, 1], 0.0, 9.0)
    assert patterns.dtype == np.float32
    flat = patterns.reshape(len(patterns), 4).tolist()
    for expected in ([9, 0, 0, 9], [0, 9, 9, 0], [9, 9, 0, 0], [9, 0, 9, 0], [0, 0, 9, 0], [9, 9, 0, 9]):
        assert expected in flat


def test_without_bounds_the_training_rows_bound_the_domain() -> None:
    dataset = _tiny(low=None, high=None)
    sets = list(row_sets(_constant(0.5, 0.25, 0.25), dataset))
    noise = next(rows.rows for rows in sets if rows.name == "noise")
    assert dataset.train.x.min() <= noise.min()
    assert noise.max() <= dataset.train.x.max()
    assert [rows.inside for rows in sets if rows.name.startswith("offset")] == [False] * 4


def test_rows_far_out_that_the_model_itself_does_not_answer_are_not_compared() -> None:
    weights = coefficients(1)[0]

    def raises(x: Rows) -> NDArray[np.float64]:
        if np.abs(x).max() > 100:
            raise ParityError("no such index")
        return np.asarray(_linear(weights).predict_proba(x), dtype=np.float64)

    def overflows(x: Rows) -> NDArray[np.float64]:
        answer = np.asarray(_linear(weights).predict_proba(x), dtype=np.float64)
        answer[np.abs(x).max(axis=1) > 100] = np.nan
        return answer

    for predict in (raises, overflows):
        report = check_parity(replace(_linear(weights), predict_proba=predict), linear_member(weights), _tiny())
        assert report.rows["validation"] == 300
        assert not [name for name in report.rows if name.startswith("offset")]


# ---- Lossy members --------------------------------------------------------------------------------------------------


def _lossy(tolerance: float, drift: float) -> tuple[TrainedMember, Dataset]:
    """Answers 0.5, 0.2 and 0.3 to every row; 60 of its 300 validation rows are green, the others red."""
    member = replace(_constant(0.5, 0.2, 0.3), lossy=Lossy(tolerance, drift))
    y = np.repeat([1, 0], [60, 240])
    dataset = _tiny()
    return member, replace(dataset, validation=Split(dataset.validation.x, y))


def test_a_lossy_member_may_differ_by_its_own_measure() -> None:
    """Its graph says a third to everything: as often right, and up to 0.5 − 1/3 away."""
    member, dataset = _lossy(0.0, 0.17)
    report = check_parity(member, UNIFORM, dataset)
    assert report.lossy
    assert report.largest_difference == pytest.approx(1 / 6, abs=1e-6)
    assert report.rows["validation"] == 300
    assert report.rows["offset +1e+06"] == 256
    assert report.ties == 0
    assert not check_parity(_constant(1 / 3, 1 / 3, 1 / 3), UNIFORM, _tiny()).lossy


def test_a_probability_of_a_lossy_member_may_move_by_no_more_than_its_drift() -> None:
    member, dataset = _lossy(0.0, 0.16)
    assert _refused(member, UNIFORM, dataset) == (
        "member 'constant': row 0 of 'validation', class 'red': expected up to 0.16 between them, the model answers "
        "0.5, its ONNX graph 0.3333333"
    )


@pytest.mark.parametrize("tolerance", [0.59, 0.6])
def test_a_lossy_member_may_lose_no_more_accuracy_than_its_tolerance(tolerance: float) -> None:
    """Right on the 240 red rows the source, on the 60 green ones the graph."""
    member, dataset = _lossy(tolerance, 1.0)
    model = onnx.load_from_string(linear_member(np.zeros((4, 3), dtype=np.float32)))
    model.graph.initializer.append(numpy_helper.from_array(np.array([0, 1, 0], dtype=np.float32), "b"))
    model.graph.node.insert(1, helper.make_node("Add", ["logits", "b"], ["biased"]))
    model.graph.node[2].input[0] = "biased"
    if tolerance == 0.6:
        assert check_parity(member, model, dataset).ties > 300
    else:
        assert _refused(member, model, dataset) == (
            "member 'constant': expected its ONNX graph to lose up to 0.59 of accuracy on the validation rows, "
            "it loses 0.6"
        )


def test_a_lossy_member_answers_distributions_to_awkward_rows_too() -> None:
    """Above 1000 the graph's answers are twice as large."""
    member, dataset = _lossy(1.0, 1.0)
    model = onnx.load_from_string(UNIFORM)
    model.graph.node[-1].output[0] = "halves"
    numbers = {"axes": np.array([1]), "limit": np.array(1e3, dtype=np.float32), "one": np.array(1, dtype=np.float32)}
    model.graph.initializer.extend([numpy_helper.from_array(value, name) for name, value in numbers.items()])
    model.graph.node.extend(
        [
            helper.make_node("ReduceMax", ["X", "axes"], ["highest"]),
            helper.make_node("Greater", ["highest", "limit"], ["far"]),
            helper.make_node("Cast", ["far"], ["extra"], to=onnx.TensorProto.FLOAT),
            helper.make_node("Add", ["extra", "one"], ["factor"]),
            helper.make_node("Mul", ["halves", "factor"], ["probabilities"]),
        ]
    )
    assert _refused(member, model, dataset) == (
        "member 'constant': row 0 of 'offset +1e+04': expected a distribution over the classes, its ONNX graph answers "
        "[0.6667 0.6667 0.6667]"
    )


def test_a_report_that_was_kept_before_there_were_lossy_members_can_be_read() -> None:
    assert not ParityReport("old", {"validation": 3}, 0.0, 0.0, 0).lossy


def test_lost_accuracy_is_counted_in_rows() -> None:
    y = np.array([0, 1, 2, 2])
    right, wrong = np.eye(3)[y], np.eye(3)[[0, 1, 1, 0]]
    assert accuracy_lost(right, wrong, y) == 0.5
    assert accuracy_lost(wrong, right, y) == -0.5
    assert accuracy_lost(right, right, y) == 0
