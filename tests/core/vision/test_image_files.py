"""Image files: every mode becomes the right pixels, and what is hostile or no image gets a clear error."""

import os

import numpy as np
import pytest

from nano_llama.core.errors import UserError
from nano_llama.core.vision import image_files
from nano_llama.core.vision.image_files import FORMATS
from nano_llama.core.vision.image_processing import ImageProcessing

Image = pytest.importorskip("PIL.Image")

from helpers.hostile_pictures import encoded, png  # noqa: E402


def read_image(source, size, **limits):
    """(size,size,3): the only square of an image that is stretched."""
    tiles = image_files.read_image(source, ImageProcessing(image_size=size), **limits)
    assert (tiles.rows, tiles.columns, len(tiles.pixels)) == (0, 0, 1)
    return tiles.pixels[0]


RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def halves(left=RED, right=BLUE, size=8):
    """Left half and right half, as an array."""
    x = np.empty((size, size, 3), np.uint8)
    x[:, : size // 2], x[:, size // 2 :] = left, right
    return x


@pytest.mark.parametrize("format", ["PNG", "GIF", "WEBP"])
def test_lossless_formats_give_the_pixels_back(tmp_path, format):
    options = {"lossless": True} if format == "WEBP" else {}
    data = encoded(Image.fromarray(halves()), format, **options)
    assert np.array_equal(read_image(data, 8), halves())
    path = tmp_path / "picture"  # by content, not by name
    path.write_bytes(data)
    assert np.array_equal(read_image(path, 8), halves()) and np.array_equal(read_image(str(path), 8), halves())
    assert format in FORMATS


def test_modes():
    image = Image.fromarray(halves())
    assert np.array_equal(read_image(encoded(image.convert("P")), 8), halves())
    cmyk = read_image(encoded(image.convert("CMYK"), "JPEG", quality=100, subsampling=0), 8)
    assert np.abs(cmyk.astype(int) - halves()).max() <= 8
    grey = np.repeat([[0, 85, 170, 255]], 4, axis=0).astype(np.uint8)
    assert np.array_equal(read_image(encoded(Image.fromarray(grey)), 4), np.stack([grey] * 3, -1))
    wide = Image.fromarray(grey.astype(np.uint16) * 257)  # 16 bits
    assert np.array_equal(read_image(encoded(wide), 4), np.stack([grey] * 3, -1))
    bits = Image.fromarray(grey).convert("1", dither=0)
    assert set(np.unique(read_image(encoded(bits), 4))) == {0, 255}


def test_a_phones_jpeg_with_more_behind_it_is_its_first_picture():
    first, second = (Image.fromarray(halves(*colours)) for colours in ((RED, RED), (BLUE, BLUE)))
    data = encoded(first, "MPO", save_all=True, append_images=[second])
    assert np.abs(read_image(data, 8).astype(int) - RED).max() <= 8


def test_what_is_transparent_is_white():
    rgba = np.dstack([halves(), np.full((8, 8), 255, np.uint8)])
    rgba[:, 4:, 3] = 0
    assert np.array_equal(read_image(encoded(Image.fromarray(rgba)), 8), halves(right=WHITE))
    rgba[:, 4:, 3] = 128
    assert np.abs(read_image(encoded(Image.fromarray(rgba)), 8)[0, 7].astype(int) - (127, 127, 255)).max() <= 1
    palette = Image.fromarray(halves()).convert("P")
    data = encoded(palette, transparency=palette.getpixel((7, 0)))
    assert np.array_equal(read_image(data, 8), halves(right=WHITE))


def test_exif_says_how_the_camera_was_held():
    upright = np.arange(16 * 16 * 3, dtype=np.uint8).reshape(16, 16, 3)
    stored = {3: upright[::-1, ::-1], 6: np.rot90(upright), 8: np.rot90(upright, -1), 2: upright[:, ::-1]}
    for orientation, pixels in stored.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        data = encoded(Image.fromarray(np.ascontiguousarray(pixels)), exif=exif)
        assert np.array_equal(read_image(data, 16), upright), orientation


def test_other_sizes_are_stretched_to_the_square(tmp_path):
    wide = np.repeat(halves(), 3, axis=1)  # 8 x 24, still half red and half blue
    for source in (wide, encoded(Image.fromarray(wide))):
        square = read_image(source, 8)
        assert square.shape == (8, 8, 3) and np.array_equal(square[:, [0, 7]], halves()[:, [0, 7]])
    assert np.array_equal(read_image(np.full((100_000, 1, 3), 7, np.uint8), 8), np.full((8, 8, 3), 7))
    thin = encoded(Image.new("RGB", (1, 100_000), RED))
    assert np.array_equal(read_image(thin, 8), halves(RED, RED))


def test_pillows_images_are_read_as_their_files_are(tmp_path):
    made = Image.fromarray(halves())
    assert np.array_equal(read_image(made, 8), halves()) and np.array_equal(read_image(made.convert("P"), 8), halves())
    for data, message in HOSTILE.values():
        path = tmp_path / "file"
        path.write_bytes(data)
        if message in ("is damaged", "is an animation"):
            with Image.open(path) as image, pytest.raises(UserError, match=f"The image {message}"):
                read_image(image, 8)
    path.write_bytes(HOSTILE["a format that is not read"][0])
    with Image.open(path) as scanned:
        assert np.array_equal(read_image(scanned, 8), halves()), "that Pillow reads"
    with pytest.raises(UserError, match="8 x 8 pixels, more than 63"):
        read_image(made, 8, max_pixels=63)


def test_an_array_of_the_right_size_needs_no_pillow(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "PIL.Image", None)
    assert np.array_equal(read_image(halves(), 8), halves())


HOSTILE = {
    "no bytes": (b"", "is empty"),
    "no image": (b"hello, world", "is not an image that is read here: it begins with b'hello, w'"),
    "svg": (b"<svg xmlns='x'/>", "in the format SVG, which is not read here"),
    "svg, with a head": (b"<?xml version='1.0'?>\n<svg xmlns='x'/>", "in the format SVG"),
    "heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "in the format HEIC"),
    "avif": (b"\0\0\0\x18ftypavif\0\0\0\0mif1avif", "in the format AVIF"),
    "bmp": (encoded(Image.fromarray(halves()), "BMP"), "in the format BMP"),
    "bomb": (png(9_000, 9_000), "has 9,000 x 9,000 pixels, more than 64,000,000"),
    "larger than Pillow's own limit": (png(60_000, 60_000), "has more than 64,000,000 pixels"),
    "truncated": (encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)))[:3000],
                  "is damaged"),
    "truncated jpeg": (encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)),
                               "JPEG")[:900], "is damaged"),
    "no pixels in it": (png(8, 8), "is damaged"),
    "animated": (encoded(Image.fromarray(halves()), "GIF", save_all=True,
                         append_images=[Image.fromarray(halves(BLUE, RED))]), "is an animation"),
    "a format that is not read": (encoded(Image.fromarray(halves()), "TIFF"), "in the format TIFF"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files(tmp_path, name):
    data, message = HOSTILE[name]
    with pytest.raises(UserError, match=message):
        read_image(data, 8)
    path = tmp_path / "file.png"
    path.write_bytes(data)
    with pytest.raises(UserError, match=message) as refusal:
        read_image(path, 8)
    assert refusal.value.message.startswith(str(path))


def test_limits_and_places(tmp_path):
    with pytest.raises(UserError, match="is a folder"):
        read_image(tmp_path, 8)
    with pytest.raises(UserError, match="Image not found") as refusal:
        read_image(tmp_path / "none.png", 8)
    assert "Give the path of a picture" in refusal.value.hint
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(UserError, match="is not a file"):
        read_image(tmp_path / "pipe.png", 8)
    with pytest.raises(UserError, match="Cannot read"):
        read_image("a\0b", 8)
    path = tmp_path / "picture.png"
    path.write_bytes(encoded(Image.fromarray(halves())))
    with pytest.raises(UserError, match="larger than 10 bytes"):
        read_image(path, 8, max_bytes=10)
    with pytest.raises(UserError, match="8 x 8 pixels, more than 63"):
        read_image(path, 8, max_pixels=63)
    for wrong in (halves().astype(np.float32), halves()[..., 0], np.zeros((0, 8, 3), np.uint8)):
        with pytest.raises(UserError, match="as an array is uint8"):
            read_image(wrong, 8)
    with pytest.raises(UserError, match="not int"):
        read_image(3, 8)
