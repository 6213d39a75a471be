import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from server.codec import pictures
from server.codec.media import JPEG, PNG, WEBP
from server.codec.pictures import SCANS, PictureDecoder, sniff_picture
from server.errors import InvalidInput, TooLarge
from tests.server.codec.specs import refusal, refused

GREY = np.random.default_rng(5).integers(0, 256, (6, 4)).astype(np.uint8)
COLOURS = np.random.default_rng(6).integers(0, 256, (6, 4, 3)).astype(np.uint8)


def saved(picture: Image.Image, format_: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format_, **options)
    return buffer.getvalue()


def png(pixels: NDArray[Any], **options: Any) -> bytes:
    return saved(Image.fromarray(pixels), **options)


def decode(data: bytes, type_: str = PNG, shape: tuple[int, ...] = (6, 4)) -> NDArray[np.uint8]:
    """The one row, without its dimension."""
    row: NDArray[np.uint8] = PictureDecoder(shape, max_pixels=25_000_000).decode(data, type_)[0]
    assert row.shape == shape
    assert row.dtype == np.uint8
    return row


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def claiming(width: int, height: int) -> bytes:
    """A PNG whose header claims this size, with hardly any data."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(b"\0" * 100))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")


class TestAsItIs:
    def test_grey(self) -> None:
        np.testing.assert_array_equal(decode(png(GREY)), GREY)
        np.testing.assert_array_equal(decode(png(GREY), shape=(6, 4, 1))[..., 0], GREY)

    def test_colours(self) -> None:
        np.testing.assert_array_equal(decode(png(COLOURS), shape=(6, 4, 3)), COLOURS)

    def test_lossless_webp(self) -> None:
        for pixels, shape in ((GREY, (6, 4)), (COLOURS, (6, 4, 3))):
            data = saved(Image.fromarray(pixels), "WEBP", lossless=True)
            np.testing.assert_array_equal(decode(data, WEBP, shape), pixels)

    def test_jpeg_is_near(self) -> None:
        smooth = np.add.outer(np.arange(6), np.arange(4)).astype(np.uint8) * 20
        data = saved(Image.fromarray(smooth), "JPEG", quality=95)
        assert np.abs(decode(data, JPEG).astype(int) - smooth).max() <= 6


class TestMadeToFit:
    def test_grey_in_colours(self) -> None:
        np.testing.assert_array_equal(decode(png(GREY), shape=(6, 4, 3)), np.stack([GREY] * 3, axis=2))

    def test_colours_in_grey(self) -> None:
        luma = COLOURS @ np.array([0.299, 0.587, 0.114])
        assert np.abs(decode(png(COLOURS)) - luma).max() <= 1

    def test_palette(self) -> None:
        palette = Image.fromarray(COLOURS).quantize(24)
        np.testing.assert_array_equal(decode(saved(palette), shape=(6, 4, 3)), np.asarray(palette.convert("RGB")))

    def test_black_and_white(self) -> None:
        assert set(decode(saved(Image.fromarray(GREY > 100))).ravel().tolist()) == {0, 255}

    def test_16_bits(self) -> None:
        np.testing.assert_array_equal(decode(png(GREY.astype(np.uint16) * 257)), GREY)
        np.testing.assert_array_equal(decode(png(GREY.astype(np.uint16) * 256 + 255), shape=(6, 4, 3))[..., 1], GREY)

    def test_what_is_transparent_is_white(self) -> None:
        opaque = np.full((6, 4), 255, dtype=np.uint8)
        opaque[0] = 0
        expected = GREY.copy()
        expected[0] = 255
        grey = Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(opaque)])
        np.testing.assert_array_equal(decode(saved(grey)), expected)
        colours = Image.fromarray(np.dstack([COLOURS, opaque]))
        np.testing.assert_array_equal(decode(saved(colours), shape=(6, 4, 3))[0], np.full((4, 3), 255))
        np.testing.assert_array_equal(decode(saved(colours), shape=(6, 4, 3))[1:], COLOURS[1:])
        for picture in (Image.fromarray(GREY), Image.fromarray(GREY).convert("P")):
            value = int(GREY[2, 3])
            assert decode(saved(picture, transparency=value))[2, 3] == 255

    def test_half_transparent(self) -> None:
        half = np.dstack([np.zeros((6, 4, 3), dtype=np.uint8), np.full((6, 4), 128, dtype=np.uint8)])
        assert set(decode(png(half)).ravel().tolist()) == {127}

    def test_cmyk(self) -> None:
        data = saved(Image.new("CMYK", (4, 6), (0, 255, 255, 0)), "JPEG")
        red = decode(data, JPEG, (6, 4, 3))
        assert red[..., 0].min() > 245
        assert red[..., 1:].max() < 10

    def test_another_size(self) -> None:
        slope = np.add.outer(np.arange(48) * 3, np.arange(32) * 3)
        means = slope.reshape(6, 8, 4, 8).mean(axis=(1, 3))
        assert np.abs(decode(png(slope.astype(np.uint8))) - means)[1:-1, 1:-1].max() <= 1
        even = Image.new("L", (500, 3), 77)
        assert set(decode(saved(even)).ravel().tolist()) == {77}

    @pytest.mark.parametrize("orientation", range(10))
    @pytest.mark.parametrize("type_", [PNG, WEBP])
    def test_upright(self, orientation: int, type_: str) -> None:
        lying: dict[int, NDArray[np.uint8]] = {
            2: GREY[:, ::-1], 3: GREY[::-1, ::-1], 4: GREY[::-1], 5: GREY.T, 6: np.rot90(GREY),
            7: GREY[::-1, ::-1].T, 8: np.rot90(GREY, -1),
        }  # fmt: skip
        exif = Image.Exif()
        exif[0x0112] = orientation
        picture = Image.fromarray(np.ascontiguousarray(lying.get(orientation, GREY)))
        data = saved(picture, "PNG", exif=exif) if type_ == PNG else saved(picture, "WEBP", exif=exif, lossless=True)
        np.testing.assert_array_equal(decode(data, type_), GREY)


class TestRefused:
    @pytest.mark.parametrize("type_", [PNG, JPEG, WEBP])
    def test_another_type_than_it_says(self, type_: str) -> None:
        data = {PNG: saved(Image.new("L", (4, 6)), "JPEG"), JPEG: png(GREY), WEBP: png(GREY)}[type_]
        for body in (data, b"", b"GIF89a", saved(Image.new("L", (4, 6)), "GIF"), saved(Image.new("L", (4, 6)), "BMP")):
            said = refusal(lambda body=body: decode(body, type_))  # type: ignore[misc]
            assert said == f"picture: expected {type_}; got bytes that do not begin like it"

    @pytest.mark.parametrize("format_", ["PNG", "JPEG", "WEBP"])
    def test_cut_short(self, format_: str) -> None:
        data = saved(Image.fromarray(np.tile(COLOURS, (20, 20, 1))), format_)
        type_ = sniff_picture(data) or ""
        for size in (12, 30, len(data) // 2):
            said = refusal(lambda size=size: decode(data[:size], type_))  # type: ignore[misc]
            assert said.startswith(f"picture: expected {type_}; got one that cannot be read: ")

    @pytest.mark.parametrize(("format_", "type_"), [("PNG", PNG), ("WEBP", WEBP)])
    def test_animated(self, format_: str, type_: str) -> None:
        frames = [Image.new("RGB", (4, 6), colour) for colour in ("red", "blue", "green")]
        data = saved(frames[0], format_, save_all=True, append_images=frames[1:])
        assert (
            refusal(lambda: decode(data, type_)) == "picture: expected a picture that stands still; got an animated one"
        )

    def test_many_pixels_are_not_decoded(self) -> None:
        said = refusal(lambda: decode(claiming(10_000, 10_000)), TooLarge)
        assert said == "picture: expected at most 25000000 pixels (max_pixels); got 100000000"
        said = refusal(lambda: decode(claiming(12_500_000, 2)), TooLarge)
        assert said == "picture: expected sides of at most 16384 pixels; got 12500000 by 2"
        refusal(lambda: decode(claiming(2**31 - 1, 2**31 - 1)), TooLarge)
        assert "cannot be read" in refusal(lambda: decode(claiming(5000, 4000)))

    def test_many_pixels_of_webp(self) -> None:
        size = (16383 - 1).to_bytes(3, "little")
        frame = saved(Image.new("RGB", (4, 6)), "WEBP")[12:]
        payload = b"WEBPVP8X" + struct.pack("<I", 10) + b"\0\0\0\0" + size + size + frame
        data = b"RIFF" + struct.pack("<I", len(payload)) + payload
        with pytest.raises(InvalidInput):
            decode(data, WEBP)

    def test_a_pixel_of_a_webp_counts_twice(self) -> None:
        decoder = PictureDecoder((6, 4), max_pixels=48)
        decoder.decode(saved(Image.new("L", (4, 6)), "WEBP"), WEBP)
        said = refusal(lambda: decoder.decode(saved(Image.new("L", (5, 5)), "WEBP"), WEBP), TooLarge)
        assert said == "picture: expected at most 24 pixels (half of max_pixels); got 25"
        decoder.decode(png(GREY), PNG)
        refusal(lambda: decoder.decode(saved(Image.new("L", (4, 6)), "WEBP"), WEBP), TooLarge)

    def test_many_pixels_in_all(self) -> None:
        decoder = PictureDecoder((6, 4), max_pixels=30)
        decoder.decode(png(GREY), PNG)
        decoder.decode(png(GREY[:2]), PNG)  # 8 pixels become 24
        said = refusal(lambda: decoder.decode(png(GREY[:2]), PNG), TooLarge)
        assert said == "pictures: expected at most 60 pixels together (twice max_pixels); got more"

    def test_many_scans(self) -> None:
        data = saved(Image.new("RGB", (64, 64)), "JPEG", progressive=True)
        decode(data, JPEG)
        last = data[data.rfind(b"\xff\xda") : -2]
        said = refusal(lambda: decode(data[:-2] + last * 1000 + b"\xff\xd9", JPEG), TooLarge)
        assert said.startswith(f"picture: expected a JPEG of at most {SCANS} scans; got one of 10")

    def test_what_pillow_only_warns_of(self) -> None:
        exif = b"Exif\0\0II*\0\x08\0\0\0\xff\0" + b"\x12\1\2\0\xff\0\0\0\xff\xff\xff\0" * 3
        data = saved(Image.fromarray(GREY), "JPEG")
        corrupt = data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:]
        assert "cannot be read" in refusal(lambda: decode(corrupt, JPEG))

    def test_no_room(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*_: Any) -> None:
            raise MemoryError

        monkeypatch.setattr(pictures, "_eight_bits", fail)
        assert "pixels (max_pixels); got more" in refusal(lambda: decode(png(GREY)), TooLarge)


@settings(deadline=None)
@given(st.sampled_from(["PNG", "JPEG", "WEBP"]), st.data())
def test_whatever_comes_is_read_or_refused(format_: str, data: st.DataObject) -> None:
    whole = bytearray(saved(Image.fromarray(COLOURS), format_))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    type_ = {"PNG": PNG, "JPEG": JPEG, "WEBP": WEBP}[format_]
    message = refused(lambda: decode(bytes(whole), type_)) or ""
    assert len(message) < 250
    assert "0x" not in message
