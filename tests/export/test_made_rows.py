from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto

from export.errors import Mismatch
from export.formats.source import Source, WantsArray, WantsColumns
from export.made_rows import made_dataset


def _source(wants: WantsArray | WantsColumns) -> Source:
    def predict(arrays: list[Any]) -> Any:
        raise NotImplementedError

    return Source("hand", wants, 2, predict, lambda ports: ModelProto())


def test_the_input_is_that_of_the_model_that_says_most_of_it() -> None:
    dataset = made_dataset({"flat": _source(WantsArray((48,))), "net": _source(WantsArray((4, 4, 3)))}, ["a", "b"])
    assert [(spec.name, spec.shape) for spec in dataset.inputs] == [("image", [4, 4, 3])]
    assert dataset.validation.x.shape == (96, 4, 4, 3)
    assert [len(split) for split in (dataset.train, dataset.calibration, dataset.test)] == [0, 0, 0]
    assert dataset.validation.x[:64].max() < 10 < dataset.validation.x[64:].max() <= 255
    assert made_dataset({"flat": _source(WantsArray((5,)))}, ["a", "b"]).inputs[0].name == "x"


def test_columns_have_the_types_that_a_graph_says() -> None:
    wants = WantsColumns(("age", "job"), (TensorProto.FLOAT, TensorProto.STRING))
    dataset = made_dataset({"m": _source(wants)}, ["a", "b"])
    assert [(spec.name, spec.datatype) for spec in dataset.inputs] == [("age", "FP32"), ("job", "BYTES")]
    assert set(np.unique(dataset.validation.x["job"].astype(str))) == {"a", "b", "c"}


@pytest.mark.parametrize(
    ("wants", "message"),
    [
        (WantsArray((None, None, 3)), r"member 'm': its input \[None, None, 3\] has no known size: it takes --data"),
        (
            WantsColumns(("age", "job")),
            "member 'm': it wants columns age, job, and does not say which",
        ),
    ],
)
def test_what_the_models_do_not_say_takes_data(wants: WantsArray | WantsColumns, message: str) -> None:
    with pytest.raises(Mismatch, match=message):
        made_dataset({"m": replace(_source(wants))}, ["a", "b"])
