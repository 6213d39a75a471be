from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from export.errors import InvalidData
from export.own.arrays import read_arrays
from server.manifest import InputSpec

X = np.arange(12, dtype=np.float64).reshape(4, 3)


def _write(tmp_path: Path, **arrays: Any) -> Path:
    path = tmp_path / "own.npz"
    np.savez(path, **arrays)
    return path


def _refusal(path: Path, target: str | None = None) -> str:
    with pytest.raises(InvalidData) as caught:
        read_arrays(path, target)
    assert "\n" not in caught.value.message
    return caught.value.message.removeprefix(f"{path}: ")


def test_rows_are_float32_and_labels_indices(tmp_path: Path) -> None:
    samples = read_arrays(_write(tmp_path, x=X, y=np.array([10, 9, 9, 10])), None)
    assert samples.x.dtype == np.float32
    np.testing.assert_array_equal(samples.x, X)
    assert samples.inputs == [InputSpec(name="x", shape=[3])]
    assert samples.classes == ["9", "10"]
    assert samples.y.tolist() == [1, 0, 0, 1]
    assert samples.y.dtype == np.int64


@pytest.mark.parametrize(
    ("y", "classes"),
    [
        (np.array(["b", "a", "b", "a"]), ["a", "b"]),
        (np.array([1.0, 0.0, 1.0, 0.0]), ["0", "1"]),
        (np.array([1.5, 0.5, 1.5, 0.5]), ["0.5", "1.5"]),
        (np.array([True, False, True, False]), ["False", "True"]),
        (np.array([1, -1, 1, -1], dtype=np.int8), ["-1", "1"]),
    ],
)
def test_labels_may_be_numbers_or_text(tmp_path: Path, y: NDArray[Any], classes: list[str]) -> None:
    samples = read_arrays(_write(tmp_path, X=X, labels=y), None)
    assert samples.classes == classes
    assert samples.y.tolist() == [1, 0, 1, 0]


def test_bytes_are_pixels(tmp_path: Path) -> None:
    pixels = np.zeros((4, 2, 2, 3), dtype=np.uint8)
    samples = read_arrays(_write(tmp_path, x=pixels, target=[0, 1, 0, 1]), None)
    assert samples.inputs == [InputSpec(name="image", shape=[2, 2, 3], low=0.0, high=255.0)]


def test_nan_is_a_missing_value(tmp_path: Path) -> None:
    x = X.copy()
    x[1, 1] = np.nan
    samples = read_arrays(_write(tmp_path, x=x, y=[0, 1, 0, 1]), None)
    assert samples.inputs[0].missing
    assert np.isnan(samples.x[1, 1])


@pytest.mark.parametrize(
    ("y", "classes", "expected"),
    [
        ([0, 2, 1, 0], np.array(["cat", "dog", "bird"]), [0, 2, 1, 0]),  # integers count from 0
        (np.array(["dog", "cat", "dog", "bird"]), np.array(["cat", "dog", "bird"]), [1, 0, 1, 2]),
        ([3, 1, 2, 3], np.array([1, 2, 3]), [2, 0, 1, 2]),  # names among the classes, though integers
    ],
)
def test_classes_give_names_in_the_models_order(
    tmp_path: Path, y: list[int], classes: NDArray[Any], expected: list[int]
) -> None:
    samples = read_arrays(_write(tmp_path, x=X, y=y, classes=classes), None)
    assert samples.classes == [str(name) for name in classes]
    assert samples.y.tolist() == expected


def test_the_target_may_be_named(tmp_path: Path) -> None:
    path = _write(tmp_path, x=X, y=[0, 0, 0, 1], other=[1, 0, 1, 0])
    assert read_arrays(path, "other").y.tolist() == [1, 0, 1, 0]
    assert _refusal(path, "third") == "expected one array named third, got x, y, other"


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"y": [0, 1]}, "expected one array named x or X, got y"),
        ({"x": X}, "expected one array named y or labels or target, got x"),
        ({"x": X, "y": [0, 1, 0, 1], "labels": [0, 1, 0, 1]}, "expected one array named y or labels or target, got x,"),
        ({"x": X[:, 0], "y": [0, 1, 0, 1]}, "x: expected shape (n, …), a row a sample, none empty; got (4,)"),
        ({"x": X[:0], "y": []}, "x: expected shape (n, …), a row a sample, none empty; got (0, 3)"),
        ({"x": X.astype(str), "y": [0, 1, 0, 1]}, "x: expected numbers, got <U32; text belongs in a .csv"),
        ({"x": X * 1e38, "y": [0, 1, 0, 1]}, "x: expected numbers that float32 holds, got 4e+38 at [1, 1]"),
        ({"x": X, "y": [0, 1, 0]}, "the labels: expected shape (4,), a label for each row of x; got (3,)"),
        ({"x": X, "y": np.eye(4)}, "the labels: expected shape (4,), a label for each row of x; got (4, 4)"),
        ({"x": X, "y": [0, 1, 0, np.nan]}, "the labels: expected one dimension of numbers or text, got float64 (4,)"),
        ({"x": X, "y": [0, 1, 0, 1j]}, "the labels: expected one dimension of numbers or text, got complex128 (4,)"),
        (
            {"x": X, "y": [0, 1, 0, 2], "classes": ["a", "b"]},
            "the labels: expected names among classes, or 0 to 1; got",
        ),
        ({"x": X, "y": [0, 1, 0, 1], "classes": ["a", "a"]}, "the labels: expected each class once in classes, got"),
    ],
)
def test_other_arrays_are_refused(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    assert _refusal(_write(tmp_path, **arrays)).startswith(message)


def test_no_pickle_is_read(tmp_path: Path) -> None:
    for arrays in ({"x": X, "y": np.array(["a", "b", "a", None])}, {"x": X.astype(object), "y": [0, 1, 0, 1]}):
        assert "expected numbers or text, got: Object arrays cannot be loaded" in _refusal(_write(tmp_path, **arrays))


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04 and no more", b"\x80\x04N.", b"\x93NUMPY"])
def test_what_is_no_npz_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "own.npz"
    path.write_bytes(data)
    assert _refusal(path).startswith("expected the .npz of np.savez, got what is no zip archive")


def test_a_lone_array_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "own.npz"
    with path.open("wb") as file:
        np.save(file, X)
    assert _refusal(path).startswith("expected the .npz of np.savez, got what is no zip archive")


def test_a_broken_member_is_refused(tmp_path: Path) -> None:
    path = _write(tmp_path, x=X, y=[0, 1, 0, 1])
    data = bytearray(path.read_bytes())
    data[200] ^= 0xFF
    path.write_bytes(bytes(data))
    assert "Bad CRC-32" in _refusal(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    assert _refusal(tmp_path / "none.npz") == "cannot be read: No such file or directory"
