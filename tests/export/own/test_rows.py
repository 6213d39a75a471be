from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from export.errors import InvalidData, Mismatch
from export.own.rows import OwnRows, fit_rows, read_own_rows
from server.manifest import InputSpec, Manifest
from tests import tiny

X = tiny.rows(5)
TARGETS = ["width", "height"]


def _manifest(**changes: Any) -> Manifest:
    return Manifest.model_validate({**tiny.manifest(1), "files": [_file()], **changes})


def _regression(targets: list[str]) -> Manifest:
    return Manifest.model_validate({**tiny.regression_manifest(1, targets=targets), "files": [_file()]})


def _file() -> dict[str, Any]:
    return {"name": "m1.onnx", "sha256": "0" * 64, "bytes": 1}


def _npz(tmp_path: Path, **arrays: Any) -> Path:
    path = tmp_path / "t.npz"
    np.savez(path, **arrays)
    return path


def _csv(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "t.csv"
    path.write_text(text)
    return path


def _y(path: Path, manifest: Manifest, target: str | None = None) -> list[Any]:
    y = fit_rows(read_own_rows(path, manifest, target=target), manifest, where="m/1").y
    found: list[Any] = y.tolist()
    return found


def _refusal(path: Path, manifest: Manifest, target: str | None = None) -> str:
    with pytest.raises((InvalidData, Mismatch)) as caught:
        _y(path, manifest, target)
    assert "\n" not in caught.value.message
    return caught.value.message.removeprefix(f"{path}: ")


# ---- Labels ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "labels",
    [["blue", "red", "blue", "green", "red"], [2, 0, 2, 1, 0], [2.0, 0.0, 2.0, 1.0, 0.0], ["2", "0", "2", "1", "0"]],
)
def test_labels_are_names_or_count_the_classes(tmp_path: Path, labels: list[Any]) -> None:
    assert _y(_npz(tmp_path, x=X, y=np.array(labels)), _manifest()) == [2, 0, 2, 1, 0]


def test_not_every_class_need_be_there(tmp_path: Path) -> None:
    assert _y(_npz(tmp_path, x=X, y=np.array(["blue"] * 5)), _manifest()) == [2] * 5
    assert _y(_npz(tmp_path, x=X, y=np.array([1] * 5)), _manifest()) == [1] * 5


def test_classes_that_the_file_names_are_matched_by_name(tmp_path: Path) -> None:
    path = _npz(tmp_path, x=X, y=np.array([0, 1, 2, 0, 0]), classes=np.array(["blue", "green", "red"]))
    assert _y(path, _manifest()) == [2, 1, 0, 2, 2]


def test_numbers_that_are_names_are_names(tmp_path: Path) -> None:
    path = _npz(tmp_path, x=X, y=np.array([1, 2, 3, 3, 1]))
    assert _y(path, _manifest(classes=["3", "2", "1"])) == [2, 1, 0, 0, 2]


@pytest.mark.parametrize(
    ("labels", "got"),
    [(["red", "pink"], "'pink'"), ([0, 3], "'3'"), (["red", "0"], "'0'"), ([-1, 0], "'-1'"), ([0.5, 0], "'0.5'")],
)
def test_other_labels_are_refused(tmp_path: Path, labels: list[Any], got: str) -> None:
    path = _npz(tmp_path, x=X[:2], y=np.array(labels))
    assert _refusal(path, _manifest()) == (
        f"the labels: expected classes of m/1 (red, green, blue), or 0 to 2; got {got}"
    )


def test_a_table_is_all_rows(tmp_path: Path) -> None:
    path = _csv(tmp_path, "a,b,c,d,colour\n1,2,3,4,red\n5,6,7,8,blue\n")
    own = read_own_rows(path, _manifest())
    fitted = fit_rows(own, _manifest(), where="m/1")
    np.testing.assert_array_equal(fitted.x, [[1, 2, 3, 4], [5, 6, 7, 8]])
    assert fitted.y.tolist() == [0, 2]


def test_a_folder_is_all_its_pictures(tmp_path: Path) -> None:
    manifest = _manifest(inputs=[{"name": "image", "shape": [2, 2, 1], "low": 0.0, "high": 255.0}])
    for name, grey in (("blue", 9), ("red", 200)):
        (tmp_path / name).mkdir()
        Image.new("L", (2, 2), grey).save(tmp_path / name / "1.png")
    own = read_own_rows(tmp_path, manifest)
    fitted = fit_rows(own, manifest, where="m/1")
    assert fitted.y.tolist() == [2, 0]
    assert fitted.x[:, 0, 0, 0].tolist() == [9, 200]
    assert _refusal(tmp_path, manifest, "y") == (
        "expected no target for a folder, whose subfolders are the classes; got 'y'"
    )


