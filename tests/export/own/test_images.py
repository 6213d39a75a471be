from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from export.errors import InvalidData
from export.own.images import read_images
from server.manifest import InputSpec


def _save(path: Path, mode: str = "L", size: tuple[int, int] = (3, 2), colour: int | tuple[int, ...] = 7) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path, lossless=True)


def _refusal(folder: Path) -> str:
    with pytest.raises(InvalidData) as caught:
        read_images(folder)
    assert "\n" not in caught.value.message
    return caught.value.message


def test_grey_pictures_have_one_channel(tmp_path: Path) -> None:
    _save(tmp_path / "b" / "1.png", colour=255)
    _save(tmp_path / "a" / "1.JPG", colour=0)
    _save(tmp_path / "a" / "2.png", mode="1", colour=1)
    _save(tmp_path / "a" / "3.png", mode="LA", colour=(9, 0))
    (tmp_path / ".DS_Store").touch()
    (tmp_path / "a" / ".DS_Store").touch()
    samples = read_images(tmp_path)
    assert samples.inputs == [InputSpec(name="image", shape=[2, 3, 1], low=0.0, high=255.0)]
    assert samples.x.dtype == np.float32
    assert samples.x[:, 0, 0, 0].tolist() == [0, 255, 9, 255]
    assert samples.y.tolist() == [0, 0, 0, 1]
    assert samples.classes == ["a", "b"]


def test_one_in_colour_makes_all_red_green_blue(tmp_path: Path) -> None:
    _save(tmp_path / "a" / "1.webp", mode="RGB", colour=(1, 2, 3))
    _save(tmp_path / "a" / "2.png", mode="RGBA", colour=(4, 5, 6, 0))
    _save(tmp_path / "b" / "1.png", colour=7)
    samples = read_images(tmp_path)
    assert samples.inputs[0].shape == [2, 3, 3]
    assert samples.x[:, 0, 0].tolist() == [[1, 2, 3], [4, 5, 6], [7, 7, 7]]


def test_classes_are_sorted_as_text_like_keras_sorts_them(tmp_path: Path) -> None:
    for name in ("9", "10", "B", "a"):
        _save(tmp_path / name / "1.png")
    assert read_images(tmp_path).classes == ["10", "9", "B", "a"]


def test_pictures_of_several_sizes_are_refused(tmp_path: Path) -> None:
    _save(tmp_path / "a" / "1.png")
    _save(tmp_path / "b" / "1.png", size=(4, 2))
    message = _refusal(tmp_path)
    assert message.startswith(f"{tmp_path / 'b' / '1.png'}: expected pictures of one size, got 4x2, and 3x2 in ")


def test_what_is_no_picture_is_refused(tmp_path: Path) -> None:
    for name in ("notes.txt", "folder.png"):
        folder = tmp_path / name
        (folder / "a").mkdir(parents=True)
        stray = folder / "a" / name
        stray.mkdir() if name == "folder.png" else stray.touch()
        assert _refusal(folder) == f"{stray}: expected a picture, .jpeg, .jpg, .png, .webp"


def test_a_picture_beside_the_subfolders_is_refused(tmp_path: Path) -> None:
    _save(tmp_path / "1.png")
    assert _refusal(tmp_path).startswith(
        f"{tmp_path / '1.png'}: expected a folder with a subfolder of pictures a class"
    )


def test_broken_and_foreign_pictures_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a" / "1.png"
    _save(path, size=(64, 64))
    whole = path.read_bytes()
    for data in (b"", b"GIF89a", whole[:40], whole[:50] + b"\xff" * 40):
        path.write_bytes(data)
        assert _refusal(tmp_path).startswith(f"{path}: cannot be read as a picture: ")


def test_pixels_of_more_than_8_bits_are_refused(tmp_path: Path) -> None:
    _save(tmp_path / "a" / "1.png", mode="I;16", colour=60_000)
    assert "expected grey or RGB of 8 bits, got mode I;16" in _refusal(tmp_path)


def test_a_folder_without_pictures_has_no_samples(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    samples = read_images(tmp_path)
    assert (len(samples.x), samples.classes) == (0, ["a"])
