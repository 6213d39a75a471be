"""Pictures to rows: PNG, JPEG and WebP, decoded by Pillow, as raw values from 0 to 255.

Whatever the picture holds, it becomes 8 bits a channel, upright (EXIF), of the input's height and width (LANCZOS, each
side on its own), what is transparent on white, grey (ITU-R 601 luma) or RGB as the input has one channel or three. A
picture that is already so is taken as it is, to the bit.
"""

import io
import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from server.codec.media import JPEG, PNG, WEBP
from server.errors import InvalidInput, TooLarge, first_line

SIDE = 16_384
"""Pixels of a side: what is a few pixels high and millions wide costs more than its pixels tell."""
WEBP_WEIGHT = 2
"""What a pixel of a WebP counts: its decoder holds each of them four times, which is twice as much as others need."""
SCANS = 50
"""Of a progressive JPEG, which seldom has a dozen: each costs a pass over the whole picture and need not hold much."""

# Each format's own class, not Image.open: no other format is ever tried, and nothing is decoded before it is asked for.
_FORMATS: dict[str, type[ImageFile]] = {PNG: PngImageFile, JPEG: JpegImageFile, WEBP: WebPImageFile}
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""By EXIF orientation: what sets a picture upright."""
_ORIENTATION = 0x0112


def sniff_picture(data: bytes) -> str | None:
    """The media type of a picture, by its first bytes."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return PNG
    if data.startswith(b"\xff\xd8\xff"):
        return JPEG
    return WEBP if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else None


class PictureDecoder:
    """Decodes the pictures of one request for an input of this shape: `[height, width]`, or with 1 or 3 channels.

    Of `max_pixels` each, a WebP half of it, and twice that together, as they come or as they become, whichever is more:
    a few bytes can stand for many pixels. Only one thread of a process may decode at a time: Python's warnings, which
    here are errors, are the process's.
    """

    def __init__(self, shape: Sequence[int], *, max_pixels: int) -> None:
        self._shape = tuple(shape)
        self._mode = "RGB" if self._shape[2:] == (3,) else "L"
        self._most = max_pixels
        self._pixels_left = 2 * max_pixels

    def decode(self, data: bytes, type_: str) -> NDArray[np.uint8]:
        """One row, `(1, *shape)`, from a picture of this media type and no other.

        Raises InvalidInput for what is none, is cut short, or is animated, and TooLarge for too many pixels.
        """
        if sniff_picture(data) != type_:
            raise InvalidInput(f"picture: expected {type_}; got bytes that do not begin like it")
        if type_ == JPEG and (scans := data.count(b"\xff\xda")) > SCANS:
            raise TooLarge(f"picture: expected a JPEG of at most {SCANS} scans; got one of {scans}")
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("error", module=r"PIL\.")
                return self._render(_FORMATS[type_](io.BytesIO(data)))
        except InvalidInput:
            raise
        except (MemoryError, Image.DecompressionBombError) as exc:
            raise TooLarge(f"picture: expected at most {self._most} pixels (max_pixels); got more") from exc
        except Exception as exc:  # Pillow raises a dozen kinds over bytes that are no picture
            reason = first_line(exc)[:100]
            raise InvalidInput(f"picture: expected {type_}; got one that cannot be read: {reason}") from exc

    def _render(self, picture: ImageFile) -> NDArray[np.uint8]:
        self._count(*picture.size, weight=WEBP_WEIGHT if isinstance(picture, WebPImageFile) else 1)
        if getattr(picture, "is_animated", False):
            raise InvalidInput("picture: expected a picture that stands still; got an animated one")
        upright = _eight_bits(picture)
        turn = _TURNS.get(picture.getexif().get(_ORIENTATION, 1))
        if turn is not None:  # one of them is 0
            upright = upright.transpose(turn)
        size = self._shape[1], self._shape[0]
        fitted = upright if upright.size == size else upright.resize(size, Image.Resampling.LANCZOS)
        return np.asarray(_opaque(fitted).convert(self._mode)).reshape(1, *self._shape)

    def _count(self, width: int, height: int, *, weight: int) -> None:
        """Before anything is decoded: these are the header's."""
        if max(width, height) > SIDE:
            raise TooLarge(f"picture: expected sides of at most {SIDE} pixels; got {width} by {height}")
        pixels = width * height
        if pixels * weight > self._most:
            half = "half of " if weight == WEBP_WEIGHT else ""
            raise TooLarge(f"picture: expected at most {self._most // weight} pixels ({half}max_pixels); got {pixels}")
        self._pixels_left -= max(pixels * weight, self._shape[0] * self._shape[1])
        if self._pixels_left < 0:
            raise TooLarge(f"pictures: expected at most {2 * self._most} pixels together (twice max_pixels); got more")


def _eight_bits(picture: Image.Image) -> Image.Image:
    """In mode L, LA, RGB or RGBA."""
    if picture.mode.startswith("I;16"):
        # The high byte of each, as Pillow itself takes it of colours of 16 bits.
        picture.load()
        return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    if picture.has_transparency_data:
        mode = "LA" if picture.mode in ("1", "L", "LA") else "RGBA"
    else:
        mode = "L" if picture.mode in ("1", "L") else "RGB"
    return picture if picture.mode == mode else picture.convert(mode)  # which would copy it even so


def _opaque(picture: Image.Image) -> Image.Image:
    if picture.mode not in ("LA", "RGBA"):
        return picture
    colours = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", colours.size, "white"), colours)
