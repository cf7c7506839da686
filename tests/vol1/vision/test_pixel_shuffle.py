"""Pixel shuffle: which patches stand side by side, and that its backward undoes it."""

import numpy as np
import pytest

from nano_llama.vol1_numpy import gradcheck
from nano_llama.vol1_numpy.vision.pixel_shuffle import pixel_shuffle_backward, pixel_shuffle_forward


def test_neighbours_stand_side_by_side():
    x = np.arange(16).reshape(1, 16, 1)  # 4 x 4 patches of one number each
    y, _ = pixel_shuffle_forward(x, 2)
    assert y.tolist() == [[[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]]


@pytest.mark.parametrize(("side", "scale_factor"), [(4, 1), (4, 2), (6, 2), (6, 3), (4, 4)])
def test_a_permutation(side, scale_factor):
    x = np.random.default_rng(0).standard_normal((2, side * side, 3))
    y, cache = pixel_shuffle_forward(x, scale_factor)
    assert y.shape == (2, side * side // scale_factor**2, 3 * scale_factor**2)
    np.testing.assert_array_equal(pixel_shuffle_backward(y, cache), x)
    gradcheck(pixel_shuffle_forward, pixel_shuffle_backward, [x, scale_factor], wrt=["x"], samples=12)


@pytest.mark.parametrize(("side", "scale_factor"), [(4, 2), (6, 2), (6, 3)])
def test_torch_undoes_it(side, scale_factor):
    """torch's pixel_shuffle makes an image of an image with more channels, in the order channel, row, column."""
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).standard_normal((2, side * side, 3))
    y, _ = pixel_shuffle_forward(x, scale_factor)
    t = side // scale_factor
    image = torch.tensor(y).view(2, t, t, scale_factor**2, 3).permute(0, 4, 3, 1, 2).flatten(1, 2)
    back = torch.nn.functional.pixel_shuffle(image, scale_factor)  # (2, 3, side, side)
    np.testing.assert_array_equal(back.flatten(2).transpose(1, 2), x)
