"""Images as strangers send them: right pixels, or a fault in words; never a traceback, a gigabyte or a program started."""

from __future__ import annotations

import io
import resource
import struct
import subprocess
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from modelyard.errors import VolumeFailed
from modelyard_jobs import pixels

SIZE = (6, 4)
"""Width and height."""


def colours() -> Image.Image:
    """Red, green, blue and gray quarters, by which turns and mirrors can be told apart."""
    image = Image.new("RGB", SIZE, (200, 0, 0))
    image.paste((0, 200, 0), (3, 0, 6, 2))
    image.paste((0, 0, 200), (0, 2, 3, 4))
    image.paste((100, 100, 100), (3, 2, 6, 4))
    return image


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def noise(kind: str, mode: str = "RGB") -> bytes:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)).convert(mode)
    return encoded(image, kind)


def opened(value: Any) -> Image.Image:
    found = pixels.opened(value)
    assert not isinstance(found, str), found
    assert found.mode in {"RGB", "L"}
    return found


def why(value: Any) -> str:
    found = pixels.opened(value)
    assert isinstance(found, str)
    return found


def png(width: int, height: int, body: bytes = b"") -> bytes:
    """A PNG that says of itself that it is so large."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_plain_pixels_come_as_they_are(kind: str) -> None:
    np.testing.assert_array_equal(np.asarray(opened(encoded(colours(), kind))), np.asarray(colours()))


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_lossy_formats_come_near(kind: str) -> None:
    smooth = colours().resize((96, 64), Image.Resampling.BICUBIC)
    assert np.abs(np.asarray(opened(encoded(smooth, kind, quality=95))).astype(int) - np.asarray(smooth)).mean() < 6


@pytest.mark.parametrize("way", ["bytes alone", "bytes of a struct", "a file"])
def test_an_image_is_bytes_or_a_file(way: str, tmp_path: Path) -> None:
    content = encoded(colours())
    (tmp_path / "a.png").write_bytes(content)
    value: Any = {
        "bytes alone": content,
        "bytes of a struct": {"bytes": content, "path": "gone.png", "file": None, "sha256": None},
        "a file": {"bytes": None, "path": "a.png", "file": str(tmp_path / "a.png"), "sha256": "00"},
    }[way]
    assert opened(value).size == SIZE
    assert pixels.fault(value) is None


@pytest.mark.parametrize("turn", range(1, 9))
def test_the_camera_was_held_otherwise(turn: int) -> None:
    """EXIF's eight orientations: the picture is stored in a turned and mirrored way, and is seen upright."""
    stored = {
        1: colours(),
        2: colours().transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: colours().transpose(Image.Transpose.ROTATE_180),
        4: colours().transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: colours().transpose(Image.Transpose.TRANSPOSE),
        6: colours().transpose(Image.Transpose.ROTATE_90),
        7: colours().transpose(Image.Transpose.TRANSVERSE),
        8: colours().transpose(Image.Transpose.ROTATE_270),
    }[turn]
    exif = Image.Exif()
    exif[0x0112] = turn
    np.testing.assert_array_equal(np.asarray(opened(encoded(stored, exif=exif))), np.asarray(colours()))


def test_a_palette_is_its_colours() -> None:
    np.testing.assert_array_equal(np.asarray(opened(encoded(colours().quantize(8)))), np.asarray(colours()))


def test_what_is_transparent_is_white() -> None:
    clear = colours().convert("RGBA")
    clear.putpixel((0, 0), (200, 0, 0, 0))
    clear.putpixel((1, 0), (200, 0, 0, 128))
    found = opened(encoded(clear))
    assert found.getpixel((0, 0)) == (255, 255, 255)
    assert found.getpixel((1, 0)) == (227, 127, 127)
    assert found.getpixel((2, 0)) == (200, 0, 0)
    gray = Image.new("LA", SIZE, (10, 0))
    assert opened(encoded(gray)).getpixel((0, 0)) == (255, 255, 255)
    paletted = colours().quantize(8)
    paletted.info["transparency"] = paletted.getpixel((0, 0))
    assert opened(encoded(paletted, transparency=paletted.getpixel((0, 0)))).getpixel((0, 0)) == (255, 255, 255)


def test_print_colours_become_screen_colours() -> None:
    ink = Image.new("CMYK", (64, 64), (0, 255, 255, 0))
    found = np.asarray(opened(encoded(ink, "JPEG", quality=95)))
    assert np.abs(found.reshape(-1, 3).mean(0) - [255, 0, 0]).max() < 8


