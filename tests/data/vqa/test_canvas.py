"""Painting: how much of a pixel is covered, and what noise does."""

import numpy as np
import pytest

from nano_llama.data.vqa.canvas import Canvas


@pytest.fixture
def canvas():
    canvas = Canvas(np.random.default_rng(0))
    canvas.pixels[:] = 100
    return canvas


def test_a_rectangle_covers_its_area(canvas):
    canvas.rectangle(3.25, 10, 7.5, 12.5, (200, 200, 200))
    covered = (canvas.pixels[..., 0] - 100) / 100  # (64,64)
    assert covered.sum() == pytest.approx(4.25 * 2.5)
    assert covered[10, 3] == 0.75 and covered[10, 7] == 0.5 and covered[12, 4] == 0.5 and covered[10, 5] == 1


def test_half_covered_is_half_of_each_colour(canvas):
    canvas.cover(np.full((2, 2), 0.5), 4, 5, (0, 100, 200))
    assert canvas.pixels[4, 5].tolist() == [50, 100, 150]
    assert canvas.pixels[6, 5].tolist() == [100, 100, 100]


def test_over_the_edge_is_an_error(canvas):
    with pytest.raises(AssertionError, match="over the edge"):
        canvas.cover(np.ones((4, 4)), 62, 0, (0, 0, 0))


def test_backgrounds_differ_and_have_little_colour():
    pixels = np.stack([Canvas(np.random.default_rng(seed)).pixels for seed in range(40)])  # (40,64,64,3)
    assert (np.ptp(pixels, axis=-1) <= 20.01).all()  # a shape's colour is never the background's
    brightness = pixels.mean((1, 2, 3))
    assert (brightness < 100).sum() > 8 and (brightness > 150).sum() > 8


def test_noise_is_even():
    rng = np.random.default_rng(0)
    canvas = Canvas(rng)
    canvas.pixels[:] = 128
    images = np.stack([canvas.finish(rng) for _ in range(20)]).astype(float)
    assert abs(images.mean() - 127.5) < 0.3  # rounded down
    spread = images.std((1, 2, 3))
    assert spread.min() < 2 < 5 < spread.max() < 9
