from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

from export.adapt import Adaptation, answer_of, member_of, reading_of
from export.errors import Mismatch, ParityError
from export.formats.source import Source, WantsArray, WantsColumns
from export.graph import OPSET
from server.manifest import InputSpec
from server.session import Session
from tests.export.small_models import TABLE_SPECS, of_table, of_vectors

IMAGE = InputSpec(name="image", shape=[2, 3, 4])
PIXELS = np.arange(48, dtype=np.float32).reshape(2, 2, 3, 4)
NUMBERS = TABLE_SPECS[:2]


def _source(**changes: Any) -> Source:
    """Takes four numbers, and always answers a third, a half and a sixth."""
    return replace(
        Source(
            framework="hand",
            wants=WantsArray((4,)),
            n_outputs=3,
            predict=lambda arrays: np.tile([1 / 3, 1 / 2, 1 / 6], (len(arrays[0]), 1)),
            to_onnx=lambda ports: ModelProto(),
        ),
        **changes,
    )


# ---- Inputs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wants", "expected"),
    [
        ((2, 3, 4), PIXELS),
        ((None, None, 4), PIXELS),
        ((24,), PIXELS.reshape(2, 24)),
        ((4, 2, 3), PIXELS.transpose(0, 3, 1, 2)),
        ((None, None, None), PIXELS),
        ((4, None, None), PIXELS.transpose(0, 3, 1, 2)),
        ((1, 2, 3, 4), PIXELS.reshape(2, 1, 2, 3, 4)),
    ],
)
def test_a_tensor_is_read_in_the_models_shape_in_both(wants: tuple[int | None, ...], expected: np.ndarray) -> None:
    reading = reading_of(WantsArray(wants, name="rows"), [IMAGE], "m")
    (array,) = reading.arrays(PIXELS)
    np.testing.assert_array_equal(array, expected)
    nodes, constants = reading.nodes(["read"])
    graph = helper.make_graph(
        nodes,
        "head",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 2, 3, 4])],
        [helper.make_empty_tensor_value_info("read")],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    (read,) = Session(model.SerializeToString(), where="head").run(["read"], {"image": PIXELS})
    np.testing.assert_array_equal(read, expected)


@pytest.mark.parametrize(("have", "want"), [([28, 28, 1], (28, 28)), ([28, 28], (28, 28, 1)), ([784], (28, 28, 1))])
def test_axes_of_one_and_flat_rows_fit(have: list[int], want: tuple[int, ...]) -> None:
    (port,) = reading_of(WantsArray(want), [InputSpec(name="image", shape=have)], "m").ports
    assert (port.shape, port.channels_first) == (want, False)


def test_a_scale_a_channel_comes_before_the_channels_go_to_the_front() -> None:
    adaptation = Adaptation(np.array([1, 2, 3, 4], dtype=np.float32), np.array(-1, dtype=np.float32))
    (array,) = reading_of(WantsArray((4, 2, 3)), [IMAGE], "m", adaptation).arrays(PIXELS)
    np.testing.assert_array_equal(array, (PIXELS * [1, 2, 3, 4] - 1).transpose(0, 3, 1, 2))


def test_a_scale_of_other_channels_is_refused() -> None:
    with pytest.raises(Mismatch, match=r"one factor, or one for each of the 4 values .* got 3"):
        reading_of(WantsArray((2, 3, 4)), [IMAGE], "m", Adaptation(np.ones(3, dtype=np.float32)))


def test_columns_go_by_the_names_that_the_model_knows() -> None:
    wants = WantsArray((2,), features=("hours per week", "age"))
    (array,) = reading_of(wants, TABLE_SPECS, "m").arrays(rows := of_table().validation.x)
    np.testing.assert_array_equal(array, np.hstack([rows["hours per week"], rows["age"]]))


def test_lightgbms_spelling_of_a_name_is_known() -> None:
    reading = reading_of(WantsArray((1,), features=("hours_per_week",)), TABLE_SPECS, "m")
    assert reading.inputs == ["hours per week"]


def test_without_names_all_columns_are_taken_in_their_order_if_all_are_numbers() -> None:
    assert reading_of(WantsArray((2,)), NUMBERS, "m").inputs == ["age", "hours per week"]