def test_sixteen_bits_become_eight() -> None:
    values = np.array([[0, 255, 256, 257 * 128, 65535]], dtype=np.uint16)
    for kind in ("PNG", "TIFF"):
        found = opened(encoded(Image.fromarray(values), kind))
        assert found.mode == "L"
        assert np.asarray(found).tolist() == [[0, 0, 1, 128, 255]]


def test_black_and_white_is_gray() -> None:
    found = opened(encoded(Image.fromarray(np.array([[True, False]]))))
    assert (found.mode, np.asarray(found).tolist()) == ("L", [[255, 0]])


def test_of_an_animation_the_first_frame_counts() -> None:
    frames = [Image.new("P", SIZE, colour) for colour in (1, 2, 3)]
    for frame in frames:
        frame.putpalette([0, 0, 0, 250, 0, 0, 0, 250, 0, 0, 0, 250])
    found = opened(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert found.convert("RGB").getpixel((0, 0)) == (250, 0, 0)


def test_of_a_phones_two_images_in_one_file_the_first_counts() -> None:
    found = opened(encoded(Image.new("RGB", (16, 16), "red"), "MPO", save_all=True, append_images=[Image.new("RGB", (16, 16), "blue")]))
    assert np.abs(np.asarray(found).reshape(-1, 3).mean(0) - [254, 0, 0]).max() < 8


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "the image is missing"),
        ({"bytes": None, "path": None, "file": None, "sha256": None}, "the image is missing"),
        ({"bytes": None, "path": "gone.png", "file": None, "sha256": None}, "the image's file is not in the data set"),
        ({"bytes": None, "path": "https://example.org/a.png", "file": None, "sha256": None}, "the image's file is not in the data set"),
        (b"", "the image is empty"),
        ("a.png", "the image is of type str, not bytes"),
        (7, "the image is of type int, not bytes"),
        (b"not an image, but a text", "the file is no image of a kind that is read here"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "the file is no image of a kind that is read here"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(ls) run\n", "the file is no image of a kind that is read here"),
        (png(20_000, 20_000), "far more than 67108864 pixels"),
        (png(8193, 8192), "the image has 8193 x 8192 pixels, more than 67108864"),
        (png(2**31 - 1, 2**31 - 1), "far more than 67108864 pixels"),
    ],
)
def test_what_is_no_image_is_said_before_anything_is_decoded(value: Any, words: str) -> None:
    assert words in why(value)
    assert pixels.fault(value) == why(value)


def test_an_image_too_large_takes_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a program was started"))
    bomb = png(20_000, 20_000, b"\0" * 60_000_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(3):
        assert "far more than" in why(bomb)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 * 1024


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "TIFF", "BMP"])
def test_an_image_cut_short_is_a_fault(kind: str) -> None:
    whole = noise(kind)
    assert "the image cannot be" in why(whole[: len(whole) // 2])
    assert opened(whole).size == (80, 60)


def test_pixels_of_unknown_range_are_a_fault() -> None:
    assert "pixels of 32 bits have no agreed range" in why(encoded(Image.new("F", SIZE, 0.5), "TIFF"))
    assert "pixels of 32 bits have no agreed range" in why(encoded(Image.new("I", SIZE, 70_000), "TIFF"))


def test_a_png_with_a_text_that_unpacks_to_much_is_a_fault_or_an_image_without_it() -> None:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("comment", "a" * 80_000_000, zip=True)
    found = pixels.opened(encoded(colours(), pnginfo=info))
    assert isinstance(found, Image.Image) or "the image cannot be read" in found


@pytest.mark.filterwarnings("ignore")  # Pillow tells what it makes do with
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP", "PPM"])
def test_damaged_bytes_never_raise(kind: str) -> None:
    whole, chance = noise(kind), np.random.default_rng(1)
    faults = 0
    for _ in range(150):
        damaged = bytearray(whole)
        for place in chance.integers(0, min(len(whole), 400) if chance.random() < 0.5 else len(whole), 8):
            damaged[place] = chance.integers(0, 256)
        found = pixels.opened(bytes(damaged[: chance.integers(1, len(whole))] if chance.random() < 0.3 else damaged))
        faults += isinstance(found, str)
        assert isinstance(found, str) or found.mode in {"RGB", "L"}
    assert faults > 10


def test_a_file_is_not_read_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "real.png").write_bytes(encoded(colours()))
    (tmp_path / "link.png").symlink_to(tmp_path / "real.png")
    value = {"bytes": None, "path": "link.png", "file": str(tmp_path / "link.png"), "sha256": None}
    with pytest.raises(VolumeFailed):
        pixels.opened(value)
