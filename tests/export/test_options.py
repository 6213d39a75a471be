from pathlib import Path

import numpy as np
import pytest

from export.errors import InvalidModel
from export.options import read_adaptations, read_members


def test_members_are_named_like_their_files_unless_said_otherwise(tmp_path: Path) -> None:
    (tmp_path / "saved.v2").mkdir()
    given = ["a/cnn.keras", "b/cnn.h5", "my model (2).onnx", "tree=c/best.skops", "-x.txt", f"{tmp_path}/saved.v2"]
    assert read_members(given) == {
        "cnn": Path("a/cnn.keras"),
        "cnn_2": Path("b/cnn.h5"),
        "my_model_2_": Path("my model (2).onnx"),
        "tree": Path("c/best.skops"),
        "x": Path("-x.txt"),
        "saved_v2": tmp_path / "saved.v2",
    }


def test_a_chosen_name_is_not_taken_by_another_file() -> None:
    assert read_members(["cnn.keras", "cnn=other.keras"]) == {"cnn_2": Path("cnn.keras"), "cnn": Path("other.keras")}


def test_a_file_with_a_sign_in_its_name_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "lr=0.1.onnx"
    path.touch()
    assert read_members([str(path)]) == {"lr_0_1": path}


def test_names_that_cannot_be_are_refused() -> None:
    with pytest.raises(InvalidModel, match=r"expected a member's name .* got 'my net'"):
        read_members(["my net=a.onnx"])
    with pytest.raises(InvalidModel, match="member 'a': expected each name once"):
        read_members(["a=1.onnx", "a=2.onnx"])


def test_adaptations_are_read_by_member() -> None:
    found = read_adaptations(["a", "b", "c"], ["a=1/255", "b=0.5,1,2"], ["b=-1"], ["c"])
    assert found["a"].scale == np.float32(1 / 255)
    assert found["a"].shift is None
    assert found["b"].scale is not None
    assert found["b"].scale.tolist() == [0.5, 1, 2]
    assert found["b"].shift == -1
    assert (found["c"].logits, found["a"].logits) == (True, False)
    assert read_adaptations(["a"], [], [], []) == {}


@pytest.mark.parametrize("text", ["a=", "a=x", "a=1/0", "a=inf", "a", "a=1,,2"])
def test_what_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(InvalidModel, match="--scale: expected NAME=NUMBER, such as cnn=1/255, got"):
        read_adaptations(["a"], [text], [], [])


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_member_that_is_not_there_is_told_of(place: int) -> None:
    options: list[list[str]] = [[], [], []]
    options[place] = ["d=1" if place < 2 else "d"]
    with pytest.raises(InvalidModel, match="expected a member, one of a, b; got 'd'"):
        read_adaptations(["a", "b"], *options)
