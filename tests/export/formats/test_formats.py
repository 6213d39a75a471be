from pathlib import Path

import pytest

from export.errors import InvalidModel
from export.formats import FAMILIES, Trust, load_model, source_of


@pytest.mark.parametrize("name", ["m.csv", "m.json", "m.txt", "m.keras", "m.skops", "m.h5"])
def test_a_file_of_no_kind_is_told_all_kinds(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"something else")
    with pytest.raises(InvalidModel) as caught:
        load_model(tmp_path / name, Trust())
    assert str(tmp_path / name) in str(caught.value)
    for family in FAMILIES:
        assert family in str(caught.value)


def test_a_folder_that_is_no_saved_model_and_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidModel, match="expected a trained model of one of these kinds"):
        load_model(tmp_path, Trust())
    with pytest.raises(InvalidModel, match="there is no such file"):
        load_model(tmp_path / "none.onnx", Trust())


def test_an_object_of_no_kind_is_named() -> None:
    with pytest.raises(InvalidModel, match=r"expected a trained model of ONNX, Keras, .*; got builtins\.int"):
        source_of(3)
