"""Pictures from a folder that has a subfolder a class: `cats/1.png`, `dogs/7.jpg`.

Pixels are taken as the file stores them, 0 to 255, as Keras, TensorFlow and torchvision take them: no turning by EXIF,
and transparency is dropped. Pictures are not resized: a model saw its pictures resized in its own way, or not at all.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from export.errors import InvalidData
from export.samples import Samples
from server.manifest import InputSpec

FORMATS = ("PNG", "JPEG", "WEBP")
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp"})
GREY = frozenset({"1", "L", "LA"})
COLOUR = frozenset({"P", "PA", "RGB", "RGBA"})
"""Pillow's modes of 8 bits; others hold what 0 to 255 cannot say."""


@dataclass(frozen=True, slots=True)
class Picture:
    path: Path
    pixels: NDArray[np.uint8]
    """`(height, width)`, or `(height, width, 3)`."""


def read_images(folder: Path) -> Samples:
    """Rows `(n, height, width, channels)` float32: one channel if all pictures are grey, else red, green and blue.

    Classes are the subfolders' names, sorted as text, as Keras and torchvision sort them. Files and folders whose names
    start with a dot are passed over. Raises InvalidData.
    """
    classes = sorted(path.name for path in _visible(folder) if path.is_dir())
    if stray := [path for path in _visible(folder) if path.is_file()]:
        raise InvalidData(f"{stray[0]}: expected a folder with a subfolder of pictures a class, got a file beside them")
    pictures, y = [], []
    for index, name in enumerate(classes):
        for path in _visible(folder / name):
            pictures.append(_read(path))
            y.append(index)
    _check_sizes(pictures)
    rows = _stacked(pictures)
    spec = InputSpec(name="image", shape=list(rows.shape[1:]), low=0.0, high=255.0)
    return Samples([spec], rows, np.array(y, dtype=np.int64), classes, f"{folder}: the subfolders")


def _visible(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.iterdir()) if not path.name.startswith("."))


def _read(path: Path) -> Picture:
    if path.suffix.lower() not in SUFFIXES or not path.is_file():
        raise InvalidData(f"{path}: expected a picture, {', '.join(sorted(SUFFIXES))}")
    try:
        with Image.open(path, formats=FORMATS) as image:
            mode = image.mode
            if mode not in GREY | COLOUR:
                raise InvalidData(f"{path}: expected grey or RGB of 8 bits, got mode {mode} of Pillow")
            pixels: NDArray[Any] = np.asarray(image.convert("L" if mode in GREY else "RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as exc:  # of Pillow, by what is broken
        raise InvalidData(f"{path}: cannot be read as a picture: {exc}") from exc
    return Picture(path, pixels)


def _check_sizes(pictures: list[Picture]) -> None:
    for picture in pictures:
        if picture.pixels.shape[:2] != pictures[0].pixels.shape[:2]:
            raise InvalidData(
                f"{picture.path}: expected pictures of one size, got {_size(picture)}, and {_size(pictures[0])} in "
                f"{pictures[0].path}; resize them the way your training did"
            )


def _size(picture: Picture) -> str:
    height, width = picture.pixels.shape[:2]
    return f"{width}x{height}"


def _stacked(pictures: list[Picture]) -> NDArray[np.float32]:
    if not pictures:
        return np.empty((0, 1, 1, 1), dtype=np.float32)
    colour = any(picture.pixels.ndim == 3 for picture in pictures)
    arrays = [
        np.repeat(p.pixels[..., None], 3 if colour else 1, axis=2) if p.pixels.ndim == 2 else p.pixels for p in pictures
    ]
    return np.stack(arrays).astype(np.float32)