def test_what_holds_no_rows_is_refused(tmp_path: Path) -> None:
    (tmp_path / "red").mkdir()
    assert _refusal(tmp_path, _manifest()) == "the subfolders: expected at least one row, got none"
    other = tmp_path / "t.txt"
    assert _refusal(other, _manifest()) == "expected a .csv, an .npz, or a folder with a subfolder of pictures a class"


# ---- Numbers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(5,), (5, 1)])
def test_targets_of_an_array_are_numbers_as_they_are(tmp_path: Path, shape: tuple[int, ...]) -> None:
    y = np.array([0.1, -2, 3e9, 0.1, 5])
    path = _npz(tmp_path, x=X, y=y.reshape(shape))
    assert _y(path, _regression(["price"])) == y[:, None].tolist()


def test_several_targets_are_columns_of_the_array(tmp_path: Path) -> None:
    y = np.arange(10).reshape(5, 2)
    own = read_own_rows(_npz(tmp_path, x=X, truth=y), _regression(TARGETS), target="truth")
    assert own.y.dtype == np.float64
    np.testing.assert_array_equal(own.y, y)
    np.testing.assert_array_equal(own.x, X)


@pytest.mark.parametrize(
    ("y", "targets", "message"),
    [
        (np.zeros(4), ["price"], "the targets: expected shape (5,) or (5, 1), price of each row of x; got (4,)"),
        (np.zeros(5), TARGETS, "the targets: expected shape (5, 2), width, height of each row of x; got (5,)"),
        (np.array(["a"] * 5), ["price"], "the targets: expected finite numbers, got <U1"),
        (np.array([0, np.nan, 0, 0, 0]), ["price"], "the targets: expected finite numbers, got nan at [1]"),
    ],
)
def test_other_targets_of_an_array_are_refused(tmp_path: Path, y: Any, targets: list[str], message: str) -> None:
    assert _refusal(_npz(tmp_path, x=X, y=y), _regression(targets)) == message


TABLE = "width,a,height,b,c,d\n1.5,1,10,2,3,4\n-2,5,1e3,6,7,8\n"


def test_targets_of_a_table_are_columns_of_their_names(tmp_path: Path) -> None:
    path = _csv(tmp_path, TABLE)
    own = read_own_rows(path, _regression(TARGETS))
    assert own.y.tolist() == [[1.5, 10], [-2, 1000]]
    assert [spec.name for spec in own.inputs] == ["a", "b", "c", "d"]
    assert read_own_rows(path, _regression(TARGETS), target="height,width").y.tolist() == [[10, 1.5], [1000, -2]]
    assert read_own_rows(path, _regression(["width"])).y.tolist() == [[1.5], [-2]]


def test_the_one_target_of_a_table_may_be_called_otherwise(tmp_path: Path) -> None:
    path = _csv(tmp_path, TABLE)
    assert read_own_rows(path, _regression(["price"])).y.tolist() == [[4], [8]]
    assert read_own_rows(path, _regression(["price"]), target="height").y.tolist() == [[10], [1000]]


def test_other_targets_of_a_table_are_refused(tmp_path: Path) -> None:
    path = _csv(tmp_path, "a,price\n1,cheap\n")
    assert _refusal(path, _regression(["price"])) == "column 'price', the labels: expected numbers, got 'cheap'"
    assert _refusal(path, _regression(TARGETS), "price") == (
        "expected 2 columns as target, for width, height; got 'price'"
    )
    assert _refusal(tmp_path / "none.csv", _regression(["price"])) == "cannot be read: No such file or directory"
    assert _refusal(tmp_path, _regression(["price"])) == (
        "expected a .csv or an .npz, for the ensemble predicts numbers; got something else"
    )


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"no zip", "expected the .npz of np.savez, got what is no zip archive"),
        (None, "cannot be read: No such file or directory"),
    ],
)
def test_what_is_no_npz_is_refused(tmp_path: Path, data: bytes | None, message: str) -> None:
    path = tmp_path / "t.npz"
    if data is not None:
        path.write_bytes(data)
    assert _refusal(path, _regression(["price"])) == message


def test_rows_know_where_they_come_from() -> None:
    own = OwnRows(Path("t.npz"), [InputSpec(name="x", shape=[3])], X[:, :3], np.zeros(5, dtype=np.int64), ["red"], "t")
    with pytest.raises(Mismatch, match=r"t\.npz: expected rows of shape \[4\], input 'X' of m/1; got \[3\]"):
        fit_rows(own, _manifest(), where="m/1")