@pytest.mark.parametrize(
    ("wants", "inputs", "message"),
    [
        (WantsArray((9,)), [IMAGE], r"the model wants rows of \[9\], the data has \[2, 3, 4\] \('image'\)"),
        (WantsArray((2, 12)), [IMAGE], r"the model wants rows of \[2, 12\]"),
        (
            WantsArray((2,)),
            TABLE_SPECS,
            r"unnamed, as numbers; the data has age \(numbers\).*job \(text\)",
        ),
        (WantsArray((3,)), NUMBERS, r"wants rows of \[3\], unnamed"),
        (WantsArray((2,), features=("age", "pay")), TABLE_SPECS, "wants columns age, pay, .* it lacks pay"),
        (WantsArray((1,), features=("job",)), TABLE_SPECS, "wants columns job, as numbers"),
        (WantsColumns(("age", "pay")), TABLE_SPECS, "wants columns age, pay; .* it lacks pay"),
        (WantsColumns(("age",)), [IMAGE], r"the data has image \(numbers \[2, 3, 4\]\); it lacks age"),
        (
            WantsColumns(("age",), (TensorProto.STRING,)),
            TABLE_SPECS,
            r"wants columns age \(text\); the data has age \(numbers\)",
        ),
    ],
)
def test_other_inputs_are_refused_and_both_sides_shown(
    wants: WantsArray | WantsColumns, inputs: list[InputSpec], message: str
) -> None:
    with pytest.raises(Mismatch, match=f"^member 'm': .*{message}"):
        reading_of(wants, inputs, "m")


# ---- Classes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("own", "classes", "order"),
    [
        (("b", "c", "a"), ["a", "b", "c"], (2, 0, 1)),
        (None, ["c", "a", "b"], (0, 1, 2)),
        (("0", "1", "2"), ["a", "b", "c"], (0, 1, 2)),
        (("0", "1", "2"), ["2", "1", "0"], (2, 1, 0)),
        (None, ["2", "1", "0"], (0, 1, 2)),
        (("FALSE", "TRUE", "maybe"), ["maybe", "true", "false"], (2, 1, 0)),
    ],
)
def test_columns_go_by_the_names_of_classes_else_as_they_stand(
    own: tuple[str, ...] | None, classes: list[str], order: tuple[int, ...]
) -> None:
    assert answer_of(_source(classes=own), classes, "m").order == order


@pytest.mark.parametrize(
    ("own", "n_outputs", "classes", "message"),
    [
        (("a", "b"), 2, ["a", "b", "c"], "the model's classes are a, b; the data's are a, b, c"),
        (("a", "b", "d"), 3, ["a", "b", "c"], "the model's classes are a, b, d; the data's are a, b, c"),
        (None, 4, ["a", "b", "c"], "the model's classes are 4 without names"),
        (None, 1, ["a", "b", "c"], "the model's classes are 2 without names"),
    ],
)
def test_other_classes_are_refused_and_both_sides_shown(
    own: tuple[str, ...] | None, n_outputs: int, classes: list[str], message: str
) -> None:
    with pytest.raises(Mismatch, match=message):
        answer_of(_source(classes=own, n_outputs=n_outputs), classes, "m")


# ---- Answers --------------------------------------------------------------------------------------------------------


def test_answers_are_put_in_the_order_of_the_classes() -> None:
    member = member_of(_source(classes=("c", "a", "b")), "m", of_vectors())
    np.testing.assert_allclose(member.predict_proba(of_vectors().test.x[:2]), [[1 / 2, 1 / 6, 1 / 3]] * 2)


@pytest.mark.parametrize(
    ("predict", "adaptation", "message"),
    [
        (
            lambda x: np.tile([3.0, -1.0, 0.0], (len(x), 1)),
            Adaptation(),
            "got .*3.* say --logits m",
        ),
        (lambda x: np.full((len(x), 3), np.nan), Adaptation(), "expected a distribution"),
        (lambda x: np.tile([0.2, 0.3, 0.5], (len(x), 1)), Adaptation(logits=True), "answers distributions already"),
        (lambda x: np.zeros((len(x), 2)), Adaptation(), r"expected 3 values a row, got \(2,\)"),
    ],
)
def test_answers_that_are_no_distributions_are_refused(predict: Any, adaptation: Adaptation, message: str) -> None:
    with pytest.raises(Mismatch, match=message):
        member_of(_source(predict=lambda arrays: predict(arrays[0])), "m", of_vectors(), adaptation)


def test_a_model_that_raises_is_told_of_in_one_line() -> None:
    def predict(arrays: list[Any]) -> Any:
        raise ValueError("no such column\nat line 7")

    with pytest.raises(ParityError, match=r"member 'm': the model itself does not answer .*: no such column$"):
        member_of(_source(predict=predict), "m", of_vectors())
