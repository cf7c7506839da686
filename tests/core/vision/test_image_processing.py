"""Squares of an image: how many tiles, in which order, and the whole image last. Beside transformers:
tests/parity/test_idefics3_processor.py."""

import numpy as np
import pytest

from nano_llama.core.errors import ConfigError
from nano_llama.core.vision.image_processing import ImageProcessing

Image = pytest.importorskip("PIL.Image")

S = 8
SPLIT = ImageProcessing(image_size=S, longest_edge=4 * S, do_image_splitting=True)


@pytest.mark.parametrize(
    ("width", "height", "grid"),
    [
        (100, 100, (4, 4)),
        (32, 16, (2, 4)),
        (16, 32, (4, 2)),
        (32, 17, (3, 4)),  # 17 rounds up to 24
        (1, 10_000, (4, 1)),
        (3, 2, (3, 4)),  # grows to 32 x 21, even: 22
    ],
)
def test_grid(width, height, grid):
    assert SPLIT.grid(width, height) == grid
    tiles = SPLIT.tiles(Image.new("RGB", (width, height)))
    assert (tiles.rows, tiles.columns) == grid and tiles.pixels.shape == (grid[0] * grid[1] + 1, S, S, 3)


def test_one_tile_is_no_tile():
    small = ImageProcessing(image_size=S, longest_edge=S, do_image_splitting=True)
    assert small.grid(50, 3) == (0, 0) and len(small.tiles(Image.new("RGB", (50, 3))).pixels) == 1
    assert SPLIT.whole().grid(100, 100) == (0, 0)


def test_tiles_come_line_by_line_and_the_whole_last():
    image = np.zeros((2 * S, 4 * S, 3), np.uint8)
    for row in range(2):
        for column in range(4):
            image[row * S : (row + 1) * S, column * S : (column + 1) * S] = 30 * (4 * row + column)
    pixels = SPLIT.tiles_of_array(image).pixels
    for number in range(8):
        assert (pixels[number] == 30 * number).all()
    assert pixels[8, 0, 0, 0] < 20 and pixels[8, 0, -1, 0] > 80, "the whole, small"


def test_stretched():
    image = np.full((S, S, 3), 7, np.uint8)
    plain = ImageProcessing(image_size=S)
    assert np.array_equal(plain.tiles_of_array(image).pixels[0], image)
    assert plain.tiles(Image.new("RGB", (3, 90))).pixels.shape == (1, S, S, 3)


def test_huge_sizes_are_bounded():
    huge = ImageProcessing(image_size=2048, longest_edge=60_000, do_image_splitting=True)
    assert huge.grid(10, 10) == (2, 2)  # at most 4,096 pixels an edge


def test_impossible():
    with pytest.raises(ConfigError, match="longest_edge = 0"):
        ImageProcessing(image_size=8, longest_edge=0)
